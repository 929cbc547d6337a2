"""What prefill and decode take on a machine: simulated at some lengths and batches, straight lines in between."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from hwsim.errors import HwsimError
from hwsim.machine import Accelerator
from hwsim.network.graph import Network
from hwsim.plan.options import RunOptions
from hwsim.serving.arrivals import SECOND_NS
from hwsim.serving.service import Service
from hwsim.serving.token_setup import Curve, TokenKind, power_above

BLOCK_TOKENS = 16
MOST_TOGETHER = 256
_DECODE_NODES = (128, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
_CLOSER = 0.97  # of a length that does not fit, tried next


@dataclass(frozen=True, slots=True)
class Costs:
    """A curve with the joules of its nodes."""

    curve: Curve
    joules: tuple[float, ...]

    def energy_j(self, piece: int, iterations: int, tokens: int) -> float:
        """Return the joules of so many iterations of so many tokens together, on one straight line."""
        if piece < 0:
            return iterations * self.joules[0]
        low, high = self.curve.tokens[piece], self.curve.tokens[piece + 1]
        slope = (self.joules[piece + 1] - self.joules[piece]) / (high - low)
        return iterations * self.joules[piece] + slope * (tokens - iterations * low)


class TokenService:
    """One language model on one machine: memory for keys and values, times of prefill and decode.

    Raises HwsimError when the network keeps no key/value cache or does not fit.
    """

    def __init__(self, net: Network, acc: Accelerator, options: RunOptions) -> None:
        if "P" not in net.symbols:
            raise HwsimError(
                f"network {net.name} keeps no key/value cache: tokens are for language models; leave out prompt and output"
            )
        self.net, self.acc = net, acc
        self.service = Service(net, acc, replace(options, batch=1, phase="decode", context=1))
        if self.service.refused:
            raise HwsimError(self.service.refused)
        self.note, self.format = self.service.note, self.service.format
        self._seen: dict[tuple[str, int, int], tuple[int, float]] = {}
        run = self.service.result(1, phase="decode", context=1023)
        kept, self.ways, self.runtime_bytes = run.plan, run.totals.ways, run.totals.runtime_bytes
        self.kv_bytes = kept.cache_bytes / 1024  # of one token, on one program
        self.weight_bytes = kept.weight_bytes
        self.idle_w = self.service.at(1).idle_w

    def iteration(self, phase: str, batch: int, context: int) -> tuple[int, float]:
        """Return nanoseconds and joules of one iteration; raises HwsimError when it does not fit."""
        key = (phase, batch, context)
        if key not in self._seen:
            result = self.service.result(batch, phase=phase, context=context)
            interval_s = batch / result.throughput_per_s
            self._seen[key] = (max(1, round(interval_s * SECOND_NS)), result.energy_j)
        return self._seen[key]

    # -- memory --------------------------------------------------------------------------------------------------

    def blocks(self, longest: int, together: int, block: int) -> int:
        """Return how many blocks of keys and values the machine holds beside weights and the largest activations."""
        acc = self.acc
        programs = acc.programs // self.ways  # groups whose members hold their share of every sequence
        room = acc.dram.capacity_bytes // acc.memory_share - self.weight_bytes - self.runtime_bytes
        reading = self.service.result(together, phase="prefill", context=longest).plan.activation_bytes
        share = -(-MOST_TOGETHER // programs)
        writing = self.service.result(1, phase="decode", context=1).plan.activation_bytes * share
        return programs * max(0, int((room - max(reading, writing)) // (self.kv_bytes * block)))

    def most_together(self, blocks: int, block: int, mean_tokens: float, tpot_s: float | None, context: int) -> int:
        """Return the power of two of requests that fill the memory at their mean length.

        Less where so many would not get their tokens within ``tpot_s``.
        """
        most = 1
        while 2 * most <= MOST_TOGETHER and most * mean_tokens < blocks * block:
            ns, _ = self.iteration("decode", 2 * most, min(context, max(1, blocks * block // (2 * most))))
            if tpot_s is not None and ns > tpot_s * SECOND_NS:
                break
            most *= 2
        return most

    # -- curves --------------------------------------------------------------------------------------------------

    def prefill(self, together: int, lengths: Iterable[int]) -> Costs:
        """Return the costs of reading ``together`` prompts, by the longest; ``lengths`` are simulated."""
        nodes, ns, joules = [1], [], []
        first, energy = self.iteration("prefill", together, 1)
        ns.append(first)
        joules.append(energy)
        for length in sorted({n for n in lengths if n > 1}):
            time, energy = self.iteration("prefill", together, length)
            nodes.append(length)
            ns.append(max(time, ns[-1]))
            joules.append(energy)
        return Costs(Curve(tuple(nodes), tuple(ns)), tuple(joules))

    def decode(self, batch: int, longest: int, most_tokens: int) -> Costs:
        """Return the costs of a token for each of ``batch``, by all their tokens in memory, ``most_tokens`` at most."""
        top = max(1, min(longest, most_tokens // batch))
        first, energy = self.iteration("decode", batch, 1)
        nodes, ns, joules = [1], [first], [energy]
        for context in [*(n for n in _DECODE_NODES if n < top), top]:
            found = self._longest_that_fits(batch, context)
            if found * batch <= nodes[-1]:
                break
            time, energy = self.iteration("decode", batch, found)
            nodes.append(found * batch)
            ns.append(max(time, ns[-1]))
            joules.append(energy)
            if found < context:
                break
        return Costs(Curve(tuple(nodes), tuple(ns)), tuple(joules))

    def _longest_that_fits(self, batch: int, context: int) -> int:
        while context > 1:
            try:
                self.iteration("decode", batch, context)
            except HwsimError:
                context = max(1, int(context * _CLOSER))
            else:
                return context
        return 1


@dataclass(frozen=True, slots=True)
class TokenCosts:
    """A machine as the engines see it, with the joules beside."""

    kind: TokenKind
    prefill: dict[int, Costs]
    decode: dict[int, Costs]

    def energy_j(self, phase: str, size: int, piece: int, iterations: int, tokens: int) -> float:
        """Return the joules of iterations counted together."""
        costs = self.prefill if phase == "prefill" else self.decode
        return costs[size].energy_j(piece, iterations, tokens)


def token_costs(
    service: TokenService, lengths: Iterable[int], longest: int, together: int, most: int, blocks: int, block: int
) -> TokenCosts:
    """Return what iterations take for up to ``together`` prompts and ``most`` running requests of ``longest`` tokens."""
    nodes = list(lengths)
    prefill = {1 << e: service.prefill(1 << e, nodes) for e in range(power_above(together).bit_length())}
    decode = {1 << e: service.decode(1 << e, longest, blocks * block) for e in range(power_above(most).bit_length())}
    kind = TokenKind(
        {n: c.curve for n, c in prefill.items()}, {n: c.curve for n, c in decode.items()}, blocks, block, most
    )
    return TokenCosts(kind, prefill, decode)


def prompt_nodes(shortest: int, longest: int, asked: Iterable[int]) -> list[int]:
    """Return lengths to simulate: every one asked for when few, else two an octave between shortest and longest."""
    few = sorted(set(asked))
    if len(few) <= 4:
        return sorted({*few, longest})
    nodes = {round(2 ** (k / 2)) for k in range(2 * 24)}
    return sorted({shortest, longest, *(n for n in nodes if shortest < n < longest)})
