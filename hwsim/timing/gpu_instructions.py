"""Matrix instructions of each architecture, as data (``accelerators/constants/gpu_instructions.csv``, with sources)."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache

from hwsim.data import accelerators_dir
from hwsim.errors import HwsimError, near


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction. Its product is m x n x k, k as if A were dense; of CUDA cores (m = 0) k per thread and result.

    ``unit``: "pipe", one a sub-core, or "matrix", one an SM. ``cycles``: the unit's time for n columns; ``n_most``: as
    many columns as one instruction may take. ``own``: least clocks between two of one warp. ``chain``: clocks until the
    accumulator can be added to again; ``result``: until it can be read. ``half``: whether GeForce boards issue it half
    as often. ``source``: where the numbers are from.
    """

    architecture: str
    name: str
    unit: str
    m: int
    n: int
    n_most: int
    k: int
    input: str
    accumulate: str
    sparse: bool
    cycles: int
    own: int
    chain: int
    result: int
    half: bool
    source: str

    @property
    def simt(self) -> bool:
        """Whether it is one of the CUDA cores."""
        return self.m == 0

    @property
    def halved(self) -> Instruction:
        """The same on a board that issues it half as often (GeForce, 32-bit accumulators), if there is such a one."""
        if not self.half:
            return self
        slow = 2 * self.cycles
        values = {f: getattr(self, f) for f in self.__dataclass_fields__}
        return Instruction(**(values | {"cycles": slow, "own": slow, "half": False}))


@cache
def instructions() -> dict[tuple[str, str], Instruction]:
    """All instructions by (architecture, name)."""
    path = accelerators_dir() / "constants" / "gpu_instructions.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        text = {"architecture", "name", "unit", "input", "accumulate", "source"}
        found = {}
        for row in rows:
            numbers = {k: int(v) for k, v in row.items() if k not in text}
            flags = {k: bool(numbers.pop(k)) for k in ("sparse", "half")}
            words = {k: row[k] for k in text}
            found[row["architecture"], row["name"]] = Instruction(**words, **numbers, **flags)  # type: ignore[arg-type]
    return found


def instruction(architecture: str, name: str) -> Instruction:
    """Return one instruction. Raises HwsimError for an unknown one, with what there is."""
    table = instructions()
    if (architecture, name) in table:
        return table[architecture, name]
    names = [n for a, n in table if a == architecture]
    if not names:
        known = sorted({a for a, _ in table})
        raise HwsimError(f"no instructions of architecture '{architecture[:32]}'{near(architecture, known)}")
    raise HwsimError(f"{architecture} has no instruction '{name[:32]}'; it has {', '.join(names)}")
