"""Turn concrete networks into a symbolic one by building it at several sizes and fitting every dimension.

A builder (or an exporter) only has to make the network for given numbers. Each dimension that changes is a multilinear
polynomial of the symbols (``3*N*S + 1``): it is solved exactly from the corners of a box of sizes, then checked at one
more point, so a dimension that follows another law is refused rather than guessed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction

from hwsim.errors import HwsimError
from hwsim.network.dims import Dim, Shape
from hwsim.network.graph import AttrValue, Layer, Network, Tensor

Maker = Callable[..., Network]


def symbolise(make: Maker, defaults: Mapping[str, int], second: Mapping[str, int]) -> Network:
    """Return ``make(**sizes)`` with dimensions as expressions of the symbols.

    ``defaults`` are the symbols' default values; ``second`` another value of each (different, >= 1 apart). ``make`` is
    called at every corner of that box and at one point outside it. Raises HwsimError when a dimension is not
    multilinear or the graphs differ between sizes.
    """
    names = list(defaults)
    corners = [
        dict(zip(names, point, strict=True)) for point in itertools.product(*((defaults[n], second[n]) for n in names))
    ]
    probe = {n: 2 * second[n] + defaults[n] for n in names}
    nets = [make(**c) for c in corners]
    check = make(**probe)
    first = nets[0]
    for other in [*nets[1:], check]:
        if [(la.id, la.op, la.src) for la in other.layers] != [(la.id, la.op, la.src) for la in first.layers]:
            raise HwsimError(f"network {first.name}: its graph changes with {', '.join(names)}")

    solved: dict[tuple[int, ...], str] = {}  # networks repeat few dimensions many times

    def fit(values: list[int], wanted: int, where: str) -> Dim:
        if len(set(values)) == 1 and wanted == values[0]:
            return values[0]
        key = (*values, wanted)
        if key not in solved:
            text, predict = _multilinear(names, corners, values)
            if predict(probe) != wanted:
                raise HwsimError(f"{where}: a dimension is not a product or sum of {', '.join(names)}")
            solved[key] = text
        return solved[key]

    def fit_shape(shapes: list[Shape], wanted: Shape, where: str) -> Shape:
        if any(len(s) != len(wanted) for s in shapes):
            raise HwsimError(f"{where}: rank changes with {', '.join(names)}")
        return tuple(fit([int(s[i]) for s in shapes], int(wanted[i]), where) for i in range(len(wanted)))

    inputs = tuple(
        Tensor(t.name, fit_shape([n.inputs[i].shape for n in nets], check.inputs[i].shape, f"input {t.name}"), t.dtype)
        for i, t in enumerate(first.inputs)
    )
    layers = []
    for i, la in enumerate(first.layers):
        where = f"network {first.name}, layer {la.id} ({la.name or la.op})"
        shape = fit_shape([n.layers[i].shape for n in nets], check.layers[i].shape, where)
        layers.append(
            replace(la, shape=shape, attrs=_fit_attrs(la, [n.layers[i] for n in nets], check.layers[i], fit, where))
        )
    return Network(first.name, inputs, tuple(layers), first.outputs, dict(defaults), first.meta).validate()


def _fit_attrs(
    la: Layer, others: list[Layer], check: Layer, fit: Callable[[list[int], int, str], Dim], where: str
) -> dict[str, AttrValue]:
    from hwsim.network.ops import OPS

    out: dict[str, AttrValue] = {}
    for key, value in la.attrs.items():
        if key in OPS[la.op].dim_attrs:
            out[key] = fit([int(o.attrs[key]) for o in others], int(check.attrs[key]), where)  # type: ignore[arg-type]
            continue
        if any(o.attrs.get(key) != value for o in (*others, check)):
            raise HwsimError(f"{where}: attribute {key} changes with the sizes")
        out[key] = value
    return out


def _multilinear(
    names: list[str], corners: list[dict[str, int]], values: list[int]
) -> tuple[str, Callable[[Mapping[str, int]], int]]:
    """Solve for the coefficients of all products of distinct symbols through the corner values."""
    terms = [t for r in range(len(names) + 1) for t in itertools.combinations(names, r)]
    rows = [[Fraction(_product(c, t)) for t in terms] + [Fraction(v)] for c, v in zip(corners, values, strict=True)]
    size = len(terms)
    for col in range(size):
        pivot = next(r for r in range(col, size) if rows[r][col])
        rows[col], rows[pivot] = rows[pivot], rows[col]
        rows[col] = [x / rows[col][col] for x in rows[col]]
        for r in range(size):
            if r != col and rows[r][col]:
                rows[r] = [x - rows[r][col] * y for x, y in zip(rows[r], rows[col], strict=True)]
    coefficients = {t: rows[i][-1] for i, t in enumerate(terms) if rows[i][-1]}

    def predict(point: Mapping[str, int]) -> Fraction:
        return sum((c * _product(point, t) for t, c in coefficients.items()), Fraction(0))

    denominator = max((c.denominator for c in coefficients.values()), default=1)
    words: list[str] = []
    for term, c in sorted(coefficients.items(), key=lambda kv: -len(kv[0])):
        scaled = int(c * denominator)
        factors = [str(abs(scaled))] if abs(scaled) != 1 or not term else []
        words.append(("-" if scaled < 0 else "+" if words else "") + "*".join([*factors, *term]))
    text = "".join(words) or "0"
    if text.startswith("-"):
        text = "0" + text
    return (f"({text})/{denominator}" if denominator > 1 else text), predict  # type: ignore[return-value]


def _product(point: Mapping[str, int], names: tuple[str, ...]) -> int:
    out = 1
    for n in names:
        out *= point[n]
    return out
