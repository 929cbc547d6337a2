"""Rows of a network under construction and the folding that makes layers of them.

Folding: zero padding and batch-norm into their convolution, an activation into the contraction, addition or
normalisation before it, x * sigmoid(x) and the tanh and hard-swish polynomials into one activation, explicit
matmul-softmax-matmul into attention; whatever reaches no output is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from hwsim.network.dims import IntShape
from hwsim.network.graph import AttrValue, Layer, Network, Tensor
from hwsim.network.ops import FUSED

# Layers whose output an activation may be applied to on the way out.
HOSTS = frozenset({"conv", "conv_transpose", "linear", "expert_linear", "add", "batch_norm", "group_norm", "matmul"})


@dataclass(slots=True)
class Row:
    """A layer whose sources and folding may still change."""

    id: str
    name: str
    op: str
    src: list[str]
    shape: IntShape
    attrs: dict[str, AttrValue] = field(default_factory=dict)
    fused: list[str] = field(default_factory=list)
    dtype: str = "fp32"


class Rows:
    """All rows in order, with who reads whom kept up to date by `fold`."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.inputs: dict[str, IntShape] = {}
        self._memo: dict[tuple[object, ...], str] = {}

    def add(
        self,
        op: str,
        name: str,
        src: list[str],
        shape: IntShape,
        attrs: Mapping[str, AttrValue | None] | None = None,
        dtype: str = "fp32",
    ) -> str:
        """Append a row and return its id; views and constants asked for twice are made once."""
        kept = {k: v for k, v in (attrs or {}).items() if v is not None and v is not False}
        key = (op, tuple(src), shape, tuple(sorted(kept.items(), key=lambda kv: kv[0])))
        shared = op in ("reshape", "split", "transpose", "expand", "where", "cast")
        if shared and key in self._memo:
            return self._memo[key]
        ident = f"%{len(self.rows)}"
        self.rows[ident] = Row(ident, name, op, src, shape, kept, [], dtype)
        if shared:
            self._memo[key] = ident
        return ident

    def users(self) -> dict[str, list[str]]:
        """For every tensor the rows that read it (a row reading twice is listed twice)."""
        out: dict[str, list[str]] = {}
        for row in self.rows.values():
            for s in row.src:
                out.setdefault(s, []).append(row.id)
        return out

    def prune(self, outputs: list[str]) -> None:
        """Drop rows no output depends on."""
        live: set[str] = set()
        todo = [o for o in outputs if o in self.rows]
        while todo:
            ident = todo.pop()
            if ident in live:
                continue
            live.add(ident)
            todo += [s for s in self.rows[ident].src if s in self.rows]
        self.rows = {i: r for i, r in self.rows.items() if i in live}

    def drop(self, ident: str, instead: str, outputs: list[str]) -> None:
        """Remove a row; its readers (and the outputs) take ``instead``."""
        del self.rows[ident]
        for row in self.rows.values():
            row.src = [instead if s == ident else s for s in row.src]
        outputs[:] = [instead if o == ident else o for o in outputs]

    def network(self, name: str, inputs: tuple[Tensor, ...], outputs: list[str], meta: Mapping[str, str]) -> Network:
        """Number the rows 1, 2, 3 … and build the validated network; inputs nobody reads are left out."""
        number = {ident: str(i) for i, ident in enumerate(self.rows, 1)}
        layers = []
        for row in self.rows.values():
            attrs = dict(row.attrs)
            if isinstance(attrs.get("tied"), str):
                attrs["tied"] = number.get(str(attrs["tied"]), str(attrs["tied"]))
            src = tuple(number.get(s, s) for s in row.src)
            layers.append(Layer(number[row.id], row.name, row.op, src, row.shape, attrs, tuple(row.fused), row.dtype))
        read = {s for la in layers for s in la.src}
        wanted = tuple(dict.fromkeys(number.get(o, o) for o in outputs))
        unread = tuple(la.id for la in layers if la.id not in read)
        kept = tuple(t for t in inputs if t.name in read or t.name in wanted)
        return Network(name, kept, tuple(layers), () if wanted == unread else wanted, {}, dict(meta)).validate()


def fold(rows: Rows, outputs: list[str]) -> None:
    """Apply every folding rule, in place; ``outputs`` follow."""
    rows.prune(outputs)
    for rule in (
        _fold_gates, _fold_polynomials, _fold_pads, _fold_attention, _fold_groups, _fold_batch_norm, _fold_activations
    ):  # fmt: skip
        rule(rows, outputs)
        rows.prune(outputs)


def _sole(rows: Rows, users: Mapping[str, list[str]], outputs: list[str], ident: str) -> Row | None:
    """The row ``ident`` when exactly one row reads it and it is no output."""
    row = rows.rows.get(ident)
    if row is None or ident in outputs or len(users.get(ident, ())) != 1:
        return None
    return row


