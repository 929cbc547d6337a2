"""Serving of tokens: the question with its machines, one run of it, and what the requests met."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

import hwsim
from hwsim.costs import Prices
from hwsim.errors import HwsimError
from hwsim.machine import Accelerator
from hwsim.network.graph import Network
from hwsim.serving import token_engine
from hwsim.serving.arrivals import SECOND_NS
from hwsim.serving.base import Answer, Flags, Ints, cost_dict, or_nan, pick
from hwsim.serving.load import Load
from hwsim.serving.setup import SERVED
from hwsim.serving.statistics import Spread
from hwsim.serving.token_service import TokenCosts, TokenService, prompt_nodes, token_costs
from hwsim.serving.token_setup import TokenOutcome, TokenRequests, TokenSetup, power_above

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "network", "targets", "machines", "requests", "served", "rejected", "timed_out", "verdict", "percentile", "ttft_objective_s",
    "tpot_objective_s", "objective_s", "in_time", "asked_per_s", "served_per_s", "in_time_per_s", "output_tokens_per_s",
    "input_tokens_per_s", "ttft_mean_s", "ttft_p50_s", "ttft_p90_s", "ttft_p99_s", "tpot_mean_s", "tpot_p50_s", "tpot_p90_s",
    "tpot_p99_s", "mean_s", "p50_s", "p99_s", "mean_batch", "busy", "kv_peak", "sent_back", "energy_each_j", "busy_j", "idle_j",
    "usd_per_million",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TokenGroup:
    """Equal machines: how many, what the network takes on one, its curves once the lengths are known."""

    acc: Accelerator
    count: int
    service: TokenService
    costs: TokenCosts | None = None

    @property
    def known(self) -> TokenCosts:
        """The curves, which must have been made."""
        if self.costs is None:
            raise RuntimeError("the curves of a group are made before it serves")
        return self.costs


@dataclass(frozen=True, slots=True)
class TokenQuestion:
    """Everything a run needs besides the load.

    The first token is to come within ``ttft_s``, the others every ``tpot_s`` on average, all within ``within_s``, for
    ``percentile`` per cent of the requests; None asks for nothing.
    """

    net: Network
    groups: tuple[TokenGroup, ...]
    ttft_s: float | None
    tpot_s: float | None
    within_s: float | None
    percentile: float
    max_batch: int | None
    prefill_batch: int
    reserve: str
    block_tokens: int
    routing: str
    queue_capacity: int | None
    timeout_s: float | None
    warmup: float
    prices: Prices

    @property
    def has_objective(self) -> bool:
        """Whether there is something to meet."""
        return (self.ttft_s, self.tpot_s, self.within_s) != (None, None, None)

    def variants(self) -> list[TokenQuestion]:
        """Return the question itself: its batches were chosen with its curves."""
        return [self]

    def times(self, number: int) -> TokenQuestion:
        """Return the question with ``number`` times the machines."""
        return replace(self, groups=tuple(replace(g, count=g.count * number) for g in self.groups))

    def prepared(self, prompts: list[int], outputs: list[int]) -> TokenQuestion:
        """Return the question with the curves that requests of such lengths need.

        Raises HwsimError when a machine cannot hold the longest request.
        """
        groups = tuple(replace(g, costs=self._costs(g.service, prompts, outputs)) for g in self.groups)
        return replace(self, groups=groups)

    def _costs(self, service: TokenService, prompts: list[int], outputs: list[int]) -> TokenCosts:
        totals = [p + o - 1 for p, o in zip(prompts, outputs, strict=True)]
        block, longest = self.block_tokens, max(totals)
        reread = longest if self.reserve == "paged" else max(prompts)
        blocks = service.blocks(max(prompts), self.prefill_batch, block)
        if -(-longest // block) > blocks:
            have = blocks * block
            raise HwsimError(
                f"{service.acc.target}: a request of {longest} tokens needs {longest * service.kv_bytes / 2**30:.2f} GiB for "
                f"keys and values, where {have * service.kv_bytes / 2**30:.2f} GiB ({have} tokens) are left beside the "
                "weights: shorter requests, a narrower precision or a larger machine would work"
            )
        most = self.max_batch
        if most is None:
            mean = sum(totals) / len(totals)
            context = max(1, round((sum(prompts) + sum(outputs) / 2) / len(totals)))
            most = service.most_together(blocks, block, mean, self.tpot_s, context)
        nodes = prompt_nodes(min(prompts), reread, prompts)
        return token_costs(service, nodes, longest, self.prefill_batch, most, blocks, block)

    def most_per_s(self, load: Load) -> float:
        """About how many requests per second the machines serve: prompts one after the other, full batches of tokens."""
        prompt, output = (sum(lengths) / load.count for lengths in load.tokens())
        total = 0.0
        for group in self.groups:
            kind = group.known.kind
            fits = max(1, min(kind.most, int(kind.blocks * kind.block_tokens / (prompt + output / 2))))
            token = kind.decode[power_above(fits)].at(round(fits * (prompt + output / 2))) / fits
            each = kind.prefill[1].at(round(prompt)) + output * token
            total += group.count * SECOND_NS / each
        return total

    def reachable(self) -> bool:
        """Whether a request of one token that meets an empty machine would meet the objective."""
        kinds = [g.known.kind for g in self.groups]
        first = min(kind.prefill[1].at(1) for kind in kinds) / SECOND_NS
        other = min(kind.decode[1].at(1) for kind in kinds) / SECOND_NS
        limits = ((first, self.ttft_s), (other, self.tpot_s), (first, self.within_s))
        return all(limit is None or time <= limit for time, limit in limits)

    def setup(self) -> TokenSetup:
        """Return machines and rules as the engines see them."""
        return TokenSetup(
            tuple(g.known.kind for g in self.groups),
            tuple(n for n, group in enumerate(self.groups) for _ in range(group.count)),
            self.routing,
            self.reserve,
            self.prefill_batch,
            queue_capacity=self.queue_capacity,
            timeout_ns=None if self.timeout_s is None else round(self.timeout_s * SECOND_NS),
        )

    def run(self, load: Load, progress: Callable[[int], None] | None = None) -> TokenServing:
        """Return what ``load`` meets on the machines (of which the curves are made)."""
        setup, requests = self.setup(), load.token_requests()
        return TokenServing(self, load, setup, requests, token_engine.run(setup, requests, progress))


class TokenServing(Answer):
    """The answer of `serve` for tokens of a language model: times to the first token and between the others."""

    unit = "token"

    def __init__(
        self, question: TokenQuestion, load: Load, setup: TokenSetup, asked: TokenRequests, outcome: TokenOutcome
    ) -> None:
        super().__init__(
            load,
            question.prices,
            question.warmup,
            question.percentile,
            outcome.status,
            outcome.arrival_ns,
            outcome.finish_ns,
        )
        self.question, self.setup, self.outcome = question, setup, outcome
        self.prompt, self.output = np.array(asked.prompt, np.int64), np.array(asked.output, np.int64)

    @property
    def networks(self) -> list[str]:
        """The network's name."""
        return [self.question.net.name]

    @property
    def fleet(self) -> list[tuple[Accelerator, int, float]]:
        """The machines: each kind, how many of it, watts of a waiting one."""
        return [(g.acc, g.count, g.service.idle_w) for g in self.question.groups]

    # -- times ---------------------------------------------------------------------------------------------------

    @cached_property
    def ttft_ns(self) -> Ints:
        """Nanoseconds from a request to its first token."""
        return self.outcome.first_ns - self.outcome.arrival_ns

    @cached_property
    def tpot_ns(self) -> Ints:
        """Nanoseconds for each token after the first, on average of a request; 0 where there are none."""
        after: Ints = (self.outcome.finish_ns - self.outcome.first_ns) // np.maximum(1, self.output - 1)
        return after

    @cached_property
    def ttft(self) -> Spread:
        """The time to the first token."""
        return self.spread_of(self.ttft_ns)

    @cached_property
    def tpot(self) -> Spread:
        """The time for each token after the first, of requests that have any."""
        return self.spread_of(self.tpot_ns, self.output > 1)

    @cached_property
    def wait(self) -> Spread:
        """The time until a prompt begins to be read."""
        return self.spread_of(self.outcome.start_ns - self.outcome.arrival_ns)

    @cached_property
    def timely(self) -> Flags | None:
        """Which requests met all objectives; None without one."""
        question = self.question
        if not question.has_objective:
            return None
        flags = np.ones(len(self.status), bool)
        whole = self.done_ns - self.asked_ns
        pairs = ((question.ttft_s, self.ttft_ns), (question.tpot_s, self.tpot_ns), (question.within_s, whole))
        for limit, times in pairs:
            if limit is not None:
                flags &= times <= limit * SECOND_NS + 0.5
        return flags

    # -- machines ------------------------------------------------------------------------------------------------

    @property
    def most_per_s(self) -> float:
        """About how many requests per second the machines serve."""
        return self.question.most_per_s(self.load)

    @property
    def units(self) -> Ints:
        """Tokens of output each request asks for."""
        return self.output

    @property
    def read_per_s(self) -> float:
        """Tokens of prompts per second, of requests answered while they come."""
        return self.per_s(self.prompt)

    @property
    def busy(self) -> float:
        """Share of the machines' time in which they iterate."""
        return float(self.outcome.busy_ns.sum()) / (self.machines * self.horizon_ns)

    @cached_property
    def energies_j(self) -> tuple[float, float]:
        """Joules of the iterations, and of waiting machines."""
        kinds = self.setup.machines
        busy = sum(
            self.question.groups[kinds[machine]].known.energy_j(phase, size, piece, count, tokens)
            for (machine, phase, size, piece), (count, tokens) in self.outcome.iterations.items()
        )
        idle = sum(
            self.question.groups[kinds[k]].service.idle_w * (self.horizon_s - int(ns) / SECOND_NS)
            for k, ns in enumerate(self.outcome.busy_ns)
        )
        return float(busy), float(idle)

    @cached_property
    def phases(self) -> dict[str, dict[str, float]]:
        """What the machines did, by phase: iterations, share of the busy time, requests in an iteration (padded) on average."""
        out: dict[str, dict[str, float]] = {}
        kinds, groups = self.setup.machines, self.question.groups
        for phase in ("prefill", "decode"):
            number = time = requests = 0.0
            for (machine, what, size, piece), (count, tokens) in self.outcome.iterations.items():
                if what != phase:
                    continue
                costs = groups[kinds[machine]].known
                curve = (costs.prefill if phase == "prefill" else costs.decode)[size].curve
                mean = tokens / count
                low, high = curve.tokens[piece], curve.tokens[min(piece + 1, len(curve.tokens) - 1)]
                slope = (curve.ns[piece + 1] - curve.ns[piece]) / (high - low) if piece >= 0 and high > low else 0.0
                number, requests = number + count, requests + count * size
                time += count * ((curve.ns[piece] if piece >= 0 else curve.ns[0]) + slope * (mean - low))
            busy = float(self.outcome.busy_ns.sum())
            out[phase] = {
                "iterations": number,
                "share": time / busy if busy else 0.0,
                "size": requests / number if number else 0.0,
            }
        return out

    @property
    def mean_batch(self) -> float:
        """Requests that get a token in a decode iteration, on average."""
        after = int((self.output[self.status == SERVED] - 1).sum())
        iterations = self.phases["decode"]["iterations"]
        return after / iterations if iterations else 0.0

    @property
    def kv_peak(self) -> float:
        """The largest share of a machine's blocks that held keys and values at once."""
        blocks = [self.question.groups[k].known.kind.blocks for k in self.setup.machines]
        return max(int(peak) / max(1, have) for peak, have in zip(self.outcome.peak_blocks, blocks, strict=True))

    # -- tables --------------------------------------------------------------------------------------------------

    @property
    def row(self) -> dict[str, Any]:
        """The answer as one row: the columns of the CSV file."""
        question = self.question
        row = {
            **self.common,
            **self.latency.to_dict(),
            **{f"ttft_{name}": value for name, value in self.ttft.to_dict().items()},
            **{f"tpot_{name}": value for name, value in self.tpot.to_dict().items()},
            "ttft_objective_s": question.ttft_s,
            "tpot_objective_s": question.tpot_s,
            "objective_s": question.within_s,
            "output_tokens_per_s": self.made_per_s,
            "input_tokens_per_s": self.read_per_s,
            "mean_batch": self.mean_batch,
            "kv_peak": self.kv_peak,
            "sent_back": int(self.outcome.sent_back.sum()),
            "energy_each_j": self.energy_each_j,
        }
        return pick(row, COLUMNS)

    @property
    def requests(self) -> pd.DataFrame:
        """One row a request: tokens; when asked, begun, first and last token out (s); machine, times sent back."""
        import pandas as pd

        outcome = self.outcome
        columns: dict[str, Any] = {
            "asked_s": self.asked_ns / SECOND_NS,
            "prompt": self.prompt,
            "output": self.output,
            "start_s": or_nan(outcome.start_ns),
            "first_s": or_nan(outcome.first_ns),
            "done_s": or_nan(self.done_ns),
            "machine": outcome.machine,
            "sent_back": outcome.sent_back,
            "status": np.array(["served", "rejected", "timed out"])[outcome.status],
        }
        return pd.DataFrame(columns)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was chosen, what is included and left out, every price with its date."""
        from hwsim.serving.notes import token_notes

        return token_notes(self)

    def text(self) -> str:
        """The answer for a terminal, at most 120 columns wide."""
        from hwsim.serving.text import token_text

        return token_text(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything but single requests as plain data, JSON-ready."""
        return {
            "hwsim": hwsim.__version__,
            "load": self.load.words(),
            "searched": self.searched,
            **self.row,
            "ttft": self.ttft.to_dict(),
            "tpot": self.tpot.to_dict(),
            "latency": self.latency.to_dict(),
            "wait": self.wait.to_dict(),
            "phases": self.phases,
            "load_factor": self.load_factor,
            "horizon_s": self.horizon_s,
            "power_w": self.power_w,
            "cost": cost_dict(self.cost),
            "groups": [
                {
                    "target": g.acc.target, "machines": g.count, "format": g.service.format, "max_batch": g.known.kind.most,
                    "kv_tokens": g.known.kind.blocks * g.known.kind.block_tokens, "kv_bytes_per_token": g.service.kv_bytes,
                }
                for g in self.question.groups
            ],
            "notes": list(self.notes),
        }  # fmt: skip
