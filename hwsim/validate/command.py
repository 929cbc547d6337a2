"""The command ``hwsim validate``: arguments, run, print."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from hwsim.arguments import output_files
from hwsim.report.table import percent, significant, table
from hwsim.validate.ratios import ratios
from hwsim.validate.run import SUITES, Validation, validate
from hwsim.validate.score import Score

_HEADER = ("rows", "median %", "mean %", "90 % within", "<=30 %", "bias", "rank", "roofline %", "refused")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``hwsim validate``."""
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)} (default: all)")
    parser.add_argument("--device", action="append", default=[], help="only rows of this device or target (repeatable)")
    parser.add_argument("--family", action="append", default=[], help="only rows of this family (repeatable)")
    parser.add_argument("--data", metavar="DIR", help="a folder with the measured tables, those not shared included")
    parser.add_argument("--excluded", action="store_true", help="answer the rows that rules leave out too (in the CSV)")
    parser.add_argument(
        "--by", default="suite,target,precision", help="what to group by: suite, target, precision, size, …"
    )
    parser.add_argument(
        "--ratios", action="store_true", help="also how ratios between two machines come out, over rows both ran"
    )
    parser.add_argument("--csv", metavar="FILE", help="write every row with its prediction (- for standard output)")
    parser.add_argument("--markdown", metavar="FILE", help="write the table as Markdown (- for standard output)")
    parser.add_argument(
        "--figures", metavar="DIR", help="write figures: predicted against measured, distribution of errors"
    )


def main(args: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    output_files(args.csv, args.markdown)
    found = validate(
        args.suites or None, devices=args.device, families=args.family, data=args.data, excluded=args.excluded
    )
    if args.csv == "-" or args.markdown == "-":
        print(found.to_csv() if args.csv == "-" else markdown(found, tuple(args.by.split(","))), end="")
    else:
        print(validation_text(found, tuple(args.by.split(","))))
        if args.ratios:
            print(ratio_text(found))
    if args.csv not in (None, "-"):
        found.to_csv(args.csv)
    if args.markdown not in (None, "-"):
        from hwsim.files import write_whole

        write_whole(args.markdown, markdown(found, tuple(args.by.split(","))))
    if args.figures is not None:
        from hwsim.validate.figures import write_figures

        for path in write_figures(found, Path(args.figures)):
            print(f"wrote {path}")
    return 0


def _cells(score: Score) -> list[str]:
    if not score.rows:
        return ["0", *["-"] * 7, str(score.refused)]
    rank = "-" if math.isnan(score.rank) else f"{score.rank:.3f}"
    roof = "-" if math.isnan(score.roofline_median_pct) else percent(score.roofline_median_pct)
    return [
        str(score.rows), percent(score.median_pct), percent(score.mean_pct), f"{percent(score.p90_pct)} %",
        percent(score.within_30_pct), significant(score.bias, 3), rank, roof, str(score.refused or ""),
    ]  # fmt: skip


def validation_text(found: Validation, by: tuple[str, ...]) -> str:
    """Return the scores by group and in all, and what was left out by which rule."""
    scores = found.by(*by)
    rows = [[*s.group, *_cells(s)] for s in scores]
    rows.append(["all", *[""] * (len(by) - 1), *_cells(found.score())])
    lines = [table((*by, *_HEADER), rows, left=tuple(range(len(by)))), ""]
    lines.append("  median, mean: of |predicted - measured| / measured; bias: median of predicted / measured;")
    lines.append("  roofline: the same rows by peak arithmetic and peak memory bandwidth alone, median")
    for rule, count in found.exclusions().items():
        lines.append(f"  left out by rule: {rule}: {count} rows")
    lines += [f"  missing: {text}" for text in found.missing]
    return "\n".join(lines)


def ratio_text(found: Validation) -> str:
    """Return the errors of ratios between machines, pair by pair, and over all pairs."""
    scores = ratios(found.counted)
    rows = [
        [s.group, *s.targets, str(s.rows), significant(s.measured, 3), percent(s.median_pct), f"{percent(s.p90_pct)} %",
         significant(s.bias, 3)] for s in scores
    ]  # fmt: skip
    head = ("source", "machine", "over", "rows", "measured", "median %", "90 % within", "bias")
    lines = ["", table(head, rows, left=(0, 1, 2)), ""]
    lines.append(
        "  ratios of the same row on two machines: |predicted / measured - 1|; bias: median of predicted / measured"
    )
    if scores:
        middle = sorted(s.median_pct for s in scores)[len(scores) // 2]
        lines.append(f"  {len(scores)} pairs of machines, the middle one {percent(middle)} %")
    return "\n".join(lines)


def markdown(found: Validation, by: tuple[str, ...]) -> str:
    """Return the same table in Markdown."""
    head = (*by, *_HEADER)
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join([*s.group, *_cells(s)])} |" for s in found.by(*by)]
    lines.append(f"| {' | '.join(['all', *[''] * (len(by) - 1), *_cells(found.score())])} |")
    return "\n".join(lines) + "\n"
