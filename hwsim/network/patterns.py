"""Operators that exporters write in pieces, put together again: SiLU, GELU, hard-swish, norms."""

from __future__ import annotations

import math
from collections.abc import Callable

from hwsim.network.canonical import Rewriter
from hwsim.network.importing import Draft

SQRT_HALF = math.sqrt(0.5)


def _value(draft: Draft) -> float | None:
    """The scalar constant of a two-operand layer that has one."""
    value = draft.attrs.get("value")
    return float(value) if isinstance(value, float | int) and len(draft.src) == 1 else None


def _near(a: float | None, b: float) -> bool:
    return a is not None and abs(a - b) <= 1e-3 * abs(b)


def scalar_pair(draft: Draft) -> tuple[Draft | str, Draft | str] | None:
    return (draft.src[0], draft.src[1]) if len(draft.src) == 2 and "const" not in draft.attrs else None


def _become(graph: Rewriter, draft: Draft, op: str, source: Draft | str) -> None:
    """Turn ``draft`` into the element-wise ``op`` of ``source``."""
    draft.op, draft.attrs, draft.fused = op, {}, []
    graph.set_sources(draft, (source,))


def gated(graph: Rewriter) -> None:
    """x * sigmoid(x) and its relatives: silu, hswish, quick_gelu, mish."""
    for draft in graph.drafts:
        pair = scalar_pair(draft)
        if draft.op != "mul" or pair is None or draft.qparams:
            continue
        for gate, x in (pair, pair[::-1]):
            if not isinstance(gate, Draft) or graph.only_user(gate) is not draft or gate.shape != draft.shape:
                continue
            op = _gate_of(graph, gate, x)
            if op:
                _become(graph, draft, op, x)
                break


def _gate_of(graph: Rewriter, gate: Draft, x: Draft | str) -> str:
    before = graph.reads(gate, 0)
    if gate.op == "sigmoid":
        if gate.src[0] is x:
            return "silu"
        if before is not None and before.op == "mul" and before.src[0] is x and _near(_value(before), 1.702):
            return "quick_gelu"
    if gate.op == "hsigmoid" and gate.src[0] is x:
        return "hswish"
    if gate.op == "tanh" and before is not None and before.op == "softplus" and before.src[0] is x:
        return "mish"
    return ""


def hard_swish(graph: Rewriter) -> None:
    """x * relu6(x + 3) / 6, the division before or after the product."""
    for draft in graph.drafts:
        if draft.op not in ("mul", "div") or draft.qparams:
            continue
        sixth = _near(_value(draft), 1 / 6) if draft.op == "mul" else _near(_value(draft), 6)
        inner = graph.reads(draft, 0)
        pair = scalar_pair(inner) if sixth and inner is not None and inner.op == "mul" else None
        if pair is None or inner is None or graph.only_user(inner) is not draft:
            continue
        for gate, x in (pair, pair[::-1]):
            if not isinstance(gate, Draft) or graph.only_user(gate) is not inner:
                continue
            plus = gate if gate.op == "add" and gate.fused == ["relu6"] else None
            if gate.op == "relu6":
                before = graph.reads(gate, 0)
                plus = before if before is not None and before.op == "add" and not before.fused else None
            if plus is not None and plus.src[0] is x and _near(_value(plus), 3):
                _become(graph, draft, "hswish", x)
                break


def gelu(graph: Rewriter) -> None:
    """x * (1 + erf(x / sqrt 2)) / 2 with the half anywhere, and the tanh form of the same shape."""
    for draft in graph.drafts:
        if draft.op not in ("erf", "tanh") or draft.qparams:
            continue
        root = _erf_root(graph, draft) if draft.op == "erf" else _tanh_root(graph, draft)
        plus = graph.only_user(draft)
        if root is None or plus is None or plus.op != "add" or not _near(_value(plus), 1):
            continue
        last = graph.only_user(plus)
        half = False
        if last is not None and last.op == "mul" and _near(_value(last), 0.5):
            half, last = True, graph.only_user(last)
        if last is None or last.op != "mul" or len(last.src) != 2:
            continue
        other = next((s for s in last.src if s is not plus and not _scales(s, plus)), None)
        if other is not root:  # x / 2 times the rest
            if (
                not isinstance(other, Draft)
                or other.op != "mul"
                or not _near(_value(other), 0.5)
                or other.src[0] is not root
            ):
                continue
            half = True
        end = last
        after = graph.only_user(last)
        if not half:
            if after is None or after.op != "mul" or not _near(_value(after), 0.5):
                continue
            end = after
        _become(graph, end, "gelu" if draft.op == "erf" else "gelu_tanh", root)


def _scales(candidate: Draft | str, inner: Draft) -> bool:
    """True when ``candidate`` is a scalar multiple of ``inner``."""
    return isinstance(candidate, Draft) and candidate.op == "mul" and candidate.src[:1] == [inner]


def _erf_root(graph: Rewriter, draft: Draft) -> Draft | str | None:
    scaled = graph.reads(draft, 0)
    if scaled is None:
        return None
    factor = _value(scaled)
    if (scaled.op == "div" and _near(factor, math.sqrt(2))) or (scaled.op == "mul" and _near(factor, SQRT_HALF)):
        return scaled.src[0]
    return None