def _fold_pads(rows: Rows, outputs: list[str]) -> None:
    users = rows.users()
    for row in list(rows.rows.values()):
        if row.op != "conv":
            continue
        pad = _sole(rows, users, outputs, row.src[0])
        if pad is None or pad.op != "pad" or pad.attrs.get("mode"):
            continue
        amounts, rank = pad.attrs["p"], len(row.shape) - 2
        if not isinstance(amounts, tuple) or any(amounts[:2]) or any(amounts[rank + 2 : rank + 4]):
            continue
        own = row.attrs.get("p", (0,) * rank)
        if not isinstance(own, tuple):
            continue
        own = own * rank if len(own) == 1 else own
        own = own * 2 if len(own) == rank else own
        extra = (*amounts[2 : rank + 2], *amounts[rank + 4 :])
        total = tuple(a + b for a, b in zip(own, extra, strict=True))
        if min(total) < 0:
            continue
        half = total[:rank] if total[:rank] == total[rank:] else total
        row.attrs["p"] = half[:1] if len(set(half)) == 1 else half
        if not any(total):
            del row.attrs["p"]
        rows.drop(pad.id, pad.src[0], outputs)


def _fold_batch_norm(rows: Rows, outputs: list[str]) -> None:
    users = rows.users()
    for row in list(rows.rows.values()):
        if row.op != "batch_norm" or not row.attrs.get("width"):
            continue
        conv = _sole(rows, users, outputs, row.src[0])
        if conv is None or conv.op not in ("conv", "conv_transpose", "linear") or conv.fused:
            continue
        if conv.op == "linear" and len(conv.shape) != 2:
            continue
        conv.fused.append("bn")
        users[conv.id] = users.get(row.id, [])
        rows.drop(row.id, conv.id, outputs)


def _fold_activations(rows: Rows, outputs: list[str]) -> None:
    users = rows.users()
    for row in list(rows.rows.values()):
        if row.op not in FUSED or row.op == "prelu" or len(row.src) != 1 or "const" in row.attrs:
            continue
        host = _sole(rows, users, outputs, row.src[0])
        if host is None or host.op not in HOSTS or any(f != "bn" for f in host.fused) or host.dtype != row.dtype:
            continue
        host.fused.append(row.op)
        users[host.id] = users.get(row.id, [])
        rows.drop(row.id, host.id, outputs)


def _scalar(row: Row, value: float) -> bool:
    got = row.attrs.get("value")
    return isinstance(got, int | float) and abs(got - value) <= 1e-6 * max(1.0, abs(value))


def _fold_gates(rows: Rows, outputs: list[str]) -> None:
    """x * sigmoid(x) is silu; x * sigmoid(1.702 x) is quick_gelu; x * hsigmoid(x) is hswish."""
    users = rows.users()
    for row in list(rows.rows.values()):
        if row.op != "mul" or len(row.src) != 2:
            continue
        for x, gate in (row.src, row.src[::-1]):
            inner = _sole(rows, users, outputs, gate)
            if inner is None:
                continue
            if inner.op in ("sigmoid", "hsigmoid") and inner.src == [x]:
                row.op, row.src, row.attrs = ("silu" if inner.op == "sigmoid" else "hswish"), [x], {}
            elif inner.op == "sigmoid":
                scale = _sole(rows, users, outputs, inner.src[0])
                if scale is not None and scale.op == "mul" and scale.src == [x] and _scalar(scale, 1.702):
                    row.op, row.src, row.attrs = "quick_gelu", [x], {}
            if row.op != "mul":
                break


def _fold_polynomials(rows: Rows, outputs: list[str]) -> None:
    """0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) is gelu_tanh, x relu6(x + 3) / 6 hswish; rms_norm by hand too."""
    get = rows.rows.get
    for row in list(rows.rows.values()):
        if row.id not in rows.rows:
            continue
        if row.op == "mul" and len(row.src) == 2:
            for half, gate in (row.src, row.src[::-1]):
                x = _tanh_gelu(rows, half, gate)
                if x is not None:
                    row.op, row.src, row.attrs = "gelu_tanh", [x], {}
                    break
        if row.op == "mul" and len(row.src) == 2:
            _rms_norm(rows, row)
        if row.op in ("div", "mul") and len(row.src) == 1 and (_scalar(row, 6.0) or _scalar(row, 1 / 6)):
            product = get(row.src[0])
            if product is None or product.op != "mul" or len(product.src) != 2:
                continue
            for x, gate in (product.src, product.src[::-1]):
                clip = get(gate)
                if clip is None or clip.op != "relu6":
                    continue
                plus = get(clip.src[0])
                if plus is not None and plus.op == "add" and plus.src == [x] and _scalar(plus, 3.0):
                    row.op, row.src, row.attrs = "hswish", [x], {}
                    break


