"""The ``hwsim scalesim`` command: SCALE-Sim's own options, files and report names."""

from __future__ import annotations

import argparse
import re
import sys

from hwsim.errors import HwsimError
from hwsim.scalesim import api, report
from hwsim.scalesim.layout import read_layout


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add SCALE-Sim's options to a parser."""
    parser.add_argument("-c", "--config", required=True, metavar="CFG", help="SCALE-Sim configuration file")
    parser.add_argument("-t", "--topology", required=True, metavar="CSV", help="SCALE-Sim topology file")
    parser.add_argument("-l", "--layout", metavar="CSV", help="layout file; read only if the configuration asks for it")
    parser.add_argument(
        "-p", "--path", default="./results/", metavar="OUT", help="output folder (default: %(default)s)"
    )
    parser.add_argument("-i", "--input-type", choices=("conv", "gemm"), help="default: by the topology's header")
    parser.add_argument("-s", "--save-trace", metavar="Y|N", help="accepted and ignored: no traces are written")
    parser.add_argument(
        "--symbol", action="append", default=[], metavar="NAME=VALUE", help="value of a letter in a template topology"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="write the reports and print nothing")


def main(args: argparse.Namespace) -> int:
    """Run the command on parsed arguments; prints one error line and returns 2 when it cannot."""
    try:
        return _run(args)
    except HwsimError as error:
        print(f"hwsim scalesim: error: {error}", file=sys.stderr)
        return 2


def _run(args: argparse.Namespace) -> int:
    config, topology = api.load(args.config, args.topology, args.input_type, _symbols(args.symbol))
    custom = config.mode == "USER" and (config.ifmap_custom_layout or config.filter_custom_layout)
    layout = read_layout(args.layout) if args.layout and custom else None
    reports = api.simulate(config, topology, layout)
    folder = report.write_reports(config, reports, args.path)
    if args.quiet:
        return 0
    print(f"{'layer':<24} {'total cycles':>14} {'stalls':>12} {'overall util %':>15} {'mapping eff %':>14}")
    for line in reports:
        print(
            f"{line.name[:24]:<24} {line.total_cycles:>14} {line.stall_cycles:>12} "
            f"{line.overall_utilization_pct:>15.2f} {line.mapping_efficiency * 100:>14.2f}"
        )
    total, stalls = sum(r.total_cycles for r in reports), sum(r.stall_cycles for r in reports)
    print(f"{'total':<24} {total:>14} {stalls:>12}")
    for note in (*config.notes, *topology.notes):
        print(f"note: {note}")
    print(f"reports: {folder}")
    return 0


def _symbols(items: list[str]) -> dict[str, int]:
    symbols = {}
    for item in items:
        match = re.fullmatch(r"([A-Z])=(\d{1,10})", item)
        if not match:
            raise HwsimError(f"--symbol {item[:40]!r}: expected a letter and a whole number, such as B=8")
        symbols[match[1]] = int(match[2])
    return symbols
