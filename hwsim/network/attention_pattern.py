"""Attention written as two products around a softmax, put together again: softmax(q k^T + mask) v."""

from __future__ import annotations

from dataclasses import dataclass

from hwsim.errors import HwsimError
from hwsim.network.canonical import Rewriter
from hwsim.network.importing import Draft, join_quant
from hwsim.network.ops import OPS
from hwsim.network.patterns import scalar_pair, source_shape


def attention(graph: Rewriter) -> None:
    """softmax(q k^T + mask) v, with scalings of the scores, of q or of k."""
    for draft in graph.drafts:
        if draft.op != "softmax" or draft.attrs or draft.qparams or draft.fused:
            continue
        last = graph.only_user(draft)
        if last is None or last.op != "matmul" or last.src[0] is not draft or last.qparams or last.attrs.get("bt"):
            continue
        mask, stored, scores = _scores(graph, draft)
        if scores is None or scores.op != "matmul" or len(scores.shape) < 3:
            continue
        q, v, keys = _unscaled(graph, scores.src[0]), last.src[1], _keys(graph, scores)
        if keys is None or not _fits(source_shape(graph, q), keys.shape, source_shape(graph, v), last.shape):
            continue
        k = keys.settle(graph)
        few, fewer = _ungrouped(graph, k), _ungrouped(graph, v)
        if few is not None and fewer is not None:
            k, v = few, fewer
        if stored is not None:
            _become_constant(graph, stored)
            mask = [stored]
        last.op, last.attrs = "attention", {}
        last.qparams = join_quant(scores.qparams, last.qparams)
        graph.set_sources(last, (q, k, v, *mask))


def _become_constant(graph: Rewriter, draft: Draft) -> None:
    """Turn a sum with a stored tensor into that tensor; its place in the order is before all that reads it."""
    const = draft.attrs["const"]
    assert isinstance(const, tuple)
    draft.op, draft.shape = "constant", const
    draft.attrs = {"learned": True} if draft.attrs.get("learned") else {}
    graph.set_sources(draft, ())


@dataclass(slots=True)
class _Keys:
    """Keys (..., length, depth) of ``shape``: ``source`` itself, or once its permutation or shape is changed."""

    source: Draft | str
    shape: tuple[int, ...]
    perm: tuple[int, ...] | None = None
    reshape: bool = False

    def settle(self, graph: Rewriter) -> Draft | str:
        """Make the change; what read the source before goes."""
        if not isinstance(self.source, Draft):
            return self.source
        if self.perm == tuple(range(len(self.shape))):
            return self.source.src[0]
        if self.perm is not None:
            self.source.attrs = {**self.source.attrs, "perm": self.perm}
        if self.perm is not None or self.reshape:
            self.source.shape = self.shape
        return self.source


def _scores(graph: Rewriter, softmax: Draft) -> tuple[list[Draft | str], Draft | None, Draft | None]:
    """The mask, the sum with a stored mask, and the product behind a softmax, scalar factors skipped."""
    mask: list[Draft | str] = []
    stored: Draft | None = None
    at = graph.reads(softmax, 0)
    while at is not None and at.op != "matmul":
        if graph.only_user(at) is None or at.fused:
            return mask, stored, None
        if at.op in ("mul", "div") and len(at.src) == 1 and not {"const", "reverse"} & at.attrs.keys():
            at = graph.reads(at, 0)
        elif at.op == "add" and not mask and stored is None:
            pair = scalar_pair(at)
            if pair is None:  # a stored bias or mask: the sum itself will become that constant
                stored = at if "const" in at.attrs else None
                at = graph.reads(at, 0)
                continue
            product = next((s for s in pair if isinstance(s, Draft) and s.op in ("matmul", "mul", "div")), None)
            if product is None or product.shape != softmax.shape:
                return mask, stored, None
            mask = [pair[1] if pair[0] is product else pair[0]]
            at = product
        else:
            return mask, stored, None
    return mask, stored, at if at is None or graph.only_user(at) is not None else None


def _unscaled(graph: Rewriter, source: Draft | str) -> Draft | str:
    """``source`` before a multiplication by a scalar."""
    while (
        isinstance(source, Draft)
        and source.op in ("mul", "div")
        and len(source.src) == 1
        and not {"const", "reverse"} & source.attrs.keys()
    ):
        if graph.only_user(source) is None:
            break
        source = source.src[0]
    return source


def _keys(graph: Rewriter, scores: Draft) -> _Keys | None:
    """The keys whose transpose the scores multiply; None when no transpose is found."""
    source = _unscaled(graph, scores.src[1])
    if scores.attrs.get("bt"):
        return _Keys(source, source_shape(graph, source))
    if not isinstance(source, Draft) or graph.only_user(source) is None:
        return None
    want = (*source.shape[:-2], source.shape[-1], source.shape[-2])
    perm = source.attrs.get("perm")
    if source.op == "transpose" and isinstance(perm, tuple) and len(perm) >= 3:
        return _Keys(source, want, (*perm[:-2], perm[-1], perm[-2]))
    swap = graph.reads(source, 0)
    merged = graph.reads(swap, 0) if swap is not None else None
    if source.op != "reshape" or swap is None or swap.op != "transpose" or swap.attrs.get("perm") != (0, 2, 1):
        return None
    if merged is None or merged.op != "reshape" or graph.only_user(swap) is None or graph.only_user(merged) is None:
        return None
    return _Keys(merged, want, reshape=True) if merged.shape[1:] == want[-2:] else None


def _ungrouped(graph: Rewriter, source: Draft | str) -> Draft | str | None:
    """The few key/value heads that ``source`` repeats for groups of query heads (reshape, expand, reshape)."""
    wide = graph.reads(source, 0) if isinstance(source, Draft) and source.op == "reshape" else None
    if not isinstance(source, Draft) or wide is None or wide.op != "expand" or len(wide.shape) != len(source.shape) + 1:
        return None
    one = graph.reads(wide, 0)
    if one is None or one.op != "reshape" or one.shape[-3] != 1:
        return None
    few = one.src[0]
    shape = source_shape(graph, few)
    fits = shape == (*one.shape[:-3], *one.shape[-2:]) and source.shape[-3] == wide.shape[-4] * wide.shape[-3]
    return few if fits and source.shape[-2:] == shape[-2:] and len(shape) == len(source.shape) else None


def _fits(q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...], out: tuple[int, ...]) -> bool:
    try:
        return OPS["attention"].infer([q, k, v], {}, None) == out
    except (HwsimError, IndexError, ZeroDivisionError):
        return False
