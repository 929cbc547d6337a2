"""One machine of a comparison: each batch run once, the largest batch in time searched, the next things to try."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hwsim.errors import HwsimError
from hwsim.formats import FORMATS, get_format
from hwsim.machine import Accelerator, load_accelerator
from hwsim.machine.target import parse_target
from hwsim.network.graph import Network
from hwsim.plan.options import RunOptions
from hwsim.plan.precision import PRESETS, multiply_on, own_precision
from hwsim.simulation import simulate

MAX_BATCH = 1 << 24
_WORTH = 1.02  # a gain below 2 % is no advice
_FALLBACKS = ("bf16", "fp16", "int8")  # widest first
# What families other than systolic are offered: of each group the first that gains, the last for language models alone.
_NARROWER = (("tf32",), ("fp16", "bf16"), ("int8", "fp8"))
_WEIGHTS_ONLY = ("w4a16", "w8a16")
_STEPS = 6  # most advice for one machine


@dataclass(frozen=True, slots=True)
class Point:
    """What one run of one batch costs on one machine; ``refused`` says why it cannot run."""

    batch: int
    latency_s: float = math.inf
    energy_j: float = 0.0
    idle_w: float = 0.0
    bound_by: str = ""
    refused: str = ""
    time_shares: Mapping[str, float] = field(default_factory=dict)
    energy_parts_j: Mapping[str, float] = field(default_factory=dict)
    bound_s: float = 0.0
    dram_bytes: int = 0
    interval_s: float | None = None  # between results where runs overlap

    @property
    def throughput_per_s(self) -> float:
        """Inferences per second, runs one after the other (overlapped where the machine pipelines them)."""
        return self.batch / (self.interval_s or self.latency_s)

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
        if options.precision is None:
            if acc.family == "systolic":
                self._nearest_precision()
            else:
                self._first_that_runs()

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

    def _first_that_runs(self) -> None:
        """Take the widest preset that the machine runs when it refuses the network's own formats."""
        refusal = run(self.net, self.acc, self.options).refused
        for name in _FALLBACKS if refusal else ():
            options = replace(self.options, precision=name)
            if not run(self.net, self.acc, options).refused:
                self.options, self.note = options, f"{refusal}; {name} instead"
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
        programs = acc.programs
        known = sorted((p for p in self.points.values() if not p.refused), key=lambda p: p.batch)[-2:]
        shares = [-(-p.batch // programs) for p in known]
        if not known:
            if self.points:
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
            stack=options.stack,
            parallel=options.parallel,
        )
    except HwsimError as error:
        return Point(options.batch, refused=str(error))
    idle_w = result.energy.static.power_w.value * result.totals.programs
    parts = {name: float(v.sum()) * result.totals.used for name, v in result.energy.per_kernel.items()}
    parts["static"] = parts.get("static", 0.0) + result.idle_j
    return Point(
        options.batch, result.latency_s, result.energy_j, idle_w, result.bound_by, "", result.time_shares, parts,
        result.bound_s, result.dram_bytes, result.totals.interval_s,
    )  # fmt: skip


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


def preset_label(precision: str | Mapping[str, str]) -> str:
    """Return a precision in one word, ``mixed`` when it differs by layer."""
    return precision if isinstance(precision, str) and "," not in precision and "=" not in precision else "mixed"


def next_steps(
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
    for group in _narrower(contender):
        for name in group:
            options = replace(contender.options, precision=name, batch=point.batch)
            after = run(contender.net, contender.acc, options)
            steps.append((f"precision {name}", after))
            if not after.refused and (point.refused or after.latency_s < point.latency_s):
                break
    if contender.acc.family == "gpu" and contender.options.sparsity in (None, "dense") and not point.refused:
        options = replace(contender.options, sparsity="2:4", batch=point.batch)
        steps.append(("sparsity 2:4", run(contender.net, contender.acc, options)))
    steps += [(mode.target, run(contender.net, mode, replace(contender.options, batch=point.batch)))
              for mode in _other_modes(contender.acc)]  # fmt: skip
    acc = contender.acc
    programs = acc.programs
    if demand.verdict(point) == "FAIL" and not point.refused and point.batch > programs:
        more = replace(acc, count=2 * acc.count)
        steps.append((more.target, run(contender.net, more, replace(contender.options, batch=point.batch))))
    found = [_gain(what, after, point, demand) for what, after in steps]
    kept = [step for step in found if step is not None]
    most = sorted(kept, key=lambda step: -max(step["throughput_gain"] or 1.0, step["energy_gain"] or 1.0))[:_STEPS]
    return [step for step in kept if step in most]


def _other_modes(acc: Accelerator) -> list[Accelerator]:
    """The machine in each of its other modes (power modes, clocks)."""
    if acc.family == "systolic":
        return []
    here = parse_target(acc.target)
    modes = [load_accelerator(str(replace(here, mode=mode))) for mode in acc.modes if mode != acc.mode]
    return [mode for mode in modes if mode.digest != acc.digest]


def _narrower(contender: Contender) -> list[tuple[str, ...]]:
    """Presets the machine multiplies natively and faster than what it runs now, the least change first; two at most."""
    acc, now = contender.acc, contender.options.precision
    if not isinstance(now, str | None) or (now and preset_label(now) == "mixed"):
        return []
    own = own_formats(contender.net)
    present = now or (own if own in PRESETS else "")
    if present not in PRESETS:
        return []
    if acc.family != "systolic":
        groups = (*_NARROWER, _WEIGHTS_ONLY) if "P" in contender.net.symbols else _NARROWER
        narrower = [tuple(name for name in group if _bits(name) < _bits(present)) for group in groups]
        return [group for group in narrower if group]
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

    found = [
        next((name for name in group if better(name)), "") for group in (("bf16", "fp16"), ("int8", "fp8", "int4"))
    ]
    return [(name,) for name in found if name]


def _bits(preset: str) -> int:
    """Bits of one weight and one activation together."""
    formats = PRESETS[preset]
    return sum(FORMATS[get_format(f).name].bits for f in (formats.weights, formats.activations))


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
