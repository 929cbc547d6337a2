"""Quantise/dequantise pairs become number formats: dequantise, operator, quantise is one layer on integers.

That is what every int8 engine runs. Where the pattern is incomplete the explicit ``quantize`` and ``dequantize`` layers
stay, so nothing is costed in a format the file does not ask for.
"""

from __future__ import annotations

from hwsim.network.canonical import Rewriter, is_float, kind_of
from hwsim.network.importing import Draft, join_quant

INTEGERS = frozenset({"int8", "uint8", "int4", "uint4", "int16", "uint16"})


def output_quant(text: str) -> str:
    """The words of ``qparams`` that describe the output."""
    return " ".join(w for w in text.split() if w.startswith(("s=", "z=")))


def _scale_of(dequantise: Draft) -> str:
    """Scale and zero point of what a dequantise layer reads, as the output of its producer states them."""
    inner = dequantise.src[0]
    return output_quant(inner.qparams if isinstance(inner, Draft) else dequantise.qparams.replace("x", ""))


def collapse(graph: Rewriter) -> None:
    """Apply the rule to every layer, in order."""
    added: dict[int, Draft] = {}
    for draft in graph.drafts:
        if draft.op == "quantize":
            _requantise(graph, draft)
        elif draft.op != "dequantize":
            after = _absorb(graph, draft)
            if after is not None:
                added[id(draft)] = after
    if added:
        order: list[Draft] = []
        for draft in graph.drafts:
            order.append(draft)
            if id(draft) in added:
                order.append(added[id(draft)])
        graph.drafts[:] = order


def _requantise(graph: Rewriter, draft: Draft) -> None:
    """Quantise of dequantise: nothing, or one integer rescaling."""
    before = graph.reads(draft, 0)
    if before is None or before.op != "dequantize":
        return
    inner = before.src[0]
    if isinstance(inner, Draft):
        same = output_quant(inner.qparams) == output_quant(draft.qparams)
        if same and inner.dtype == draft.dtype:
            graph.redirect(draft, inner)
            return
    draft.op = "requantize"
    graph.rewire(draft, 0, inner)


def _absorb(graph: Rewriter, draft: Draft) -> Draft | None:
    """Make ``draft`` an integer layer when its operands and result allow; a dequantise to put behind it, if needed."""
    inputs = graph.emit.inputs
    floats = [i for i in range(len(draft.src)) if is_float(draft.source_dtype(i, inputs))]
    wrapped = [i for i in floats if (s := graph.reads(draft, i)) is not None and s.op == "dequantize"]
    if len(wrapped) != len(floats) or not is_float(draft.dtype):
        return None
    kind, stored = kind_of(draft), draft.weight_dtype in INTEGERS
    table = draft.op == "embedding" and stored
    if not wrapped and not table:
        return None
    if draft.weights_of and not stored and kind == "contract":
        return None  # its weights are float: the file means a float product
    user = graph.only_user(draft)
    quantise = user if user is not None and user.op == "quantize" else None
    if quantise is not None and len(wrapped) == 1 and (kind == "view" or (kind == "move" and len(draft.src) == 1)):
        source = graph.reads(draft, wrapped[0])
        if source is not None and _scale_of(source) != output_quant(quantise.qparams):
            quantise = None  # moving data keeps its scale: the rescaling behind it is work of its own
    if quantise is None and kind not in ("contract", "view", "move"):
        return None
    if quantise is None and (table or (kind == "move" and len(wrapped) > 1)):
        return None
    scales: list[str] = []
    first = graph.reads(draft, wrapped[0]) if wrapped else None
    kept = _scale_of(first) if first is not None else ""
    last = draft.dtype
    for i in wrapped:
        source = graph.reads(draft, i)
        assert source is not None
        inner = source.src[0]
        if isinstance(inner, str):
            scales.append(source.qparams)
        last = inputs[inner].dtype if isinstance(inner, str) else inner.dtype
        graph.rewire(draft, i, inner)
    if quantise is not None:
        if draft.weights_of and draft.weight_dtype is None:
            draft.weight_dtype = draft.dtype  # learned vectors stay in float beside integer activations
        draft.qparams = join_quant(quantise.qparams, draft.qparams, *scales)
        draft.dtype = quantise.dtype
        if draft.weight_dtype == draft.dtype:
            draft.weight_dtype = None
        graph.redirect(quantise, draft)
        return None
    if kind == "contract":
        draft.qparams = join_quant(draft.qparams, *scales)
        return None
    after = Draft(
        draft.name, "dequantize", [], draft.shape, {}, draft.dtype, qparams=first.qparams if first is not None else ""
    )
    draft.dtype, draft.qparams = last, kept
    graph.redirect_users(draft, after)
    return after
