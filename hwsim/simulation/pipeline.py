"""What surrounds a run: stages of the host before and after the network, one frame after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from hwsim.errors import HwsimError
from hwsim.machine import Accelerator, load_accelerator
from hwsim.machine.library import machine_names
from hwsim.plan.stages import POST, PRE, StageCost, host_stages
from hwsim.result import Result


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A run with the stages around it, all of one batch: seconds add up, nothing overlaps."""

    host: str
    image: str
    before: tuple[StageCost, ...]
    network_s: float
    after: tuple[StageCost, ...]
    batch: int

    @property
    def latency_s(self) -> float:
        """From the frame (a batch of them) to the finished answer."""
        return sum(s.seconds for s in (*self.before, *self.after)) + self.network_s

    @property
    def throughput_per_s(self) -> float:
        """Inferences per second when frames follow one another."""
        return self.batch / self.latency_s

    def to_dict(self) -> dict[str, Any]:
        """The pipeline as plain data."""
        stages = {
            side: [{"name": s.name, "seconds": s.seconds, "elements": s.elements} for s in found]
            for side, found in (("before", self.before), ("after", self.after))
        }
        return {
            "host": self.host, "image": self.image, **stages, "network_s": self.network_s, "latency_s": self.latency_s,
            "throughput_per_s": self.throughput_per_s,
        }  # fmt: skip


def pipeline_of(
    result: Result, *, pre: str | Sequence[str] = (), post: str | Sequence[str] = (), image: str = "1280x720"
) -> Pipeline:
    """Return ``result`` with stages around it on its host (a processor is its own host).

    ``pre`` and ``post`` name stages (`hwsim.plan.stages`), ``image`` is the frame as it arrives. Raises HwsimError for an
    unknown stage, and for a machine whose host is not known.
    """
    host = _host(result.accelerator)
    before, after = host_stages(result.network, host, pre=pre, post=post, image=image)
    # Tensors were counted for one program's share of the batch, frames for one.
    times = dict.fromkeys((*PRE, *POST), result.totals.used if "bound_N" in result.network.meta else 1)
    times |= {name: result.options.batch for name, stage in PRE.items() if stage.per == "image"}
    first, last = (
        tuple(replace(s, seconds=s.seconds * times[s.name], elements=s.elements * times[s.name]) for s in found)
        for found in (before, after)
    )
    return Pipeline(host.id, image, first, result.latency_s, last, result.options.batch)


def _host(acc: Accelerator) -> Accelerator:
    if acc.family == "cpu":
        return acc
    if not acc.host.name:
        processors = [name for name in machine_names() if name.endswith("-cpu")]
        close = get_close_matches(f"{acc.id}-cpu", processors, 1, 0.75) or ["raspberry-pi-4"]
        raise HwsimError(f"{acc.id} names no host for stages around the network: add --host, e.g. --host {close[0]}")
    return load_accelerator(acc.host.name)
