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


class Operation(NamedTuple):
    """What the form needs of an instruction, numbers or arrays; the last four are one for a whole call.

    ``a_bytes``, ``b_bytes``: bytes an element of A and B takes where it lies (of a sparse A: dense, its metadata counted
    apart). ``results``: of one instruction of CUDA cores a thread. Others as `gpu_instructions.Instruction`.
    """

    m: Numbers
    n: Numbers
    n_most: Numbers
    k: Numbers
    a_bytes: Numbers
    b_bytes: Numbers
    results: Numbers
    cycles: Numbers
    own: Numbers
    chain: Numbers
    result: Numbers
    sparse: bool
    matrix: bool
    whole: bool
    by_hand: bool

    @property
    def simt(self) -> bool:
        """Whether it is one of the CUDA cores."""
        return bool(np.all(np.equal(self.m, 0)))


def operation(i: Instruction) -> Operation:
    """An instruction of the table as the form takes it."""
    size = BITS[i.input] / 8
    results = 2 if i.simt and i.input == "fp16" else 1
    return Operation(
        i.m, i.n, i.n_most, i.k, size, size, results, i.cycles, i.own, i.chain, i.result, i.sparse, i.unit == "matrix",
        whole_cta(i), i.architecture in BY_HAND,
    )  # fmt: skip


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
    m: Numbers, n: Numbers, k: Numbers, instruction: Instruction | Operation, pair: Numbers = 1
) -> tuple[Numbers, Numbers]:
    """Bytes of A and B in one k-step of a CTA; a sparse A is half as large plus its metadata (2 bits a kept element).

    ``pair`` CTAs of `tcgen05` hold one part of B each.
    """
    i = _operation(instruction)
    a = m * k * i.a_bytes
    if i.sparse:
        a = a / 2 + m * k / META
    return a, n * k * i.b_bytes / (pair if i.whole else 1)


def whole_cta(instruction: Instruction) -> bool:
    """Whether one instruction multiplies for the whole CTA (or two of them), as `tcgen05` does."""
    return instruction.name.startswith("tcgen05")


