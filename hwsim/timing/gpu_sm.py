"""The main loop of a GEMM on one SM in closed form: cycles per k-step, what limits them, and time to the first product.

An SM's main loop is a handful of units working in parallel on a periodic program, so its period is that of the slowest
*circuit*: a unit that serves everything, or a chain of waits that closes on itself. `main_loop` evaluates each for a CTA
tile, `residents` CTAs of it sharing the SM, and takes the largest:

========== ==========================================================================================================
tensor     multiplications of all residents on the busiest tensor (or fp32) pipe, or on the SM's matrix unit
shared     wavefronts of shared memory: fragments read, operands of asynchronous instructions, what copies write
issue      instructions of all warps of the busiest scheduler
link       bytes of all residents over this SM's share of the memory behind
warp       one CTA by itself: its multiplications, and what stands between them (loads to issue, loop, barrier)
fragments  one CTA by itself: loading the next slice's fragments takes longer than multiplying this one
latency    a buffer's round trip (order, wait, arrive, use) shared out over the buffers
chain      additions to one accumulator after the other
========== ==========================================================================================================

`hwsim.timing.reference.gpu_sm` steps such loops clock by clock. `tests/timing/test_gpu_sm.py` holds the two equal where
one circuit stands out (*exact*) and commits the quantiles of the difference elsewhere (*bounded*). `docs/gpu_sm.md`
explains each circuit. Arguments may be Python numbers or arrays that broadcast; cycles are float64 because the link's
share of bandwidth is a fraction.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np

from hwsim.timing.gpu_instructions import Instruction

Numbers: TypeAlias = Any
"""A Python number or a numpy array."""

BITS = {"fp32": 32, "tf32": 32, "fp16": 16, "bf16": 16, "int8": 8, "fp8": 8, "fp4": 4}
WAVEFRONT = 128  # bytes of shared memory a clock
VECTOR = 512  # bytes of one load or copy of a warp: 16 a lane
META = 8  # elements of a sparse A to a byte of metadata
LANES = (4, 8)  # threads of a warp over rows and columns of its tile, on CUDA cores
BROADCAST = 2  # least wavefronts of a vector load whose words lanes share (assumed)
BY_HAND = ("maxwell", "pascal", "volta", "turing")  # copies go through registers

CIRCUITS = ("tensor", "shared", "issue", "link", "warp", "fragments", "latency", "chain")


class SmNumbers(NamedTuple):
    """What of an SM the main loop meets: counts, latencies in clocks, B/clk of the link to the memory behind.

    ``link_bytes_per_clk``: its share of that memory's bandwidth; ``burst_bytes_per_clk``: how fast one buffer arrives.
    """

    sub_cores: Numbers = 4
    issue: Numbers = 1
    shared_latency: Numbers = 23
    wavefront_latency: Numbers = 2
    barrier_latency: Numbers = 10
    link_bytes_per_clk: Numbers = 32
    burst_bytes_per_clk: Numbers = 64
    link_latency: Numbers = 500


class LoopShape(NamedTuple):
    """A tile's main loop, counted.

    Per warp (or warp group) and slice of k: ``loads`` instructions of ``load_wavefronts`` in all, ``last_load`` in the
    last one, and ``products`` instructions. Per warp and k-step: ``slices``, ``copies`` instructions (at most). Per CTA
    and k-step: ``copy_wavefronts`` and ``step_bytes`` written, ``link_bytes`` drawn over the link, and of asynchronous
    instructions ``products``, ``matrix_cycles`` with operands ready, ``fed_cycles`` as operands come.
    """

    warps: Numbers
    slices: Numbers
    loads: Numbers
    load_wavefronts: Numbers
    last_load: Numbers
    products: Numbers
    copies: Numbers
    copy_wavefronts: Numbers
    step_bytes: Numbers
    link_bytes: Numbers
    matrix_cycles: Numbers
    matrix_wavefronts: Numbers
    fed_cycles: Numbers


class LoopRate(NamedTuple):
    """``cycles`` in which every resident CTA advances one k-step: the largest of ``circuits`` [circuit, ...].

    ``limit``: which one (index into CIRCUITS). ``first``: clocks until the first product of a CTA that starts alone.
    """

    cycles: Numbers
    limit: Numbers
    first: Numbers
    circuits: Any


def step_bytes(
    m: Numbers, n: Numbers, k: Numbers, instruction: Instruction, pair: Numbers = 1
) -> tuple[Numbers, Numbers]:
    """Bytes of A and B in one k-step of a CTA; a sparse A is half as large plus its metadata (2 bits a kept element).

    ``pair`` CTAs of `tcgen05` hold one part of B each.
    """
    bits = BITS[instruction.input]
    a = m * k * bits // 8
    if instruction.sparse:
        a = a // 2 + m * k // META
    return a, n * k * bits // 8 // (pair if whole_cta(instruction) else 1)


def whole_cta(instruction: Instruction) -> bool:
    """Whether one instruction multiplies for the whole CTA (or two of them), as `tcgen05` does."""
    return instruction.name.startswith("tcgen05")


def loop_shape(
    m: Numbers,
    n: Numbers,
    k: Numbers,
    warp_m: Numbers,
    warp_n: Numbers,
    instruction: Instruction,
    groups: Numbers = 1,
    pair: Numbers = 1,
) -> LoopShape:
    """Count the main loop of an m x n tile, k at a time, by warps of warp_m x warp_n in ``groups`` that share each k-step.

    Sizes must be whole instructions. Fragments are loaded 16 B a lane at a time, whole blocks only. ``pair`` CTAs of a
    cluster draw B over the link only once between them.
    """
    i = instruction
    bits = BITS[i.input]
    a_bytes, b_bytes = step_bytes(m, n, k, i, pair)
    size = a_bytes + b_bytes
    drawn = a_bytes + (b_bytes if whole_cta(i) else b_bytes // pair)
    warps = (m // warp_m) * (n // warp_n) * groups
    slices = k // i.k // groups
    vectors = _up(size, VECTOR)
    copy_wavefronts = size // VECTOR * (VECTOR // WAVEFRONT) + _up(size % VECTOR, WAVEFRONT)
    none = 0 * size
    matrix, read, fed, products = none, none, none, none
    if i.unit == "matrix":
        rows = (m // i.m) * (k // i.k)
        columns = n if whole_cta(i) else warp_n
        across = n // columns
        a = i.m * i.k * bits // 8 // (2 if i.sparse else 1)
        for width, times in ((i.n_most + none, columns // i.n_most), (columns % i.n_most, columns % i.n_most > 0)):
            cycles = i.cycles * width // i.n
            waves = _up(a + width * i.k * bits // 8 // (pair if whole_cta(i) else 1), WAVEFRONT)
            matrix = matrix + rows * across * times * cycles
            read = read + rows * across * times * waves
            fed = fed + rows * across * times * np.maximum(cycles, waves)
            products = products + rows * across * times
        copies = 1 + none
        loads, waves_loaded, last = none, none, none
        copy_wavefronts = _up(size, WAVEFRONT)
    else:
        copies = _up(vectors, warps)
        if i.simt:
            loads, waves_loaded, last = _simt_loads(warp_m, warp_n, i.k, bits)
            products = (warp_m // LANES[0]) * (warp_n // LANES[1]) // (2 if i.input == "fp16" else 1)
        else:
            blocks = warp_m // i.m
            of_a = _packed(blocks, i.m * i.k * bits // 8 // (2 if i.sparse else 1))
            of_b = _packed(warp_n // i.n, i.n * i.k * bits // 8)
            loads, waves_loaded, last = of_a[0] + of_b[0], of_a[1] + of_b[1], of_b[2]
            if i.sparse:
                meta = _packed(blocks, i.m * i.k // META)
                loads, waves_loaded, last = loads + meta[0], waves_loaded + meta[1], meta[2]
            products = blocks * (warp_n // i.n)
    return LoopShape(
        warps, slices, loads, waves_loaded, last, products, copies, copy_wavefronts, size, drawn, matrix, read, fed
    )


def main_loop(
    shape: LoopShape,
    instruction: Instruction,
    sm: SmNumbers,
    stages: Numbers = 2,
    residents: Numbers = 1,
    overhead: Numbers = 4,
) -> LoopRate:
    """Cycles per k-step of ``residents`` equal CTAs on one SM, and clocks to the first product.

    ``stages``: buffers in shared memory (those of Turing and before always use 2). ``overhead``: address and loop
    instructions of a warp and k-step.
    """
    if instruction.unit == "matrix":
        circuits = _asynchronous(shape, instruction, sm, stages, residents, overhead)
    else:
        circuits = _synchronous(shape, instruction, sm, stages, residents, overhead)
    first = circuits.pop("first")
    stacked = np.stack(np.broadcast_arrays(*(np.asarray(circuits[c], np.float64) for c in CIRCUITS)))
    return LoopRate(_plain(stacked.max(axis=0)), _plain(stacked.argmax(axis=0)), _plain(first), stacked)


def _synchronous(
    s: LoopShape, i: Instruction, sm: SmNumbers, stages: Numbers, residents: Numbers, overhead: Numbers
) -> dict[str, Numbers]:
    """Circuits of warps that load fragments and multiply them."""
    by_hand = i.architecture in BY_HAND
    own = _up(s.warps, sm.sub_cores)  # warps of one CTA on its busiest sub-core, and of all
    everyone = _up(s.warps * residents, sm.sub_cores)
    size = s.step_bytes / sm.burst_bytes_per_clk
    share = np.minimum(size, s.copies * VECTOR / sm.burst_bytes_per_clk)
    landed = sm.link_latency + _up((s.step_bytes - 1) % VECTOR + 1, WAVEFRONT)

    arrive = sm.shared_latency + sm.wavefront_latency * (s.last_load - 1)  # of a slice's last fragment

    def path(slices: Numbers, warp_of: Numbers = 1) -> Numbers:
        """Clocks from the opening of a CTA's barrier to a warp's last product of so many slices.

        ``warp_of``: 1 for the last of the warps on its sub-core, as many as there are for the first.
        """
        once = (s.products - 1) * i.own
        turn = np.maximum(once + np.maximum(i.own, _up(s.loads + 1, sm.issue)), i.chain)
        alone = once + (slices - 1) * turn
        piped = (slices * own * s.products - warp_of) * i.cycles
        ported = ((slices - 1) * s.warps * s.load_wavefronts - s.last_load + arrive) * (slices > 1) * (warp_of == 1)
        return np.maximum(_up(own * s.loads, sm.issue) + np.maximum(alone, piped), ported)

    # From one opening of the barrier to the next: a k-step's products, then loop, waits, (stores) and barrier.
    closing = (overhead + (1 + s.copies if by_hand else 3) + s.copies * (s.slices == 1)) // sm.issue
    warp = path(s.slices) + closing + sm.barrier_latency
    # Fragments of the next slice but one are not loaded before this slice's products: two slices close the circuit.
    late = np.maximum(s.loads - 1, s.load_wavefronts - s.last_load)
    fragments = s.slices * (late + arrive + i.own + 1) / 2 * (s.loads > 0)
    # A buffer's round trip: from its order to the barrier behind which it is in use, on to the next order for it.
    opened = landed + (1 if by_hand else 2) // sm.issue + sm.barrier_latency
    if by_hand:
        stored = path(1) + share + 2 * s.copies // sm.issue
        latency = opened + np.maximum(path(1, own) + size + 1 // sm.issue, stored)
    else:
        early = opened + size + path(1, own)
        last = opened + share / np.maximum(1, s.slices - 1) + path(np.maximum(1, s.slices - 1))
        latency = np.maximum(early, last) / (stages - 1)
    moved = (2 if by_hand else 1) * s.copies
    return {
        "tensor": everyone * s.slices * s.products * i.cycles,
        "shared": residents * (s.warps * s.slices * s.load_wavefronts + (2 if by_hand else 1) * s.copy_wavefronts),
        "issue": everyone * (s.slices * (s.products + s.loads) + moved + overhead + (1 if by_hand else 3)) / sm.issue,
        "link": residents * np.maximum(s.link_bytes / sm.link_bytes_per_clk, size),
        "warp": warp,
        "fragments": fragments,
        "latency": latency,
        "chain": s.slices * i.chain,
        "first": landed + size + sm.barrier_latency + s.loads + sm.shared_latency,
    }


def _asynchronous(
    s: LoopShape, i: Instruction, sm: SmNumbers, stages: Numbers, residents: Numbers, overhead: Numbers
) -> dict[str, Numbers]:
    """Circuits of warps that order products of operands in shared memory."""
    size = s.step_bytes / sm.burst_bytes_per_clk
    landed = sm.link_latency + size + _up((s.step_bytes - 1) % VECTOR + 1, WAVEFRONT)
    latency = (landed + s.fed_cycles + i.result - i.cycles + 2) / stages
    if not whole_cta(i):
        # A warp group lets go of a buffer only when it has ordered the products of the next one.
        latency = np.maximum(latency, (landed + s.products // s.warps + overhead + 5) / (stages - 1))
    return {
        "tensor": residents * s.matrix_cycles,
        "shared": residents * np.maximum(s.matrix_wavefronts + s.copy_wavefronts, s.fed_cycles),
        "issue": residents * (s.products + overhead + 4) / sm.issue,
        "link": residents * np.maximum(s.link_bytes / sm.link_bytes_per_clk, size),
        "warp": s.fed_cycles,
        "fragments": 0 * size,
        "latency": latency,
        "chain": 0 * size,
        "first": landed + 1,
    }


def _packed(blocks: Numbers, block_bytes: int) -> tuple[Numbers, Numbers, Numbers]:
    """Loads of ``blocks`` fragment blocks: how many, their wavefronts, those of the last one."""
    each = max(1, VECTOR // block_bytes)
    count = _up(blocks, each)
    rest = blocks - (count - 1) * each
    last = _up(rest * block_bytes, WAVEFRONT)
    return count, (count - 1) * _up(each * block_bytes, WAVEFRONT) + last, last


def _simt_loads(warp_m: Numbers, warp_n: Numbers, k: int, bits: int) -> tuple[Numbers, Numbers, Numbers]:
    """Vector loads of CUDA cores for one k: lanes of one row (or column) of threads read the same words."""
    count, waves, last = 0, 0, 0
    for across, lanes in ((warp_m, LANES[0]), (warp_n, LANES[1])):
        words = np.maximum(across // lanes * k * bits // 32, 1)
        loads = _up(words, 4)
        unique = across * k * bits // 8
        full = np.maximum(BROADCAST, _up(unique * 4 // words, WAVEFRONT))
        rest = words - (loads - 1) * 4
        last = np.maximum(BROADCAST, _up(unique * rest // words, WAVEFRONT))
        count = count + loads
        waves = waves + (loads - 1) * full + last
    return count, waves, last


def _up(a: Numbers, b: Numbers) -> Numbers:
    return -(-a // b)


def _plain(value: Any) -> Numbers:
    """A numpy scalar as a Python number, an array as it is."""
    return value.item() if isinstance(value, np.generic) or (hasattr(value, "ndim") and value.ndim == 0) else value