def _tanh_gelu(rows: Rows, half: str, gate: str) -> str | None:
    get = rows.rows.get
    h, one = get(half), get(gate)
    if h is None or one is None or h.op != "mul" or not _scalar(h, 0.5) or len(h.src) != 1:
        return None
    if one.op != "add" or not _scalar(one, 1.0):
        return None
    tanh = get(one.src[0])
    scaled = get(tanh.src[0]) if tanh is not None and tanh.op == "tanh" else None
    inner = get(scaled.src[0]) if scaled is not None and _scalar(scaled, 0.7978845608028654) else None
    if inner is None or inner.op != "add" or h.src[0] not in inner.src or len(inner.src) != 2:
        return None
    return h.src[0]


def _rms_norm(rows: Rows, row: Row) -> None:
    """x * rsqrt(mean(x^2) + eps), with the learned scale when the next row is it."""
    get = rows.rows.get
    for x, gate in (row.src, row.src[::-1]):
        root = get(gate)
        if root is None or root.op != "rsqrt":
            continue
        eps = get(root.src[0])
        if eps is None or eps.op != "add" or len(eps.src) != 1:
            continue
        mean = get(eps.src[0])
        square = get(mean.src[0]) if mean is not None and mean.op == "reduce_mean" else None
        if square is None or square.op != "square" or square.src != [x]:
            continue
        row.op, row.src, row.attrs = "rms_norm", [x], {"vectors": 0}
        readers = [r for r in rows.rows.values() if row.id in r.src]
        scale = readers[0] if len(readers) == 1 else None
        if scale is not None and scale.op == "mul" and scale.attrs.get("const") == (row.shape[-1],):
            scale.op, scale.src, scale.attrs = "rms_norm", [x], {"width": row.shape[-1]}
        return


def _fold_attention(rows: Rows, outputs: list[str]) -> None:
    """softmax(q k^T * scale + mask) v written out becomes one attention row."""
    users = rows.users()
    for soft in list(rows.rows.values()):
        if soft.op != "softmax" or soft.attrs.get("axis", -1) not in (-1, len(soft.shape) - 1) or len(soft.shape) < 3:
            continue
        readers = users.get(soft.id, [])
        pv = rows.rows.get(readers[0]) if len(readers) == 1 and soft.id not in outputs else None
        if pv is None or pv.op != "matmul" or pv.src[0] != soft.id or pv.attrs.get("bt"):
            continue
        mask: list[str] = []
        scale = 1.0
        at = _sole(rows, users, outputs, soft.src[0])
        while at is not None and at.op != "matmul":
            scaling = at.op in ("mul", "div") and len(at.src) == 1 and "const" not in at.attrs
            constant = len(at.src) == 1 and not at.attrs.get("learned")
            masking = at.op == "add" and not at.fused and (constant or (len(at.src) == 2 and not mask))
            if not (scaling or masking) or at.shape != soft.shape:
                at = None
                break
            if scaling:
                by = at.attrs.get("value")
                factor = float(by) if isinstance(by, int | float) and by else math.nan
                scale = scale * factor if at.op == "mul" else scale / factor
            if len(at.src) == 2:
                left = rows.rows.get(at.src[0])
                mask.append(at.src[1] if left is not None and left.shape == at.shape else at.src[0])
                at = _sole(rows, users, outputs, at.src[0] if mask[0] == at.src[1] else at.src[1])
            else:
                at = _sole(rows, users, outputs, at.src[0])
        if at is None or not at.attrs.get("bt") or at.fused:
            continue
        q, k, v = (_shape_of(rows, s) for s in (*at.src, pv.src[1]))
        if q is None or k is None or v is None or not len(q) == len(k) == len(v) or not q[:-2] == k[:-2] == v[:-2]:
            continue
        pv.op, pv.src, pv.attrs = "attention", [*at.src, pv.src[1], *mask], {}
        if not math.isnan(scale) and not math.isclose(scale, q[-1] ** -0.5, rel_tol=1e-6):
            pv.attrs["scale"] = scale


def _fold_groups(rows: Rows, outputs: list[str]) -> None:
    """Key and value heads repeated for groups of query heads are read in place: attention takes fewer of them."""
    for row in list(rows.rows.values()):
        if row.op != "attention" or len(row.shape) != 4:
            continue
        bases = [_before_repeat(rows, s) for s in row.src[1:3]]
        if bases[0] is not None and bases[1] is not None:
            row.src[1:3] = [bases[0], bases[1]]


def _before_repeat(rows: Rows, ident: str) -> str | None:
    """The (batch, heads, length, depth) tensor of which ``ident`` repeats every head, one after the other."""
    merged = rows.rows.get(ident)
    grown = rows.rows.get(merged.src[0]) if merged is not None and merged.op == "reshape" else None
    thin = rows.rows.get(grown.src[0]) if grown is not None and grown.op in ("expand", "tile") else None
    if grown is None or thin is None or len(grown.shape) != 5 or thin.op != "reshape":
        return None
    n, h, _, s, d = grown.shape
    base = _shape_of(rows, thin.src[0])
    return thin.src[0] if thin.shape == (n, h, 1, s, d) and base == (n, h, s, d) else None


def _shape_of(rows: Rows, ident: str) -> IntShape | None:
    row = rows.rows.get(ident)
    return rows.inputs.get(ident) if row is None else row.shape