def _tanh_root(graph: Rewriter, draft: Draft) -> Draft | str | None:
    """x of tanh(sqrt(2 / pi) * (x + 0.044715 x^3))."""
    scaled = graph.reads(draft, 0)
    if scaled is None or scaled.op != "mul" or not _near(_value(scaled), math.sqrt(2 / math.pi)):
        return None
    total = graph.reads(scaled, 0)
    pair = scalar_pair(total) if total is not None and total.op == "add" else None
    for x, cube in (pair, pair[::-1]) if pair else ():
        if isinstance(cube, Draft) and cube.op == "mul" and _near(_value(cube), 0.044715):
            power = graph.reads(cube, 0)
            if power is not None and power.op == "pow" and power.src[0] is x:
                return x
    return None


def norms(graph: Rewriter) -> None:
    """Layer-norm and RMS-norm over the last dimension, written with means, squares and roots."""
    for draft in graph.drafts:
        if draft.op != "sqrt" or draft.qparams:
            continue
        plus = graph.reads(draft, 0)
        mean = graph.reads(plus, 0) if plus is not None and plus.op == "add" and _value(plus) is not None else None
        if mean is None or mean.op != "reduce_mean" or mean.attrs.get("axes") != (len(draft.shape) - 1,):
            continue
        square = graph.reads(mean, 0)
        if square is None or not _is_square(square):
            continue
        centred = square.src[0]
        divide = graph.only_user(draft)
        if divide is not None and (divide.op == "reciprocal" or (divide.op == "div" and divide.attrs.get("reverse"))):
            divide = graph.only_user(divide)
        if divide is None or divide.op not in ("div", "mul") or centred not in divide.src:
            continue
        root, op = _centred(graph, centred)
        end, scales = divide, 0
        scale = graph.only_user(end)
        owner: list[str] = []
        width = divide.shape[-1]
        if (
            scale is not None
            and scale.op == "mul"
            and scale.attrs.get("learned")
            and scale.attrs.get("const") == (width,)
        ):
            end, scales, owner = scale, 1, [scale.weights_of]
            shift = graph.only_user(end)
            if op == "layer_norm" and shift is not None and shift.op == "add" and shift.attrs.get("const") == (width,):
                end, scales, owner = shift, 2, [*owner, shift.weights_of]
        end.op = op
        end.attrs = {"width": width, "vectors": scales} if scales else {}
        if not scales and op == "layer_norm":
            end.attrs = {"vectors": 0}
        end.weights_of = " ".join(owner) if all(owner) else ""
        graph.set_sources(end, (root,))


def _is_square(draft: Draft) -> bool:
    return draft.op == "square" or (draft.op == "mul" and len(draft.src) == 2 and draft.src[0] is draft.src[1])


def _centred(graph: Rewriter, centred: Draft | str) -> tuple[Draft | str, str]:
    """What is normalised, and by which norm: a difference from its own mean is layer-norm."""
    if isinstance(centred, Draft) and centred.op == "sub" and len(centred.src) == 2:
        x, mean = centred.src
        if isinstance(mean, Draft) and mean.op == "reduce_mean" and mean.src[0] is x:
            return x, "layer_norm"
    return centred, "rms_norm"


def nan_guards(graph: Rewriter) -> None:
    """where(is_nan(x), constant, x): a guard for fully masked rows, which no kernel runs on its own."""
    for draft in graph.drafts:
        test = graph.reads(draft, 0)
        if draft.op != "where" or len(draft.src) != 2 or test is None or test.op != "is_nan":
            continue
        if graph.only_user(test) is draft and test.src[0] is draft.src[1]:
            graph.redirect(draft, draft.src[1])


def group_norms(graph: Rewriter) -> None:
    """Group-norm written as reshape, instance-norm without parameters, reshape, and a learned scale and shift."""
    for draft in graph.drafts:
        before, after = graph.reads(draft, 0), graph.only_user(draft)
        if draft.op != "instance_norm" or draft.attrs or before is None or before.op != "reshape":
            continue
        if after is None or after.op != "reshape" or len(draft.shape) != 3:
            continue
        root = before.src[0]
        if source_shape(graph, root) != after.shape or len(after.shape) < 3:
            continue
        width = after.shape[1]
        scale = graph.only_user(after)
        shift = graph.only_user(scale) if scale is not None and _per_channel(scale, "mul", width) else None
        end = shift if shift is not None and _per_channel(shift, "add", width) else after
        owner = [scale.weights_of, shift.weights_of] if scale is not None and shift is end and shift is not None else []
        end.op, end.attrs = "group_norm", {"groups": draft.shape[1]}
        if owner:
            end.attrs = {"width": width, **end.attrs}
        end.weights_of = " ".join(owner) if all(owner) else ""
        graph.set_sources(end, (root,))


def _per_channel(draft: Draft, op: str, width: int) -> bool:
    const = draft.attrs.get("const")
    learned = draft.op == op and isinstance(const, tuple) and bool(draft.attrs.get("learned"))
    if not learned or not isinstance(const, tuple):
        return False
    aligned = (1,) * (len(draft.shape) - len(const)) + const
    return aligned[1] == width and math.prod(const) == width


def source_shape(graph: Rewriter, source: Draft | str) -> tuple[int, ...]:
    """Shape of a draft or network input."""
    if isinstance(source, Draft):
        return source.shape
    return tuple(int(d) for d in graph.emit.inputs[source].shape)


PATTERNS: list[Callable[[Rewriter], None]] = [gated, hard_swish, gelu, norms, group_norms, nan_guards]
