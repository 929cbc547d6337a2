"""The operator table: one entry per operator says its attributes, shapes, weights, matrix products and vector work.

Adding an operator is adding one entry to `OPS`; entries live in `ops_contract` (convolution, matrix product, attention,
recurrent cells, look-ups) and `ops_vector` (element-wise, normalisation, pooling, data movement, views).

Kinds
    contract      has matrix products (the matrix unit's work)
    elementwise   output element depends on the same element of the inputs: fuses into its producer
    reduce        needs several passes or neighbours: softmax, normalisation, pooling, reductions
    move          moves data without arithmetic: concat, slice, transpose, pad, gather, resize
    view          the same bytes under another shape: free
    collective    exchanged between devices that share a network's work (made by planning, in no file)
    host          left to the host processor on every accelerator: non-maximum suppression, sorting
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hwsim.errors import HwsimError, near
from hwsim.network import ops_contract, ops_vector
from hwsim.network.dims import Dim, IntShape, evaluate, parse_dim
from hwsim.network.graph import AttrValue, Layer
from hwsim.network.opdefs import ConvGeometry, Op, Product, VectorWork, Weight

__all__ = ["FUSED", "OPS", "ConvGeometry", "Op", "Product", "VectorWork", "Weight", "check_layer", "vector_work"]


# Attributes that are counts, with the least each may be, whichever operator has them.
LEAST: Mapping[str, int] = {
    "h": 1, "proj": 0, "experts": 1, "filters": 1, "memory": 1, "rank": 1, "rows": 1, "width": 0, "vectors": 0,
    "groups": 1, "heads": 1, "window": 0, "cache": 0, "constant": 0, "classes": 0, "boxes": 0, "block": 1,
    "ways": 1,
}  # fmt: skip
COMMON_ATTRS: Mapping[str, str] = {"tied": "s", "wdtype": "s", "accumulate": "s"}
OPS: dict[str, Op] = {}

# Activations that may be fused into a layer's output: (alu, special) lane operations per element. ``bn`` is a scale and
# a shift folded into constants; ``add`` is a residual whose second operand is a further source of the layer.
FUSED: dict[str, tuple[int, int]] = {
    "bn": (2, 0), "relu": (1, 0), "relu6": (2, 0), "relu_n1_to_1": (2, 0), "leaky_relu": (2, 0), "prelu": (2, 0),
    "sigmoid": (2, 2), "silu": (3, 2), "swish": (3, 2), "tanh": (0, 1), "gelu": (5, 1), "gelu_tanh": (7, 1),
    "hswish": (4, 0), "hsigmoid": (3, 0), "elu": (2, 1), "selu": (3, 1), "mish": (3, 3), "softplus": (1, 2),
    "exp": (0, 1), "sign": (1, 0), "square": (1, 0), "abs": (1, 0), "clip": (2, 0), "quick_gelu": (3, 2),
    "tanh_half": (0, 1),
}  # fmt: skip


def register(*ops: Op) -> None:
    """Add operators to the table; a name may be used once."""
    for op in ops:
        if op.name in OPS:
            raise ValueError(f"operator {op.name} registered twice")
        OPS[op.name] = op


def parse_attrs(op_name: str, text: str, where: str) -> dict[str, AttrValue]:
    """Parse ``k=3x3 s=2 g=32 causal`` by the operator's attribute table; raise HwsimError naming the attribute."""
    op = OPS.get(op_name)
    if op is None:
        raise HwsimError(f"{where}: unknown operator {op_name!r}{near(op_name, OPS)}")
    out: dict[str, AttrValue] = {}
    for word in text.split():
        key, eq, value = word.partition("=")
        code = op.attrs.get(key) or COMMON_ATTRS.get(key)
        if code is None:
            known = [*op.attrs, *COMMON_ATTRS]
            raise HwsimError(f"{where}: {op_name} has no attribute {key!r} (it takes {', '.join(known)})")
        if key in out:
            raise HwsimError(f"{where}: attribute {key!r} given twice")
        try:
            out[key] = _parse_value(code, value, bool(eq))
        except ValueError:
            raise HwsimError(f"{where}: attribute {word!r} is not {_CODES[code]}") from None
    return out


_CODES = {
    "i": "an integer (key=3)",
    "f": "a number (key=0.5)",
    "t": "integers (key=3x3)",
    "s": "a word (key=name)",
    "b": "a flag (key)",
    "d": "a dimension (key=P+S)",
}


