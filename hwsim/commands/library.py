"""``hwsim list``, ``show`` and ``import``: what networks and machines there are, and files made into traces."""

from __future__ import annotations

import argparse

from hwsim.arguments import output_files
from hwsim.errors import HwsimError, near


def add_arguments_of_list(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``list``."""
    parser.add_argument("what", choices=("networks", "accelerators"))
    parser.add_argument("--json", action="store_true")


def add_arguments_of_show(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``show``."""
    parser.add_argument("name", help="a network or an accelerator: a name or a file")
    parser.add_argument("--batch", type=int, help="of a network (default 1)")


def add_arguments_of_import(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``import``."""
    parser.add_argument("network", help="an .onnx, .tflite, .pt2 or SCALE-Sim file")
    parser.add_argument("-o", "--output", required=True, metavar="FILE.layers.csv")
    parser.add_argument("--name", help="the network's name in the trace")


def main_of_list(args: argparse.Namespace) -> int:
    """Print the table of networks or machines."""
    from hwsim.report.table import table

    if args.what == "networks":
        from hwsim.network.load import list_networks as rows_of
    else:
        from hwsim.machine import list_accelerators as rows_of
    rows = list(rows_of())
    if args.json:
        import json

        print(json.dumps(rows, indent=1))
        return 0
    if not rows:
        print(f"no {args.what} found")
        return 0
    columns = [c for c in rows[0] if c != "source"]
    cells = [
        ["" if row[c] is None else f"{row[c]:.4g}" if isinstance(row[c], float) else str(row[c]) for c in columns]
        for row in rows
    ]
    left = [i for i, c in enumerate(columns) if not all(isinstance(r[c], int | float | None) for r in rows)]
    print(table(columns, cells, left=left))
    return 0


def main_of_show(args: argparse.Namespace) -> int:
    """Print one network layer by layer, or one machine with its sources."""
    from pathlib import Path

    from hwsim.machine import load_accelerator
    from hwsim.machine.library import machine_names, names_machine
    from hwsim.network.load import load_network, zoo
    from hwsim.report import text

    name: str = args.name
    is_machine = name not in zoo() and names_machine(name)
    if not is_machine and not Path(name).exists() and name not in zoo():
        known = [*machine_names(), *zoo()]
        raise HwsimError(f"no network or accelerator is called {name!r}{near(name, known)}")
    if is_machine:
        if args.batch is not None:
            raise HwsimError(f"--batch is for networks; {name} is an accelerator")
        print(text.accelerator_table(load_accelerator(name)))
        return 0
    net = load_network(name)
    if args.batch not in (None, 1):
        if "N" not in net.symbols:
            raise HwsimError(f"network {net.name}: its batch is fixed in the file")
        net = net.bind(N=args.batch)
    print(text.network_table(net))
    return 0


def main_of_import(args: argparse.Namespace) -> int:
    """Write a model file as a layer trace."""
    from hwsim.network.load import load_network
    from hwsim.network.trace import write_trace

    output_files(args.output)
    net = load_network(args.network)
    if args.name is not None:
        name = " ".join(args.name.split())
        if not name:
            raise HwsimError("--name is empty")
        net = net.rename(name)
    write_trace(net, args.output)
    print(f"wrote {args.output}: {len(net.layers)} layers, {net.macs:,} MACs, {net.params:,} parameters")
    return 0
