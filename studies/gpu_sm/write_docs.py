"""Put the study's tables into docs/gpu_sm.md, between its markers.

python studies/gpu_sm/write_docs.py      after published.py and agreement.py
"""

from __future__ import annotations

import csv
import statistics
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "gpu_sm.md"


def rows_of(name: str) -> list[dict[str, str]]:
    with (HERE / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def cells(rows: list[dict[str, str]], keys: tuple[str, ...]) -> list[list[str]]:
    return [[r[k] for k in keys] for r in rows]


def published() -> str:
    rows = rows_of("published_twin.csv")
    keys = ("architecture", "instruction", "run", "published", "twin", "error_pct", "use")
    for r in rows:
        r["run"], r["published"] = f"{r['warps']} x {r['ilp']}", f"{r['value']} {r['unit']}"
    text = table(
        ["architecture", "instruction", "warps x ilp", "published", "twin", "error %", "use"], cells(rows, keys)
    )
    errors = [abs(float(r["error_pct"])) for r in rows]
    return f"{text}\n\nAll {len(errors)} rows: median {statistics.median(errors):.1f} %, largest {max(errors):.1f} %."


def loops() -> str:
    keys = {
        "architecture": "architecture", "instruction": "instruction", "tile": "tile", "warp": "warp", "stages": "stages",
        "residents": "CTAs", "pair": "share B", "twin_clk": "twin, clk", "form_clk": "closed form", "limit": "limit",
        "of_peak_pct": "of peak, %",
    }  # fmt: skip
    return table(list(keys.values()), cells(rows_of("loops.csv"), tuple(keys)))


def agreement() -> str:
    rows = [r for r in rows_of("agreement.csv") if r["limit"] == "all"]
    body = [
        [
            r["style"],
            r["tiles"],
            f"{100 * float(r['exact_share']):.0f} %",
            *(r[q] for q in ("q0", "q50", "q95", "q100")),
        ]
        for r in rows
    ]
    return table(["style", "tiles", "equal", "least twin / form", "median", "95 of 100", "most"], body)


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, make in (("published", published), ("loops", loops), ("agreement", agreement)):
        begin, end = f"<!-- {name} -->\n", f"\n<!-- end {name} -->"
        before, rest = text.split(begin, 1)
        text = before + begin + make() + end + rest.split(end, 1)[1]
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