def _parse_value(code: str, value: str, given: bool) -> AttrValue:
    if code == "b":
        if given:
            raise ValueError(value)
        return True
    if not given or not value:
        raise ValueError(value)
    if code == "i":
        number = int(value)
        if abs(number) > 2**40:
            raise ValueError(value)
        return number
    if code == "f":
        real = float(value)
        if not math.isfinite(real):
            raise ValueError(value)
        return real
    if code == "t":
        numbers = tuple(int(v) for v in value.split("x"))
        if any(abs(v) > 2**31 for v in numbers):
            raise ValueError(value)
        return numbers
    if code == "d":
        return parse_dim(value)
    return value


def format_attrs(layer: Layer) -> str:
    """Write a layer's attributes as the trace does."""
    words: list[str] = []
    for key, value in layer.attrs.items():
        if value is True:
            words.append(key)
        elif isinstance(value, tuple):
            words.append(f"{key}={'x'.join(map(str, value))}")
        else:
            words.append(f"{key}={value}")
    return " ".join(words)


def check_layer(layer: Layer, ins: Sequence[IntShape], out: IntShape, symbols: Mapping[str, int], where: str) -> None:
    """Check one layer against its table entry; raise HwsimError saying what does not fit."""
    op = OPS.get(layer.op)
    if op is None:
        raise HwsimError(f"{where}: unknown operator {layer.op!r}{near(layer.op, OPS)}")
    low, high = op.arity
    extra = layer.fused.count("add")
    if not low + extra <= len(ins) <= high + extra:
        wants = f"{low + extra}" if low == high else f"{low + extra} to {high + extra}"
        raise HwsimError(f"{where}: {layer.op} takes {wants} inputs, not {len(ins)}")
    for name in layer.fused:
        if name not in FUSED and name != "add":
            raise HwsimError(f"{where}: unknown fused activation {name!r}{near(name, [*FUSED, 'add'])}")
    attrs = layer.attrs
    if any(k in attrs for k in op.dim_attrs):
        attrs = {k: evaluate(_as_dim(v), symbols) if k in op.dim_attrs else v for k, v in attrs.items()}
    for key in attrs:
        if key not in op.attrs and key not in COMMON_ATTRS:
            raise HwsimError(f"{where}: {layer.op} has no attribute {key!r}{near(key, op.attrs)}")
        if key in LEAST and int(attrs[key]) < LEAST[key]:  # type: ignore[arg-type]
            raise HwsimError(f"{where}: attribute {key}={attrs[key]} must be at least {LEAST[key]}")
    try:
        want = op.infer(ins, attrs, out)
    except (IndexError, ZeroDivisionError, TypeError, ValueError) as error:
        if isinstance(error, HwsimError):
            raise HwsimError(f"{where}: {error}") from None
        raise HwsimError(f"{where}: {layer.op} cannot take inputs {list(ins)} with {format_attrs(layer)!r}") from None
    if want != out:
        shown = "x".join(map(str, want))
        raise HwsimError(f"{where}: {layer.op} gives {shown}, but the output is stated as {'x'.join(map(str, out))}")


def _as_dim(value: AttrValue) -> Dim:
    if isinstance(value, int | str):
        return value
    raise HwsimError(f"attribute value {value!r} is not a dimension")


def vector_work(layer: Layer, op: Op, ins: Sequence[IntShape], out: IntShape) -> VectorWork:
    """Vector work of a layer with its fused activations added (they read and write nothing more)."""
    own = op.work(layer, ins, out)
    if not layer.fused:
        return own
    n = math.prod(out)
    alu = sum(FUSED[f][0] if f in FUSED else 1 for f in layer.fused)
    special = sum(FUSED[f][1] for f in layer.fused if f in FUSED)
    return VectorWork(own.alu + alu * n, own.special + special * n, own.read, own.write, own.passes)


def fused_params(layer: Layer) -> int:
    """Learnable parameters of fused batch-norms (scale and shift per channel)."""
    if "bn" not in layer.fused:
        return 0
    shape = layer.shape
    channels = shape[-1] if layer.attrs.get("nhwc") or len(shape) < 3 else shape[1]
    return 2 * channels * layer.fused.count("bn") if isinstance(channels, int) else 0


def kv_cache_elements(layer: Layer, ins: Sequence[IntShape]) -> int:
    """Elements of keys and values held after an attention layer that keeps a cache (attribute ``cache``)."""
    past = layer.attrs.get("cache")
    if past is None or len(ins) < 3:
        return 0
    total = 0
    for shape in ins[1:3]:
        total += math.prod(shape[:-2]) * (shape[-2] + int(past)) * shape[-1]  # type: ignore[arg-type]
    return total


register(*ops_contract.ENTRIES)
register(*ops_vector.ENTRIES)
