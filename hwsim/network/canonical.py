"""Bring imported graphs into the trace's form: what a deployed network computes, without an exporter's detours.

Biases and batch-norms join the layer they follow, an activation joins its producer when it is the only consumer and
nothing else is fused there, quantise/dequantise pairs become formats of the layers between them, chains of reshapes and
transposes collapse, dead layers vanish. Every rule keeps MACs and parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from hwsim.formats import get_format
from hwsim.network.importing import Draft, Emitter, Value, join_quant
from hwsim.network.ops import OPS

ACTIVATIONS = frozenset(
    {
        "relu", "relu6", "relu_n1_to_1", "leaky_relu", "sigmoid", "silu", "tanh", "gelu", "gelu_tanh", "quick_gelu",
        "hswish", "hsigmoid", "elu", "selu", "mish", "softplus",
    }
)  # fmt: skip
HOSTS = frozenset({"conv", "conv_transpose", "linear", "add"})
WEIGHTED = frozenset({"conv", "conv_transpose", "linear"})


class Rewriter:
    """The drafts of one network with their users, kept up to date while rules rewire them."""

    def __init__(self, emit: Emitter, outputs: list[Value]) -> None:
        self.emit = emit
        self.outputs = outputs
        self.drafts = emit.drafts
        self.users: dict[int, dict[int, Draft]] = {}
        self.results = {id(v.source) for v in outputs if isinstance(v.source, Draft)}
        for draft in self.drafts:
            self._enlist(draft)

    def _enlist(self, draft: Draft) -> None:
        for src in draft.src:
            if isinstance(src, Draft):
                self.users.setdefault(id(src), {})[id(draft)] = draft

    def only_user(self, draft: Draft) -> Draft | None:
        """The one layer that reads ``draft``, once; None when there are more or it is a result."""
        users = self.users.get(id(draft))
        if users is None or len(users) != 1 or id(draft) in self.results:
            return None
        user = next(iter(users.values()))
        return user if sum(s is draft for s in user.src) == 1 else None

    def reads(self, draft: Draft, index: int) -> Draft | None:
        """Source ``index`` of ``draft`` when it is a layer."""
        src = draft.src[index] if index < len(draft.src) else None
        return src if isinstance(src, Draft) else None

    def rewire(self, draft: Draft, index: int, new: Draft | str) -> None:
        """Let ``draft`` read ``new`` as source ``index``."""
        self.set_sources(draft, [new if i == index else s for i, s in enumerate(draft.src)])

    def set_sources(self, draft: Draft, sources: Iterable[Draft | str]) -> None:
        """Let ``draft`` read exactly ``sources``."""
        for src in draft.src:
            if isinstance(src, Draft):
                self.users[id(src)].pop(id(draft), None)
        draft.src = list(sources)
        self._enlist(draft)

    def redirect(self, old: Draft, new: Draft | str) -> None:
        """Let everything that reads ``old`` read ``new``; ``old`` stays behind, dead."""
        for user in self.users.pop(id(old), {}).values():
            user.src = [new if s is old else s for s in user.src]
            if isinstance(new, Draft):
                self.users.setdefault(id(new), {})[id(user)] = user
        if id(old) in self.results:
            self.results.discard(id(old))
            if isinstance(new, Draft):
                self.results.add(id(new))
            for value in self.outputs:
                if value.source is old:
                    value.source = new
        self.set_sources(old, ())

    def redirect_users(self, draft: Draft, after: Draft) -> None:
        """Put ``after`` between ``draft`` and everything that reads it."""
        sources = list(draft.src)
        self.redirect(draft, after)
        self.set_sources(draft, sources)
        self.set_sources(after, (draft,))

    def dead(self) -> None:
        """Drop layers no result depends on."""
        alive = {id(v.source) for v in self.outputs if isinstance(v.source, Draft)}
        stack = [v.source for v in self.outputs if isinstance(v.source, Draft)]
        while stack:
            for src in stack.pop().src:
                if isinstance(src, Draft) and id(src) not in alive:
                    alive.add(id(src))
                    stack.append(src)
        for draft in self.drafts:
            if id(draft) not in alive:
                self.set_sources(draft, ())
        self.drafts[:] = [d for d in self.drafts if id(d) in alive]


def canonicalise(emit: Emitter, outputs: list[Value]) -> None:
    """Apply every rule to the drafts of ``emit`` in place; ``outputs`` are rewired with them."""
    from hwsim.network.attention_pattern import attention
    from hwsim.network.patterns import PATTERNS
    from hwsim.network.quantised import collapse

    graph = Rewriter(emit, outputs)
    graph.dead()
    rules: list[Callable[[Rewriter], None]] = [fold_bias, fold_bn, fold_activations, collapse]
    rules += [*PATTERNS, fold_activations, collapse_views, attention, collapse_views]
    for rule in rules:
        rule(graph)
        graph.dead()


def fold_bias(graph: Rewriter) -> None:
    """A stored vector added to a convolution or linear layer without bias is its bias."""
    for draft in graph.drafts:
        user = graph.only_user(draft)
        if draft.op not in WEIGHTED or draft.fused or draft.attrs.get("bias") or user is None or user.op != "add":
            continue
        const, features = user.attrs.get("const"), _features(draft)
        if not isinstance(const, tuple) or len(user.src) != 1 or user.shape != draft.shape or user.qparams:
            continue
        place = len(draft.shape) - (1 if draft.op == "linear" else len(draft.shape) - 1)
        aligned = (1,) * (len(draft.shape) - len(const)) + const
        if math.prod(const) == features and aligned[place] == features:
            draft.attrs = {**draft.attrs, "bias": True}
            draft.weights_of = f"{draft.weights_of} {user.weights_of}" if draft.weights_of else ""
            draft.dtype = user.dtype
            graph.redirect(user, draft)


def _features(draft: Draft) -> int:
    return draft.shape[-1] if draft.op == "linear" else draft.shape[1]


def fold_bn(graph: Rewriter) -> None:
    """A batch-norm that alone reads a convolution or a rank-2 linear layer becomes part of it."""
    for draft in graph.drafts:
        user = graph.only_user(draft)
        if user is None or user.op != "batch_norm" or draft.fused or draft.op not in WEIGHTED:
            continue
        if draft.op != "linear" or len(draft.shape) == 2:
            draft.fused.append("bn")
            draft.weights_of = f"{draft.weights_of} {user.weights_of}" if draft.weights_of else ""
            graph.redirect(user, draft)


def fold_activations(graph: Rewriter) -> None:
    """An activation that alone reads a convolution, linear layer or sum joins it when nothing but ``bn`` is fused."""
    for draft in graph.drafts:
        user = graph.only_user(draft)
        if user is None or user.op not in ACTIVATIONS or draft.op not in HOSTS or draft.fused not in ([], ["bn"]):
            continue
        if user.shape == draft.shape and user.dtype == draft.dtype and not (user.qparams and draft.qparams):
            draft.fused.append(user.op)
            draft.qparams = join_quant(draft.qparams, user.qparams)
            graph.redirect(user, draft)


def collapse_views(graph: Rewriter) -> None:
    """Reshape of reshape, transpose of transpose, and what then changes nothing."""
    for draft in graph.drafts:
        before = graph.reads(draft, 0)
        if draft.op == "reshape" and before is not None and before.op == "reshape":
            graph.rewire(draft, 0, before.src[0])
        elif draft.op == "transpose" and before is not None and before.op == "transpose":
            outer, inner = draft.attrs.get("perm"), before.attrs.get("perm")
            if isinstance(outer, tuple) and isinstance(inner, tuple):
                draft.attrs = {**draft.attrs, "perm": tuple(inner[i] for i in outer)}
                graph.rewire(draft, 0, before.src[0])
        if _unchanged(graph, draft):
            graph.redirect(draft, draft.src[0])


def _unchanged(graph: Rewriter, draft: Draft) -> bool:
    if draft.op not in ("reshape", "transpose", "identity") or not draft.src:
        return False
    src = draft.src[0]
    shape = graph.emit.inputs[src].shape if isinstance(src, str) else src.shape
    if draft.op == "transpose":
        return draft.attrs.get("perm") == tuple(range(len(draft.shape)))
    return draft.shape == shape


def is_float(dtype: str) -> bool:
    """True for a floating-point format."""
    return get_format(dtype).kind == "float"


def kind_of(draft: Draft) -> str:
    """The operator's kind in the table (contract, view, …)."""
    return OPS[draft.op].kind
