"""compare: one network on many machines, ranked by what it costs to meet an objective, with what to try next."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hwsim
from hwsim.costs import Prices, cost_of, load_prices, units_for
from hwsim.data import accelerators_dir
from hwsim.errors import HwsimError
from hwsim.files import write_whole
from hwsim.formats import FORMATS, get_format
from hwsim.machine import Accelerator, load_accelerator
from hwsim.network.graph import Network
from hwsim.network.load import load_network
from hwsim.plan.options import RunOptions
from hwsim.plan.precision import PRESETS, check_patterns, multiply_on, own_precision, parse_precision
from hwsim.simulation import bind_network, simulate
from hwsim.units import parse

if TYPE_CHECKING:
    import pandas as pd

MAX_BATCH = 1 << 24
_WORTH = 1.02  # a gain below 2 % is no advice

COLUMNS = (
    "rank", "target", "name", "precision", "precision_note", "batch", "fits", "refused", "verdict", "objective_s",
    "latency_s", "fill_s", "largest_batch", "throughput_per_s", "rate_per_s", "units", "chips", "busy", "power_w",
    "energy_per_inference_j", "usd_per_million", "usd_basis", "rent_usd_per_million", "buy_usd_per_million",
    "hardware_usd_per_million", "electricity_usd_per_million", "carbon_g_per_million", "rent_price", "purchase_price",
    "bound_by", "next",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Point:
    """What one run of one batch costs on one machine; ``refused`` says why it cannot run."""

    batch: int
    latency_s: float = math.inf
    energy_j: float = 0.0
    idle_w: float = 0.0
    bound_by: str = ""
    refused: str = ""

    @property
    def throughput_per_s(self) -> float:
        """Inferences per second, runs one after the other."""
        return self.batch / self.latency_s

    @property
    def energy_each_j(self) -> float:
        """Joules of one inference."""
        return self.energy_j / self.batch


@dataclass(frozen=True, slots=True)
class Demand:
    """The objective and the rate. ``met`` adds to a run's latency the wait of the oldest request for its batch."""

    objective_s: float | None
    rate_per_s: float | None

    def fill_s(self, batch: int) -> float:
        """Seconds from the first to the last request of a batch, arriving evenly at the asked rate."""
        return 0.0 if self.rate_per_s is None else (batch - 1) / self.rate_per_s

    def met(self, point: Point) -> bool:
        """Whether the batch runs and, with an objective, answers its oldest request in time."""
        if point.refused:
            return False
        return self.objective_s is None or point.latency_s + self.fill_s(point.batch) <= self.objective_s

    def verdict(self, point: Point) -> str:
        """``PASS`` or ``FAIL`` against the objective, ``""`` without one."""
        return "" if self.objective_s is None else "PASS" if self.met(point) else "FAIL"