def loop_shape(
    m: Numbers,
    n: Numbers,
    k: Numbers,
    warp_m: Numbers,
    warp_n: Numbers,
    instruction: Instruction | Operation,
    groups: Numbers = 1,
    pair: Numbers = 1,
) -> LoopShape:
    """Count the main loop of an m x n tile, k at a time, by warps of warp_m x warp_n in ``groups`` that share each k-step.

    Parts of an instruction take a whole one. Fragments are loaded 16 B a lane at a time, whole blocks only. ``pair`` CTAs
    of a cluster draw B over the link only once between them.
    """
    i = _operation(instruction)
    a_bytes, b_bytes = step_bytes(m, n, k, i, pair)
    size = a_bytes + b_bytes
    drawn = a_bytes + (b_bytes if i.whole else b_bytes / pair)
    warps = (m // warp_m) * (n // warp_n) * groups
    slices = np.maximum(1, k // i.k // groups)
    copy_wavefronts = size // VECTOR * (VECTOR // WAVEFRONT) + _up(size % VECTOR, WAVEFRONT)
    none = 0 * size
    matrix, read, fed, products = none, none, none, none
    loads, waves_loaded, last = none, none, none
    if i.matrix:
        rows = _up(m, i.m) * np.maximum(1, k // i.k)
        columns = n if i.whole else warp_n
        across = n // columns
        a = i.m * i.k * i.a_bytes / (2 if i.sparse else 1)
        for width, times in ((i.n_most + none, columns // i.n_most), (columns % i.n_most, columns % i.n_most > 0)):
            cycles = i.cycles * width / i.n
            waves = _up(a + width * i.k * i.b_bytes / (pair if i.whole else 1), WAVEFRONT)
            matrix = matrix + rows * across * times * cycles
            read = read + rows * across * times * waves
            fed = fed + rows * across * times * np.maximum(cycles, waves)
            products = products + rows * across * times
        copies = 1 + none
        copy_wavefronts = _up(size, WAVEFRONT)
    else:
        copies = _up(_up(size, VECTOR), warps)
        if i.simt:
            loads, waves_loaded, last = _simt_loads(warp_m, warp_n, i)
            products = (warp_m // LANES[0]) * (warp_n // LANES[1]) // i.results
        else:
            blocks = _up(warp_m, i.m)
            of_a = _packed(blocks, i.m * i.k * i.a_bytes / (2 if i.sparse else 1))
            of_b = _packed(_up(warp_n, i.n), i.n * i.k * i.b_bytes)
            loads, waves_loaded, last = of_a[0] + of_b[0], of_a[1] + of_b[1], of_b[2]
            if i.sparse:
                meta = _packed(blocks, i.m * i.k / META)
                loads, waves_loaded, last = loads + meta[0], waves_loaded + meta[1], meta[2]
            products = blocks * _up(warp_n, i.n)
    return LoopShape(
        warps, slices, loads, waves_loaded, last, products, copies, copy_wavefronts, size, drawn, matrix, read, fed
    )


class LoopTerms(NamedTuple):
    """A loop's circuits before residents, the link's share and its latency are known; clocks of one CTA and k-step.

    ``tensor``, ``shared``, ``issue``: of the whole CTA, were its warps even over the sub-cores; ``warps``: how many they
    are (0: asynchronous instructions, which are always even); ``bytes`` drawn from the share, ``arrival`` clocks at the
    burst rate; ``warp``, ``fragments``, ``chain``; ``trips``: of a buffer beside the link's latency, and in how many parts
    it is shared out, twice; ``first``: until the first product beside that latency.
    """

    warps: Numbers
    sub_cores: Numbers
    tensor: Numbers
    shared: Numbers
    issue: Numbers
    bytes: Numbers
    arrival: Numbers
    warp: Numbers
    fragments: Numbers
    chain: Numbers
    trips: tuple[tuple[Numbers, Numbers], tuple[Numbers, Numbers]]
    first: Numbers

    def uneven(self, residents: Numbers) -> Numbers:
        """Residents as the busiest sub-core counts them: more than there are where their warps do not fill all evenly."""
        warps = np.maximum(self.warps, 1)
        return np.where(self.warps > 0, _up(warps * residents, self.sub_cores) * self.sub_cores / warps, residents)

    def latency(self, link_latency: Numbers) -> Numbers:
        """The circuit of a buffer's round trip."""
        (one, parts), (other, more) = self.trips
        return np.maximum((link_latency + one) / parts, (link_latency + other) / more)

    def circuits(self, residents: Numbers, share: Numbers, link_latency: Numbers) -> tuple[Numbers, ...]:
        """Clocks of every circuit, in the order of CIRCUITS; ``share`` in B/clk."""
        busiest = self.uneven(residents)
        link = residents * np.maximum(self.bytes / share, self.arrival)
        return (
            busiest * self.tensor, residents * self.shared, busiest * self.issue, link, self.warp, self.fragments,
            self.latency(link_latency), self.chain,
        )  # fmt: skip


def main_loop(
    shape: LoopShape,
    instruction: Instruction | Operation,
    sm: SmNumbers,
    stages: Numbers = 2,
    residents: Numbers = 1,
    overhead: Numbers = 4,
) -> LoopRate:
    """Cycles per k-step of ``residents`` equal CTAs on one SM, and clocks to the first product.

    ``stages``: buffers in shared memory (those of Turing and before always use 2). ``overhead``: address and loop
    instructions of a warp and k-step.
    """
    terms = loop_terms(shape, instruction, sm, stages, overhead)
    found = terms.circuits(residents, sm.link_bytes_per_clk, sm.link_latency)
    stacked = np.stack(np.broadcast_arrays(*(np.asarray(c, np.float64) for c in found)))
    first = terms.first + sm.link_latency
    return LoopRate(_plain(stacked.max(axis=0)), _plain(stacked.argmax(axis=0)), _plain(first), stacked)


def loop_terms(
    shape: LoopShape,
    instruction: Instruction | Operation,
    sm: SmNumbers,
    stages: Numbers = 2,
    overhead: Numbers = 4,
) -> LoopTerms:
    """Everything of `main_loop` that depends neither on residents nor on the link's share and latency."""
    i = _operation(instruction)
    return (_asynchronous if i.matrix else _synchronous)(shape, i, sm, stages, overhead)


def _synchronous(s: LoopShape, i: Operation, sm: SmNumbers, stages: Numbers, overhead: Numbers) -> LoopTerms:
    """Circuits of warps that load fragments and multiply them."""
    own = _up(s.warps, sm.sub_cores)  # warps of one CTA on its busiest sub-core
    size = s.step_bytes / sm.burst_bytes_per_clk
    share = np.minimum(size, s.copies * VECTOR / sm.burst_bytes_per_clk)
    landed = _up((s.step_bytes - 1) % VECTOR + 1, WAVEFRONT)  # behind the link's latency

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
    closing = (overhead + (1 + s.copies if i.by_hand else 3) + s.copies * (s.slices == 1)) // sm.issue
    warp = path(s.slices) + closing + sm.barrier_latency
    # Fragments of the next slice but one are not loaded before this slice's products: two slices close the circuit.
    late = np.maximum(s.loads - 1, s.load_wavefronts - s.last_load)
    fragments = s.slices * (late + arrive + i.own + 1) / 2 * (s.loads > 0)
    # A buffer's round trip: from its order to the barrier behind which it is in use, on to the next order for it.
    opened = landed + (1 if i.by_hand else 2) // sm.issue + sm.barrier_latency
    if i.by_hand:
        stored = path(1) + share + 2 * s.copies // sm.issue
        trip = opened + np.maximum(path(1, own) + size + 1 // sm.issue, stored), 1
        trips = trip, trip
    else:
        early = opened + size + path(1, own)
        last = opened + share / np.maximum(1, s.slices - 1) + path(np.maximum(1, s.slices - 1))
        trips = (early, stages - 1), (last, stages - 1)
    passes = 2 if i.by_hand else 1
    issued = s.slices * (s.products + s.loads) + passes * s.copies + overhead + (1 if i.by_hand else 3)
    return LoopTerms(
        s.warps, sm.sub_cores, s.warps / sm.sub_cores * s.slices * s.products * i.cycles,
        s.warps * s.slices * s.load_wavefronts + passes * s.copy_wavefronts, s.warps / sm.sub_cores * issued / sm.issue,
        s.link_bytes, size, warp, fragments, s.slices * i.chain, trips,
        landed + size + sm.barrier_latency + s.loads + sm.shared_latency,
    )  # fmt: skip


def _asynchronous(s: LoopShape, i: Operation, sm: SmNumbers, stages: Numbers, overhead: Numbers) -> LoopTerms:
    """Circuits of warps that order products of operands in shared memory."""
    size = s.step_bytes / sm.burst_bytes_per_clk
    landed = size + _up((s.step_bytes - 1) % VECTOR + 1, WAVEFRONT)
    trip = landed + s.fed_cycles + i.result - i.cycles + 2, stages
    # A warp group lets go of a buffer only when it has ordered the products of the next one.
    behind = trip if i.whole else (landed + s.products // s.warps + overhead + 5, stages - 1)
    return LoopTerms(
        0 * s.warps, sm.sub_cores, s.matrix_cycles, np.maximum(s.matrix_wavefronts + s.copy_wavefronts, s.fed_cycles),
        (s.products + overhead + 4) / sm.issue, s.link_bytes, size, s.fed_cycles, 0 * size, 0 * size, (trip, behind),
        landed + 1,
    )  # fmt: skip


def _operation(i: Instruction | Operation) -> Operation:
    return i if isinstance(i, Operation) else operation(i)


def _packed(blocks: Numbers, block_bytes: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Loads of ``blocks`` fragment blocks: how many, their wavefronts, those of the last one."""
    each = np.maximum(1, VECTOR // block_bytes)
    count = _up(blocks, each)
    rest = blocks - (count - 1) * each
    last = _up(rest * block_bytes, WAVEFRONT)
    return count, (count - 1) * _up(each * block_bytes, WAVEFRONT) + last, last


def _simt_loads(warp_m: Numbers, warp_n: Numbers, i: Operation) -> tuple[Numbers, Numbers, Numbers]:
    """Vector loads of CUDA cores for one k: lanes of one row (or column) of threads read the same words."""
    count, waves, last = 0, 0, 0
    for across, lanes, size in ((warp_m, LANES[0], i.a_bytes), (warp_n, LANES[1], i.b_bytes)):
        words = np.maximum(across // lanes * i.k * size // 4, 1)
        loads = _up(words, 4)
        unique = across * i.k * size
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
