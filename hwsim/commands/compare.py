"""``hwsim compare``: a network on many machines, ranked by cost at a latency objective."""

from __future__ import annotations

import argparse

from hwsim.arguments import output_files, shapes
from hwsim.errors import HwsimError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    from hwsim.comparison.price_arguments import add_price_arguments

    parser.add_argument("network", help="a zoo name, or a .layers.csv, .onnx, .tflite, .pt2 or SCALE-Sim .csv file")
    parser.add_argument("--on", required=True, metavar="A,B,…", help="targets with commas between, as for run")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--batch", type=int, help="default: the best that meets the objective, else 1")
    sizes.add_argument("--batches", metavar="1,8,64", help="a row for each")
    parser.add_argument("--slo", metavar="20ms", help="latency objective")
    rates = parser.add_mutually_exclusive_group()
    rates.add_argument("--rate", metavar="300/s", help="requests to carry")
    rates.add_argument(
        "--requests-per-month", metavar="3M", help="the same as a number a month, in the hours with work"
    )
    parser.add_argument("--break-even", action="store_true", help="add which machine is cheapest at which request rate")
    parser.add_argument(
        "--break-even-csv", metavar="FILE", help="write costs over the rate as CSV (- for standard output)"
    )
    parser.add_argument("--precision", help="as for run; default the network's own, or the nearest a machine has")
    parser.add_argument("--shapes", default="", metavar="S=384,…", help="values of further symbols")
    parser.add_argument("--phase", choices=("prefill", "decode"), help="which phase of a language model")
    parser.add_argument("--context", type=int, help="tokens read (prefill) or kept (decode)")
    add_price_arguments(parser)
    parser.add_argument("--json", metavar="FILE", help="write everything as JSON (- for standard output)")
    parser.add_argument("--sparsity", choices=("dense", "2:4", "2:4!"), help="where a machine has sparse multipliers")
    parser.add_argument("--csv", metavar="FILE", help="write the rows as CSV (- for standard output)")
    parser.add_argument("--parquet", metavar="FILE", help="write the rows as Parquet (extra parquet)")
    parser.add_argument("--html", metavar="FILE", help="write one self-contained page: ranking, Pareto plots, costs")


def main(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from hwsim.comparison import compare
    from hwsim.comparison.price_arguments import prices_of
    from hwsim.files import write_whole
    from hwsim.report.compare_text import break_even_text, comparison_text
    from hwsim.report.progress import Progress

    output_files(args.json, args.csv, args.html, args.break_even_csv, args.parquet)
    with Progress("comparing", args.on.count(",") + 11) as bar:
        comparison = compare(
            args.network,
            args.on,
            batch=args.batch if args.batches is None else _sizes(args.batches),
            slo=args.slo,
            rate=args.rate,
            precision=args.precision,
            shapes=shapes(args.shapes),
            phase=args.phase,
            context=args.context,
            sparsity=args.sparsity,
            prices=prices_of(args),
            per_month=args.requests_per_month,
            progress=bar.at,
        )
    paths = (args.json, args.csv, args.html)
    for path, render in zip(paths, (comparison.to_json, comparison.to_csv, comparison.to_html), strict=True):
        if path == "-":
            print(render(), end="\n" if render == comparison.to_json else "")
        elif path is not None:
            render(path)
    if args.parquet is not None:
        comparison.to_parquet(args.parquet)
    curves = args.break_even_csv
    if curves == "-":
        print(comparison.break_even.to_csv(), end="")
    elif curves is not None:
        write_whole(curves, comparison.break_even.to_csv())
    if "-" in (*paths, curves):
        return 0
    print(comparison_text(comparison))
    if args.break_even:
        print(f"\n{break_even_text(comparison)}")
    for path in (*paths, args.parquet, curves):
        if path is not None:
            print(f"wrote {path}")
    return 0


def _sizes(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) <= 9 for part in parts):
        raise HwsimError(f"--batches {text!r}: write whole numbers with commas between, as 1,8,64")
    return [int(part) for part in parts]
