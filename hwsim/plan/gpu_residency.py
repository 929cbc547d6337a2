"""What a GPU's L2 still holds of each operand when a kernel reads it, and what of a result never reaches DRAM.

The L2 is taken as a stack of tensors by last use: a tensor is found where the bytes used since then leave room for all of
it. Tensors read for the last time leave the stack, because a library gives their memory to the next results.
Activations made by one kernel and read by the next so stay on the chip while weights of a large network do not, unless the
whole network fits and the run is repeated (a warm cache).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hwsim.plan.kernel import Kernel, Operand


def place_in_l2(
    kernels: list[Kernel], capacity_bytes: float, outputs: set[str], warm: bool, edge: float = 0.0
) -> list[Kernel]:
    """Return ``kernels`` with the share of every operand that is found (read) or stays (written) in the L2.

    ``warm``: constants may still be there from the run before; activations and inputs are not. ``edge``: excess over the
    capacity, relative to it, at which nothing is found any more.
    """
    last: dict[str, int] = {}
    for number, kernel in enumerate(kernels):
        for operand in _reads(kernel):
            last[operand.tensor] = number
    stack = _Stack(capacity_bytes, edge)
    if warm:
        for kernel in kernels:
            for operand in _touched(kernel):
                stack.use(operand.tensor, operand.bytes)
        stack.keep({k.weights.tensor for k in kernels if k.weights is not None})
    found: list[tuple[list[float], float]] = []
    kept: dict[str, float] = {}
    for number, kernel in enumerate(kernels):
        shares: list[float] = []
        for operand in kernel.inputs:
            share = stack.found(operand.tensor, operand.bytes)
            kept[operand.tensor] = min(kept.get(operand.tensor, 1.0), share)
            shares.append(share)
        weights = stack.found(kernel.weights.tensor, kernel.weights.bytes) if kernel.weights else 0.0
        found.append((shares, weights))
        for operand in _touched(kernel):
            stack.use(operand.tensor, operand.bytes)
        for operand in _reads(kernel):
            if last[operand.tensor] == number and (kernel.weights is None or operand.tensor != kernel.weights.tensor):
                stack.drop(operand.tensor)
    out = []
    for kernel, (shares, share) in zip(kernels, found, strict=True):
        inputs = tuple(_with(o, s) for o, s in zip(kernel.inputs, shares, strict=True))
        made = tuple(_with(o, 0.0 if o.tensor in outputs else kept.get(o.tensor, 0.0)) for o in kernel.outputs)
        constants = _with(kernel.weights, share) if kernel.weights else None
        out.append(replace(kernel, inputs=inputs, outputs=made, weights=constants))
    return out


def _with(operand: Operand, share: float) -> Operand:
    o = operand
    # As `replace`, which is six times as slow: a dense block has hundreds of operands a kernel.
    return (
        o if o.cached == share else Operand(o.tensor, o.elements, o.bytes, o.format, o.level, o.convert, o.role, share)
    )


def _reads(kernel: Kernel) -> Iterable[Operand]:
    return (*kernel.inputs, kernel.weights) if kernel.weights else kernel.inputs


def _touched(kernel: Kernel) -> Iterable[Operand]:
    return (*_reads(kernel), *kernel.outputs)


class _Stack:
    """Tensors by last use, newest last."""

    def __init__(self, capacity: float, edge: float) -> None:
        self.capacity, self.edge = capacity, edge
        self.size: dict[str, int] = {}

    def use(self, tensor: str, nbytes: int) -> None:
        """A tensor is read or written: it becomes the newest."""
        before = self.size.pop(tensor, 0)
        self.size[tensor] = max(before, nbytes)

    def drop(self, tensor: str) -> None:
        """A tensor's memory is free for others."""
        self.size.pop(tensor, None)

    def keep(self, tensors: set[str]) -> None:
        """Forget all others, which leave their room taken only by what replaces them."""
        self.size = {name: size for name, size in self.size.items() if name in tensors}

    def found(self, tensor: str, nbytes: int) -> float:
        """Share of ``tensor`` that is still there."""
        if tensor not in self.size or nbytes <= 0:
            return 0.0
        used = float(self.size[tensor])
        most = self.capacity * (1 + self.edge)
        for name in reversed(self.size):
            if name == tensor or used > most:
                break
            used += self.size[name]
        # Read from its start on, which is the oldest part of it: what does not fit as a whole pushes itself out.
        over = used - self.capacity
        return 1.0 if over <= 0 else max(0.0, 1 - over / (self.edge * self.capacity)) if self.edge else 0.0
