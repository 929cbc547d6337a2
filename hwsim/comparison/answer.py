"""compare: one network on many machines, ranked by what it costs to meet an objective, with what to try next."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hwsim
from hwsim.bands import band_of
from hwsim.comparison.break_even import BreakEven, break_even
from hwsim.comparison.contender import Contender, Demand, Point, next_steps, own_formats, preset_label
from hwsim.comparison.frontier import mark
from hwsim.costs import Prices, cost_of, load_prices, units_for
from hwsim.data import accelerators_dir
from hwsim.errors import HwsimError
from hwsim.files import write_whole
from hwsim.machine import Accelerator, load_accelerator
from hwsim.network.graph import Network
from hwsim.network.load import load_network
from hwsim.plan.options import RunOptions
from hwsim.plan.precision import check_patterns, parse_precision
from hwsim.simulation import bind_network
from hwsim.units import parse

if TYPE_CHECKING:
    import pandas as pd

_MONTH_S = 365.25 / 12 * 86400.0

COLUMNS = (
    "rank", "target", "name", "precision", "precision_note", "batch", "fits", "refused", "verdict", "objective_s",
    "latency_s", "fill_s", "largest_batch", "throughput_per_s", "rate_per_s", "units", "chips", "busy", "power_w",
    "energy_per_inference_j", "usd_per_million", "usd_basis", "rent_usd_per_million", "buy_usd_per_million",
    "hardware_usd_per_million", "electricity_usd_per_million", "carbon_g_per_million", "rent_price", "purchase_price",
    "usd_per_month", "pareto", "bound_by", "bound_s", "dram_bytes", "time_shares", "energy_parts_j", "next",
)  # fmt: skip


class Comparison:
    """The answer of `compare`: ``rows`` (best first, one dictionary per target and batch), ``notes`` and files of it."""

    def __init__(
        self,
        network: Network,
        options: RunOptions,
        demand: Demand,
        prices: Prices,
        rows: list[dict[str, Any]],
        ranked_by: str,
        passes: Mapping[str, int] | None = None,
        contenders: Mapping[str, Contender] | None = None,
        per_month: float | None = None,
    ) -> None:
        self.network, self.options, self.demand, self.prices = network, options, demand, prices
        self.rows, self.ranked_by = rows, ranked_by
        self.per_month = per_month
        self.contenders = dict(contenders or {})  # by target: what was simulated of each
        self.passes = dict(passes or {})  # bf16 passes of an fp32 product, by machine, where some multiply in fp32

    @property
    def table(self) -> pd.DataFrame:
        """The rows as a pandas DataFrame."""
        import pandas as pd

        return pd.DataFrame(self.rows, columns=list(COLUMNS))

    @property
    def front(self) -> list[dict[str, Any]]:
        """The rows that nothing beats in latency, energy and money together, best first."""
        return [row for row in self.rows if row["pareto"]]

    @cached_property
    def break_even(self) -> BreakEven:
        """Costs over the request rate, and which machine is cheapest where (see `hwsim.comparison.break_even`)."""
        return break_even(self.contenders, self.demand, self.prices)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the figures include and what they leave out, every price with its date, every assumption."""
        prices, demand = self.prices, self.demand
        notes = [f"ranked by {self.ranked_by}"]
        if demand.objective_s is not None:
            notes.append("the largest batch that meets the objective is searched among powers of two")
        if self.per_month is not None:
            share = prices.assumptions["utilization"].text
            notes.append(
                f"{self.per_month:,.0f} requests a month are {demand.rate_per_s:.4g}/s in {share} of the hours"
            )
        if demand.rate_per_s is not None:
            notes.append(
                "requests arrive evenly and one batch fills at a time: its oldest request waits (batch - 1) / rate, "
                "which counts towards the objective; queues and bursts do not"
            )
        if self.passes:
            notes.append(
                f"fp32 products take so many bf16 passes on {', '.join(f'{n}: {p}' for n, p in self.passes.items())}; "
                "others multiply in IEEE fp32 (--precision bf16 compares like with like)"
            )
        for family in dict.fromkeys(c.acc.family for c in self.contenders.values()):
            band = band_of(family, len(self.network.layers))
            told = "nothing of this family was measured" if band is None else str(band)
            notes.append(f"how true latencies of family {family} are: {told}")
        priced = [row for row in self.rows if row["usd_basis"]]
        fitting = [row for row in self.rows if row["fits"]]
        for row in fitting:
            parts = [("rent", row["rent_price"]), ("purchase", row["purchase_price"])]
            found = [f"{what} {text}" for what, text in parts if text]
            if found:
                notes.append(f"price of a chip of {row['target']}: {' and '.join(found)}")
        unpriced = [row["target"] for row in fitting if not row["usd_basis"]]
        if unpriced:
            advice = "--price TARGET=2.10USD/h (rent) or =249USD (purchase), or --prices FILE, gives one"
            notes.append(f"no price is known of {', '.join(dict.fromkeys(unpriced))}: {advice}")
        names = ["utilization"] if priced else []
        names += ["electricity", "cooling", "life_years"] if any(row["purchase_price"] for row in self.rows) else []
        names += [n for n in ("cooling", "carbon_g_per_kwh") if n not in names] if prices.carbon_g_per_kwh else []
        for name in names:
            value = prices.assumptions[name]
            notes.append(f"{name.replace('_', ' ')} {value.text} ({value.source})")
        notes.append("power, energy and prices are those of the accelerators: hosts and network are left out")
        return tuple(dict.fromkeys(notes))

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data, JSON-ready."""
        precision = self.options.precision
        return {
            "hwsim": hwsim.__version__,
            "network": self.network.name,
            "objective_s": self.demand.objective_s,
            "rate_per_s": self.demand.rate_per_s,
            "precision": precision if isinstance(precision, str | None) else dict(precision),
            "requests_per_month": self.per_month,
            "ranked_by": self.ranked_by,
            "assumptions": {
                name: {"value": v.value, "text": v.text, "source": v.source}
                for name, v in self.prices.assumptions.items()
            },
            "notes": list(self.notes),
            "rows": self.rows,
        }

    def to_json(self, path: str | Path | None = None) -> str:
        """Return the comparison as JSON text, and write it to ``path`` when given."""
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False)
        if path is not None:
            write_whole(path, text + "\n")
        return text

    def to_csv(self, path: str | Path | None = None) -> str:
        """Return the rows as CSV text, and write it to ``path`` when given; what to try next is one text."""
        buffer = io.StringIO()
        # Text and numbers only: what is a table of its own is in the JSON.
        flat = [name for name in COLUMNS if name not in ("time_shares", "energy_parts_j")]
        table = csv.DictWriter(buffer, flat, lineterminator="\n", extrasaction="ignore")
        table.writeheader()
        for row in self.rows:
            table.writerow({**row, "next": "; ".join(step["text"] for step in row["next"])})
        if path is not None:
            write_whole(path, buffer.getvalue())
        return buffer.getvalue()

    def to_parquet(self, path: str | Path) -> None:
        """Write the rows as Parquet (extra ``parquet``); breakdowns and advice are JSON text."""
        from hwsim.report.parquet import write_parquet

        write_parquet(self.rows, path)

    def to_html(self, path: str | Path | None = None) -> str:
        """Return the comparison as one self-contained HTML page, and write it to ``path`` when given."""
        from hwsim.report.compare_html import comparison_page

        page = comparison_page(self)
        if path is not None:
            write_whole(path, page)
        return page

    def __repr__(self) -> str:
        best = self.rows[0]["target"] if self.rows and self.rows[0]["fits"] else "none"
        return f"<Comparison of {len(self.rows)} rows for {self.network.name}: first {best}, by {self.ranked_by}>"


def _rank(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """The rows, best first and numbered, and what they are ranked by in words."""
    fitting = [row for row in rows if row["fits"]]
    priced = [row for row in fitting if row["usd_per_million"] is not None]
    if not fitting:
        by = "nothing: every machine refuses"
    else:
        by = "energy per inference (no price is known)"
    if priced:
        by = "US dollars per million inferences"
        by += "" if len(priced) == len(fitting) else ", then the unpriced by energy per inference"
    if any(row["verdict"] for row in rows):
        by = f"the objective met, then {by}"

    def order(row: Mapping[str, Any]) -> tuple[Any, ...]:
        usd = row["usd_per_million"]
        energy = row["energy_per_inference_j"] if row["fits"] else 0.0
        return (not row["fits"], row["verdict"] == "FAIL", usd is None, usd if usd is not None else energy, energy)

    rows = sorted(rows, key=order)
    for number, row in enumerate(rows, 1):
        row["rank"] = number
    return rows, by


def compare(
    network: str | PathLike[str] | Network | Any,
    targets: str | PathLike[str] | Accelerator | Iterable[str | PathLike[str] | Accelerator],
    *,
    batch: int | Sequence[int] | None = None,
    slo: str | float | None = None,
    rate: str | float | None = None,
    precision: str | Mapping[str, str] | None = None,
    shapes: Mapping[str, int] | None = None,
    phase: str | None = None,
    context: int | None = None,
    sparsity: str | None = None,
    prices: Prices | str | PathLike[str] | None = None,
    per_month: str | float | None = None,
    suggest: int = 10,
    progress: Callable[[float, str], None] | None = None,
) -> Comparison:
    """Return ``network`` on each of ``targets`` (a list, or text with commas), ranked, refusals included with reasons.

    ``slo`` is the latency objective (``"20ms"`` or seconds), ``rate`` the requests to carry (``"300/s"``). Without
    ``batch``, a target's row is its best batch that meets the objective (one when none does, or without an objective):
    with a rate the one that needs fewest machines and then least energy, else the fastest. ``precision`` None is the
    network's own formats, or the nearest a machine has where it refuses them, said in the row. ``prices`` is a price
    file or `hwsim.costs.Prices`. ``per_month`` requests (``"3M"``) are a rate in the hours with work (``utilization``).
    What to try next is simulated for the ``suggest`` best rows. ``progress`` is told which machine is next, and how many of
    machines and rows are done.
    Raises HwsimError for a wrong option, an unknown network or an unknown machine.
    """
    demand = Demand(_quantity("slo", slo, "time"), _quantity("rate", rate, "rate"))
    asked = None if batch is None else tuple(dict.fromkeys(batch if isinstance(batch, Sequence) else [batch]))
    if asked == ():
        raise HwsimError("batch: give at least one")
    options = RunOptions(1, {} if shapes is None else shapes, phase, context, precision, sparsity)
    net = load_network(network)
    check_patterns(net, parse_precision(precision))
    for size in asked or (1,):
        bind_network(net, replace(options, batch=size).check(), size)
    machines = _machines(targets)
    if not isinstance(prices, Prices | str | PathLike | None):
        raise HwsimError(f"prices must be a price file or Prices, not {prices!r}")
    priced = Prices() if prices is None else prices if isinstance(prices, Prices) else load_prices(Path(prices))
    priced.check_names((file.stem for file in accelerators_dir().glob("*.toml")), machines)
    monthly = _monthly(per_month)
    if monthly is not None:
        if rate is not None:
            raise HwsimError("rate and requests per month: one of them is enough")
        demand = replace(demand, rate_per_s=monthly / (_MONTH_S * priced.assumed("utilization")))
    rows: list[dict[str, Any]] = []
    behind: dict[int, Contender] = {}
    for done, acc in enumerate(machines):
        if progress is not None:
            progress(done, acc.target)
        contender = Contender(net, acc, options)
        largest = None if demand.objective_s is None else contender.search(demand)
        for size in asked or (_best_batch(contender, demand, largest),):
            rows.append(_row(contender, contender.at(size), demand, priced, largest))
            behind[id(rows[-1])] = contender
            if monthly is not None and rows[-1]["usd_per_million"] is not None:
                rows[-1]["usd_per_month"] = rows[-1]["usd_per_million"] * monthly / 1e6
    mark(rows)
    rows, ranked_by = _rank(rows)
    for done, row in enumerate(rows[:suggest], len(machines)):
        if progress is not None:
            progress(done, f"next to try on {row['target']}")
        contender, size = behind[id(row)], row["batch"]
        row["next"] = next_steps(contender, contender.at(size), demand, row["largest_batch"], asked is None)
    contenders = {c.acc.target: c for c in behind.values()}
    order = {acc.target: contenders[acc.target] for acc in machines}
    return Comparison(net, options, demand, priced, rows, ranked_by, _passes(machines, rows), order, monthly)


def _passes(machines: Sequence[Accelerator], rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """bf16 passes of fp32 rows by machine, where machines differ in them: their fp32 answers are not of equal accuracy."""
    asked = {row["target"] for row in rows if row["precision"] == "fp32"}
    found = {acc.target: acc.numerics.fp32_passes for acc in machines if acc.target in asked}
    return {n: p for n, p in found.items() if p} if 0 in found.values() else {}


def _quantity(name: str, value: str | float | None, of: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, str):
        try:
            number = parse(value, of)
        except HwsimError as error:
            raise HwsimError(f"{name}: {error}") from None
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
    else:
        raise HwsimError(f"{name} must be text with a unit or a number, not {value!r}")
    if not 0 < number <= 1e12:
        raise HwsimError(f"{name} must be more than nothing and at most 1e12, not {value!r}")
    return number


def _monthly(value: str | float | None) -> float | None:
    """Requests a month, from a number or text as 3M."""
    if value is None:
        return None
    match = re.fullmatch(r"\s*(\d[\d_]{0,15}(?:\.\d{0,9})?(?:e\d{1,2})?)\s*([kMG]?)\s*", str(value))
    number = float(match.group(1)) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[match.group(2)] if match else 0.0
    if not 0 < number <= 1e15:
        raise HwsimError(f"requests per month must be a number as 3000000 or 3M, not {str(value)[:40]!r}")
    return number


def _machines(
    targets: str | PathLike[str] | Accelerator | Iterable[str | PathLike[str] | Accelerator],
) -> list[Accelerator]:
    if isinstance(targets, str):
        targets = [t.strip() for t in targets.split(",")]
    if not isinstance(targets, Iterable | Accelerator | PathLike):
        raise HwsimError(f"targets must be names or machines, not {targets!r}")
    named = [targets] if isinstance(targets, Accelerator | PathLike) else list(targets)
    if not named or "" in named:
        raise HwsimError("targets: name machines with commas between, as tpu-v4,tpu-v5e")
    machines = [load_accelerator(t if isinstance(t, Accelerator) else str(t)) for t in named]
    return list({acc.target + acc.digest: acc for acc in machines}.values())


def _best_batch(contender: Contender, demand: Demand, largest: int | None) -> int:
    """Of the batches simulated that meet the objective: fewest machines and least energy for a rate, else the fastest."""
    if largest is None:
        return 1

    def worth(point: Point) -> tuple[float, ...]:
        if demand.rate_per_s is None:
            return (-point.throughput_per_s, point.batch)
        return (units_for(demand.rate_per_s, point.throughput_per_s), point.energy_each_j, point.batch)

    return min((p for p in contender.points.values() if demand.met(p)), key=worth).batch


def _row(contender: Contender, point: Point, demand: Demand, prices: Prices, largest: int | None) -> dict[str, Any]:
    acc, precision = contender.acc, contender.options.precision
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {
        "target": acc.target,
        "name": acc.name,
        "precision": own_formats(contender.net) if precision is None else preset_label(precision),
        "precision_note": contender.note,
        "batch": point.batch,
        "fits": not point.refused,
        "refused": point.refused,
        "verdict": "" if point.refused else demand.verdict(point),
        "objective_s": demand.objective_s,
        "largest_batch": largest,
        "rate_per_s": demand.rate_per_s,
        "usd_basis": "",
        "rent_price": str(prices.rent_of(acc) or ""),
        "purchase_price": str(prices.purchase_of(acc) or ""),
        "bound_by": point.bound_by,
        "time_shares": dict(point.time_shares),
        "energy_parts_j": dict(point.energy_parts_j),
        "next": [],
    }
    if point.refused:
        return row
    cost = cost_of(
        prices,
        acc,
        throughput_per_s=point.throughput_per_s,
        energy_per_inference_j=point.energy_each_j,
        idle_w=point.idle_w,
        rate_per_s=demand.rate_per_s,
    )
    return row | {
        "latency_s": point.latency_s,
        "fill_s": demand.fill_s(point.batch),
        "throughput_per_s": point.throughput_per_s,
        "units": cost.units,
        "chips": cost.units * acc.chips,
        "busy": cost.busy,
        "bound_s": point.bound_s,
        "dram_bytes": point.dram_bytes,
        "power_w": point.energy_j / point.latency_s,
        "energy_per_inference_j": point.energy_each_j,
        "usd_per_million": cost.least,
        "usd_basis": cost.basis,
        "rent_usd_per_million": cost.rent,
        "buy_usd_per_million": cost.buy,
        "hardware_usd_per_million": cost.hardware,
        "electricity_usd_per_million": cost.electricity,
        "carbon_g_per_million": cost.carbon_g,
    }