class Contender:
    """One machine of a comparison: runs each batch once, chooses the precision, searches the batch."""

    def __init__(self, net: Network, acc: Accelerator, options: RunOptions) -> None:
        self.net, self.acc = net, acc
        self.options = options
        self.note = ""
        self.points: dict[int, Point] = {}
        if options.precision is None and acc.family == "systolic":
            self._nearest_precision()

    def _nearest_precision(self) -> None:
        """Take the widest format the machine multiplies when it refuses one of the network's own."""
        refusal = _refused_format(self.net, self.acc)
        if not refusal:
            return
        native = {n: p for n, p in PRESETS.items() if not p.passes and self.acc.rate(p.activations, p.weights) > 0}
        for name in sorted(native, key=lambda n: -FORMATS[get_format(native[n].activations).name].bits):
            if name in ("uint8", "w8a8"):  # int8 under other names
                continue
            self.options = replace(self.options, precision=name)
            self.note = f"{refusal}; {name} instead, the nearest it has"
            return

    def at(self, batch: int) -> Point:
        """Return what ``batch`` costs; simulated once."""
        if batch not in self.points:
            self.points[batch] = run(self.net, self.acc, replace(self.options, batch=batch))
        return self.points[batch]

    def search(self, demand: Demand) -> int | None:
        """Return the largest power of two that meets the objective, None when a batch of one does not.

        Latency is taken to grow with the batch. The answer itself was simulated, and so was twice it, unless it is
        beyond what the rate fills in time or the network's file allows.
        """
        low, high = -1, _highest(self.net, demand) + 1  # exponents known to pass, to fail
        tries = 0
        while high - low > 1:
            middle = self._guess(demand, low, high) if tries < 5 else (low + high) // 2
            tries += 1
            if demand.met(self.at(1 << middle)):
                low = middle
            else:
                high = middle
        return None if low < 0 else 1 << low

    def _guess(self, demand: Demand, low: int, high: int) -> int:
        """The exponent, between ``low`` and ``high``, where a straight line through known latencies meets the objective."""
        acc, objective_s = self.acc, demand.objective_s or 0.0
        programs = acc.chips * (1 if acc.chip.megacore else acc.chip.cores)
        known = sorted((p for p in self.points.values() if not p.refused), key=lambda p: p.batch)[-2:]
        shares = [-(-p.batch // programs) for p in known]
        if not known:
            if self.points or "matrix_unit" not in acc.sections:
                return (low + high) // 2
            peak = acc.peak_ops_per_s("bf16") or acc.peak_ops_per_s("int8") or acc.peak_ops_per_s("int16") or 1e12
            share = (
                objective_s * 0.2 * peak / max(2 * self.net.macs, 1) * acc.chips / programs
            )  # at a fifth of its peak
        elif len(known) == 2 and shares[1] > shares[0] and known[1].latency_s > known[0].latency_s:
            slope = (known[1].latency_s - known[0].latency_s) / (shares[1] - shares[0])
            share = shares[1] + (objective_s - known[1].latency_s) / slope
        else:
            share = objective_s / known[-1].latency_s * shares[-1]
        batch = min(max(share, 1.0) * programs, float(MAX_BATCH))
        return min(max(int(math.log2(batch)), low + 1), high - 1)


def run(net: Network, acc: Accelerator, options: RunOptions) -> Point:
    """Return one simulated point; a refusal becomes its reason."""
    try:
        result = simulate(
            net,
            acc,
            batch=options.batch,
            shapes=options.shapes,
            phase=options.phase,
            context=options.context,
            precision=options.precision,
            sparsity=options.sparsity,
        )
    except HwsimError as error:
        return Point(options.batch, refused=str(error))
    idle_w = result.energy.static.power_w.value * result.totals.programs
    return Point(options.batch, result.latency_s, result.energy_j, idle_w, result.bound_by)


def _refused_format(net: Network, acc: Accelerator) -> str:
    """Why the machine cannot multiply a format of the network, "" when it can multiply all."""
    seen = set()
    for layer in net.layers:
        precision = own_precision(layer)
        if not net.products[layer.id] or precision in seen:
            continue
        seen.add(precision)
        try:
            multiply_on(acc.matrix_unit.rates, acc.numerics.fp32_passes, precision, acc.id)
        except HwsimError:
            act, weight = precision.activations, precision.weights
            return f"{acc.id} does not multiply the network's {act if act == weight else f'{act} x {weight}'}"
    return ""


def _highest(net: Network, demand: Demand) -> int:
    """The largest exponent of a batch worth trying: what the file allows and the rate fills within the objective."""
    if "N" not in net.symbols:
        return 0
    if demand.rate_per_s is None or demand.objective_s is None:
        return MAX_BATCH.bit_length() - 1
    filled = 1 + math.floor(min(demand.objective_s * demand.rate_per_s, MAX_BATCH - 1))
    return filled.bit_length() - 1


def own_formats(net: Network) -> str:
    """Return the format of a network's own products, ``mixed`` when there are several."""
    found = {own_precision(layer).activations for layer in net.layers if net.products[layer.id]}
    return next(iter(found)) if len(found) == 1 else "mixed" if found else "none"


class Comparison:
    """The answer of `compare`: ``rows`` (best first, one dictionary per target and batch), ``notes`` and files of it."""

    def __init__(
        self, network: Network, options: RunOptions, demand: Demand, prices: Prices, rows: list[dict[str, Any]]
    ) -> None:
        self.network, self.options, self.demand, self.prices = network, options, demand, prices
        self.rows, self.ranked_by = _rank(rows)

    @property
    def table(self) -> pd.DataFrame:
        """The rows as a pandas DataFrame."""
        import pandas as pd

        return pd.DataFrame(self.rows, columns=list(COLUMNS))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the figures include and what they leave out, every price with its date, every assumption."""
        prices, demand = self.prices, self.demand
        notes = [f"ranked by {self.ranked_by}"]
        if demand.objective_s is not None:
            notes.append("the largest batch that meets the objective is searched among powers of two")
        if demand.rate_per_s is not None:
            notes.append(
                "requests arrive evenly and one batch fills at a time: its oldest request waits (batch - 1) / rate, "
                "which counts towards the objective; queues and bursts do not"
            )
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
        table = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
        table.writeheader()
        for row in self.rows:
            table.writerow({**row, "next": "; ".join(step["text"] for step in row["next"])})
        if path is not None:
            write_whole(path, buffer.getvalue())
        return buffer.getvalue()

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
) -> Comparison:
    """Return ``network`` on each of ``targets`` (a list, or text with commas), ranked, refusals included with reasons.

    ``slo`` is the latency objective (``"20ms"`` or seconds), ``rate`` the requests to carry (``"300/s"``). Without
    ``batch``, a target's row is its best batch that meets the objective (one when none does, or without an objective):
    with a rate the one that needs fewest machines and then least energy, else the fastest. ``precision`` None is the
    network's own formats, or the nearest a machine has where it refuses them, said in the row. ``prices`` is a price
    file or `hwsim.costs.Prices`. Raises HwsimError for a wrong option, an unknown network or an unknown machine.
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
    rows: list[dict[str, Any]] = []
    for acc in machines:
        contender = Contender(net, acc, options)
        largest = None if demand.objective_s is None else contender.search(demand)
        sizes = asked or (_best_batch(contender, demand, largest),)
        rows += [_row(contender, contender.at(b), demand, priced, largest, asked is None) for b in sizes]
    return Comparison(net, options, demand, priced, rows)


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


def _row(
    contender: Contender, point: Point, demand: Demand, prices: Prices, largest: int | None, searched: bool
) -> dict[str, Any]:
    acc, precision = contender.acc, contender.options.precision
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {
        "target": acc.target,
        "name": acc.name,
        "precision": own_formats(contender.net) if precision is None else _label(precision),
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
        "next": _next(contender, point, demand, largest, searched),
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


def _label(precision: str | Mapping[str, str]) -> str:
    return precision if isinstance(precision, str) and "," not in precision and "=" not in precision else "mixed"


def _next(
    contender: Contender, point: Point, demand: Demand, largest: int | None, searched: bool
) -> list[dict[str, Any]]:
    """What to try next, simulated: another batch, a narrower format the machine multiplies natively, twice the chips."""
    steps: list[tuple[str, Point]] = []
    if point.refused:
        if point.batch > 1 and not contender.at(1).refused:
            steps.append(("batch 1", contender.at(1)))
    elif demand.verdict(point) == "FAIL":
        if largest is not None and largest < point.batch:
            steps.append((f"batch {largest}", contender.at(largest)))
    elif "N" in contender.net.symbols and not searched and 2 * point.batch <= (largest or MAX_BATCH):
        steps.append((f"batch {2 * point.batch}", contender.at(2 * point.batch)))
    for name in _narrower(contender):
        options = replace(contender.options, precision=name, batch=point.batch)
        steps.append((f"precision {name}", run(contender.net, contender.acc, options)))
    acc = contender.acc
    programs = acc.chips * (1 if acc.chip.megacore else acc.chip.cores)
    if demand.verdict(point) == "FAIL" and not point.refused and point.batch > programs:
        more = replace(acc, count=2 * acc.count)
        steps.append((more.target, run(contender.net, more, replace(contender.options, batch=point.batch))))
    found = [_gain(what, after, point, demand) for what, after in steps]
    return [step for step in found if step is not None]


def _narrower(contender: Contender) -> list[str]:
    """Presets the machine multiplies natively and faster than what it runs now, the least change first; two at most."""
    acc, now = contender.acc, contender.options.precision
    if acc.family != "systolic" or not isinstance(now, str | None) or (now and _label(now) == "mixed"):
        return []
    own = own_formats(contender.net)
    present = now or (own if own in PRESETS else "")
    if present not in PRESETS:
        return []
    try:
        multiply = multiply_on(acc.matrix_unit.rates, acc.numerics.fp32_passes, PRESETS[present], acc.id)
    except HwsimError:
        speed = 0.0
    else:
        speed = multiply.rate / multiply.passes
    width = FORMATS[get_format(PRESETS[present].activations).name].bits

    def better(name: str) -> bool:
        formats = PRESETS[name]
        rate = acc.rate(formats.activations, formats.weights)
        return rate > 0 and rate >= speed and FORMATS[get_format(formats.activations).name].bits < width

    float16 = [name for name in ("bf16", "fp16") if better(name)][:1]
    return float16 + [name for name in ("int8", "fp8", "int4") if better(name)][:1]


def _gain(what: str, after: Point, before: Point, demand: Demand) -> dict[str, Any] | None:
    """One step with its simulated gain, None when it gains nothing."""
    if after.refused:
        return None
    verdict = demand.verdict(after)
    step = {"change": what, "latency_s": after.latency_s, "verdict": verdict}
    said = f" at {after.latency_s * 1e3:.3g} ms" + (f" ({verdict})" if verdict else "")
    if before.refused:
        return step | {"throughput_gain": None, "energy_gain": None, "text": f"{what}: runs{said}"}
    rate = after.throughput_per_s / before.throughput_per_s
    energy = before.energy_each_j / after.energy_each_j
    gained = [f"{gain:.2f}x {of}" for gain, of in ((rate, "rate"), (energy, "less energy")) if gain >= _WORTH]
    turned = verdict == "PASS" and demand.verdict(before) == "FAIL"
    if (not gained and not turned) or (verdict == "FAIL" and demand.met(before)):
        return None
    return step | {
        "throughput_gain": rate, "energy_gain": energy, "text": f"{what}: {', '.join(gained) or 'in time'}{said}"
    }  # fmt: skip
