"""What a run needs of one program's memory, what is left, and the largest batch and the longest context that would fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwsim.errors import FitError
from hwsim.network.cache import LENGTH, PAST, keeps_cache, own_context
from hwsim.network.graph import Network

if TYPE_CHECKING:
    from hwsim.plan.plan import Plan

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one program: constants, live activations at their peak, keys and values, scratch of kernels, the runtime.

    ``batch`` inputs (or sequences) run at once; each has ``tokens`` in the cache at the end (0: the network keeps none).
    ``decodes``: activations do not grow with the tokens. Activations and cache grow in proportion to the batch.
    ``own``: tokens the model was made for (0: not known), beyond which no context is said to fit.
    """

    weights: int
    activations: int
    cache: int
    capacity: int
    batch: int
    tokens: int = 0
    decodes: bool = False
    workspace: int = 0
    runtime: int = 0
    own: int = 0

    @property
    def need(self) -> int:
        """Bytes in all."""
        return self.weights + self.activations + self.cache + self.workspace + self.runtime

    @property
    def fits(self) -> bool:
        """Whether there is as much."""
        return self.need <= self.capacity

    @property
    def _room(self) -> int:
        return self.capacity - self.weights - self.workspace - self.runtime

    @property
    def largest_batch(self) -> int:
        """The largest batch of such inputs that fits one program; 0 where not even one does."""
        return max(0, self._room * max(1, self.batch) // max(1, self.activations + self.cache))

    @property
    def longest_context(self) -> int:
        """The most tokens read (or kept, when decoding) that fit at this batch; 0 where none do, or no cache is kept."""
        if not self.tokens:
            return 0
        if self.decodes:  # the token being made is kept too
            most = (self._room - self.activations) * self.tokens // max(1, self.cache) - 1
            return max(0, min(most, self.own - 1) if self.own else most)
        most = self._room * self.tokens // max(1, self.activations + self.cache)
        return max(0, min(most, self.own) if self.own else most)

    @property
    def own_limits(self) -> bool:
        """Whether the model itself, not memory, ends the longest context."""
        return bool(self.own) and self.longest_context == self.own - self.decodes

    @property
    def beyond(self) -> str:
        """What to say where more tokens are held than the model was made for; empty where they are not."""
        if not self.own or self.tokens <= self.own:
            return ""
        return (
            f"{self.tokens} tokens are more than the {self.own} this model was made for: time and memory hold, "
            "its answers would not"
        )

    def check(self, network: str, machine: str, advice: str = "") -> Memory:
        """Return self; raises FitError, one line with what would fit, when there is too little."""
        if self.fits:
            return self
        if self._room <= 0:
            told = f"the weights alone take {self.weights / GIB:.2f} GiB: a narrower precision would be needed"
        elif not self.largest_batch and not self.longest_context:
            told = "even batch 1 does not fit: a narrower precision or a shorter input would be needed"
        else:
            told = " or ".join(
                [f"batch {self.largest_batch} per program"] * bool(self.largest_batch)
                + [f"a context of {self.longest_context} tokens"] * bool(self.longest_context)
            )
            told += " would fit"
        more = f", runtime and workspace {(self.runtime + self.workspace) / GIB:.2f}" if self.runtime else ""
        raise FitError(
            f"{network} does not fit {machine}: {self.need / GIB:.2f} GiB needed (weights {self.weights / GIB:.2f}, "
            f"activations {self.activations / GIB:.2f}, cache {self.cache / GIB:.2f}{more}), "
            f"{self.capacity / GIB:.2f} GiB there; {told}{advice}"
        )


def memory_of(plan: Plan, net: Network, capacity: int, batch: int, workspace: int = 0, runtime: int = 0) -> Memory:
    """Return what ``plan`` of the bound network ``net`` needs on a program with ``capacity`` bytes."""
    tokens, decodes = 0, False
    if keeps_cache(net) and f"bound_{LENGTH}" in net.meta:
        new, past = int(net.meta[f"bound_{LENGTH}"]), int(net.meta.get(f"bound_{PAST}", 0))
        tokens, decodes = new + past, new == 1 and past > 0
    return Memory(
        plan.weight_bytes, plan.activation_bytes, plan.cache_bytes, capacity, batch, tokens, decodes, workspace, runtime,
        own_context(net) if tokens else 0,
    )  # fmt: skip
