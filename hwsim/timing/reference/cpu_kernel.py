"""Slow twins of the processor's timing: a core that issues instructions one by one, and a cache that holds lines.

``issue`` steps through the instructions of many loop iterations: each takes a slot of the front end and of the ports it
needs, the oldest ready one first, and a multiplication waits for the one before it on the same sum. ``crossings`` walks the
tile loops of a matrix product line by line through a fully associative cache that forgets what was used longest ago.
Neither knows the closed forms it checks (`hwsim.timing.cpu.loop_clocks`, traffic in `hwsim.schedule.cpu_lower`).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from fractions import Fraction

KINDS = ("multiply", "vector", "load", "store", "scalar")


@dataclass(frozen=True, slots=True)
class Ports:
    """Rates of one core, per clock: instructions of each kind, and bytes."""

    issue: Fraction
    vector: Fraction
    multiply: Fraction
    loads: Fraction
    load_bytes: Fraction
    store_bytes: Fraction
    latency: int


def issue(ports: Ports, counts: dict[str, int], load_bytes: int, store_bytes: int, sums: int, steps: int) -> Fraction:
    """Return the clocks per step of a loop in its steady state.

    ``counts`` has the instructions of one step by kind (`KINDS`), loads and stores of the given bytes each; the
    multiplications of a step go to ``sums`` registers in turn, and one on a register waits ``latency`` after the one
    before it. Measured between a half and the whole of ``steps``.
    """
    program = _program(counts)
    free = dict.fromkeys(("issue", "vector", "multiply", "loads", "load_bytes", "store_bytes"), Fraction(0))
    ready = [Fraction(0)] * max(1, sums)
    marks: dict[int, Fraction] = {}
    waiting: list[tuple[int, str, int]] = []  # (step, kind, register)
    turn = 0
    step = 0
    clock = Fraction(0)
    while step < steps or waiting:
        # The window holds a few steps: enough that no port starves, as a reorder buffer and renaming do.
        while step < steps and len(waiting) < 6 * len(program):
            for kind in program:
                waiting.append((step, kind, turn % max(1, sums)))
                turn += kind == "multiply"
            step += 1
        left: list[tuple[int, str, int]] = []
        blocked: set[int] = set()  # sums whose next multiplication has not been issued: later ones stay behind it
        for item in waiting:
            _, kind, register = item
            costs = _costs(ports, kind, load_bytes, store_bytes)
            wait = ready[register] if kind == "multiply" else Fraction(0)
            behind = kind == "multiply" and register in blocked
            if behind or wait > clock or any(free[p] >= clock + 1 for p in costs):
                left.append(item)
                if kind == "multiply":
                    blocked.add(register)
                continue
            for port, cost in costs.items():
                free[port] = max(free[port], clock) + cost
            if kind == "multiply":
                ready[register] = clock + ports.latency
        done = {s for s, _, _ in waiting} - {s for s, _, _ in left}
        waiting = left
        clock += 1
        for s in done:
            marks[s] = clock
    half = steps // 2
    return (marks[steps - 1] - marks[half - 1]) / (steps - half)


def _program(counts: dict[str, int]) -> list[str]:
    """The instructions of one step, the kinds dealt evenly as a scheduled loop has them."""
    total = sum(counts.values())
    placed = [(Fraction(2 * i + 1, 2 * n), kind) for kind, n in counts.items() for i in range(n)]
    assert len(placed) == total
    return [kind for _, kind in sorted(placed, key=lambda p: (p[0], KINDS.index(p[1])))]


def _costs(ports: Ports, kind: str, load_bytes: int, store_bytes: int) -> dict[str, Fraction]:
    costs = {"issue": 1 / ports.issue}
    if kind in ("multiply", "vector"):
        costs["vector"] = 1 / ports.vector
    if kind == "multiply":
        costs["multiply"] = 1 / ports.multiply
    if kind == "load":
        costs["loads"] = 1 / ports.loads
        costs["load_bytes"] = load_bytes / ports.load_bytes
    if kind == "store":
        costs["store_bytes"] = store_bytes / ports.store_bytes
    return costs


def crossings(m: int, n: int, k: int, size: int, rows: int, cols: int, cache: int, line: int = 64) -> tuple[int, int]:
    """Return the bytes of A and of B that enter a cache of ``cache`` bytes while row tiles walk over column panels.

    A is m x k in rows, B is stored as panels of ``cols`` columns, elements are ``size`` bytes; a tile of ``rows`` x ``cols``
    sums reads its rows of A and its panel of B once, step by step of K. Results stream past and are not kept.
    """
    held: OrderedDict[tuple[str, int], None] = OrderedDict()
    missed = {"a": 0, "b": 0}

    def touch(name: str, first: int, nbytes: int) -> None:
        for number in range(first // line, (first + nbytes - 1) // line + 1):
            key = (name, number)
            if key in held:
                held.move_to_end(key)
                continue
            missed[name] += line
            held[key] = None
            while len(held) * line > cache:
                held.popitem(last=False)

    for row in range(0, m, rows):
        high = min(rows, m - row)
        for panel in range(0, n, cols):
            for at in range(0, k, max(1, line // size)):
                deep = min(max(1, line // size), k - at)
                for r in range(high):
                    touch("a", ((row + r) * k + at) * size, deep * size)
                touch("b", (panel * k + at * cols) * size, deep * cols * size)
    return missed["a"], missed["b"]
