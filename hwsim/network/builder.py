"""Build networks by hand: each method adds a layer and returns its id, with the output shape inferred.

net = Builder("tiny")
x = net.input("x", (1, 3, 32, 32))
x = net.conv(x, 16, 3, p=1, fused="bn+relu")
x = net.linear(net.flatten(net.op("adaptive_avg_pool", x, size=(1, 1))), 10)
net.build()
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from hwsim.errors import HwsimError
from hwsim.network.dims import IntShape
from hwsim.network.graph import AttrValue, Layer, Network, Tensor
from hwsim.network.ops import OPS
from hwsim.network.ops_contract import ints, join_layout, pads, split_layout, window_out

Extent: TypeAlias = int | tuple[int, ...]  # one number for every spatial dimension, or one for each


class Builder:
    """Accumulates layers of one concrete (numeric) network; names are made unique by their prefix."""

    def __init__(self, name: str, *, dtype: str = "fp32", meta: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.dtype = dtype
        self.meta = dict(meta or {})
        self.prefix = ""
        self._inputs: list[Tensor] = []
        self._layers: list[Layer] = []
        self._shapes: dict[str, IntShape] = {}

    # -- plumbing ------------------------------------------------------------------------------------------------

    def input(self, name: str, shape: Sequence[int], dtype: str | None = None) -> str:
        """Declare a network input and return its name."""
        self._inputs.append(Tensor(name, tuple(shape), dtype or self.dtype))
        self._shapes[name] = tuple(shape)
        return name

    def shape(self, tensor: str) -> IntShape:
        """Shape of a tensor built so far."""
        return self._shapes[tensor]

    def op(
        self,
        op: str,
        *src: str,
        out: Sequence[int] | None = None,
        fused: str = "",
        name: str = "",
        dtype: str | None = None,
        weight_dtype: str | None = None,
        **attrs: AttrValue | None,
    ) -> str:
        """Add operator ``op`` on ``src``; ``out`` states what the attributes leave free."""
        entry = OPS.get(op)
        if entry is None:
            raise HwsimError(f"unknown operator {op!r}")
        kept: dict[str, AttrValue] = {k: v for k, v in attrs.items() if v is not None and v is not False}
        extra = fused.split("+").count("add")
        sources = src[: len(src) - extra] if extra else src
        shape = entry.infer([self._shapes[s] for s in sources], kept, None if out is None else tuple(out))
        ident = str(len(self._layers) + 1)
        label = self.prefix + (name or op)
        self._layers.append(
            Layer(
                ident,
                label,
                op,
                tuple(src),
                shape,
                kept,
                tuple(fused.split("+")) if fused else (),
                dtype or self.dtype,
                weight_dtype,
            )
        )
        self._shapes[ident] = shape
        return ident

    def build(self, *outputs: str) -> Network:
        """Return the validated network; ``outputs`` default to tensors nobody reads."""
        return Network(self.name, tuple(self._inputs), tuple(self._layers), outputs, {}, self.meta).validate()

    # -- the layers nearly every network has -------------------------------------------------------------------------

    def conv(
        self,
        x: str,
        features: int,
        k: Extent,
        s: Extent = 1,
        p: Extent | str = 0,
        *,
        d: int = 1,
        g: int = 1,
        bias: bool = False,
        fused: str = "",
        name: str = "conv",
        nhwc: bool = False,
        extra: Sequence[str] = (),
    ) -> str:
        """Convolution; ``p="same"`` pads as TensorFlow does (more at the end), an int pads both sides."""
        attrs: dict[str, Any] = {"nhwc": True} if nhwc else {}
        n, _, spatial = split_layout(self._shapes[x], attrs)
        rank = len(spatial)
        kernel = k if isinstance(k, tuple) else (k,) * rank
        stride = s if isinstance(s, tuple) else (s,) * rank
        padding = _padding(p, spatial, kernel, stride, (d,) * rank)
        attrs["k"] = kernel
        if any(v != 1 for v in stride):
            attrs["s"] = stride
        if any(padding):
            attrs["p"] = padding
        if d != 1:
            attrs["d"] = (d,)
        if g != 1:
            attrs["g"] = g
        if bias:
            attrs["bias"] = True
        full = pads(attrs, rank)
        grown = [window_out(spatial[i], kernel[i], stride[i], full[i], full[rank + i], d) for i in range(rank)]
        return self.op("conv", x, *extra, out=join_layout(n, features, grown, attrs), fused=fused, name=name, **attrs)

    def depthwise(
        self,
        x: str,
        k: int,
        s: int = 1,
        p: int | str = 0,
        *,
        d: int = 1,
        multiplier: int = 1,
        bias: bool = False,
        fused: str = "",
        name: str = "dw",
        nhwc: bool = False,
    ) -> str:
        """Depthwise convolution."""
        _, c, _ = split_layout(self._shapes[x], {"nhwc": True} if nhwc else {})
        return self.conv(x, c * multiplier, k, s, p, d=d, g=c, bias=bias, fused=fused, name=name, nhwc=nhwc)

    def pool(
        self,
        x: str,
        kind: str,
        k: Extent,
        s: Extent | None = None,
        p: Extent | str = 0,
        *,
        ceil: bool = False,
        nhwc: bool = False,
        name: str = "",
    ) -> str:
        """``kind`` max or avg pooling."""
        attrs: dict[str, Any] = {"nhwc": True} if nhwc else {}
        _, _, spatial = split_layout(self._shapes[x], attrs)
        rank = len(spatial)
        kernel = k if isinstance(k, tuple) else (k,) * rank
        stride = kernel if s is None else s if isinstance(s, tuple) else (s,) * rank
        padding = _padding(p, spatial, kernel, stride, (1,) * rank)
        return self.op(
            f"{kind}_pool",
            x,
            name=name or f"{kind}_pool",
            k=kernel,
            s=stride,
            p=padding if any(padding) else None,
            ceil=ceil,
            **attrs,
        )

    def global_pool(self, x: str, kind: str = "avg", *, nhwc: bool = False, name: str = "") -> str:
        """Mean or maximum over all spatial positions, extent 1 kept."""
        rank = len(self._shapes[x]) - 2
        return self.op(f"adaptive_{kind}_pool", x, size=(1,) * rank, nhwc=nhwc, name=name or "pool")

    def linear(
        self,
        x: str,
        features: int,
        *,
        bias: bool = True,
        fused: str = "",
        name: str = "fc",
        extra: Sequence[str] = (),
        tied: str | None = None,
    ) -> str:
        """Last dimension times a constant matrix."""
        out = (*self._shapes[x][:-1], features)
        return self.op(
            "linear", x, *extra, out=out, k=self._shapes[x][-1], bias=bias, fused=fused, name=name, tied=tied
        )

    def flatten(self, x: str, start: int = 1) -> str:
        """Merge dimensions from ``start`` on."""
        shape = self._shapes[x]
        return self.reshape(x, (*shape[:start], math.prod(shape[start:])))

    def reshape(self, x: str, shape: Sequence[int], name: str = "reshape") -> str:
        """The same elements under another shape; -1 once for the rest."""
        dims = list(shape)
        if -1 in dims:
            dims[dims.index(-1)] = math.prod(self._shapes[x]) // -math.prod(dims)
        return self.op("reshape", x, out=tuple(dims), name=name)

    def transpose(self, x: str, *perm: int) -> str:
        """Permuted dimensions."""
        return self.op("transpose", x, perm=tuple(perm))

    def split(self, x: str, axis: int, start: int, size: int, name: str = "split") -> str:
        """A contiguous part along ``axis``."""
        shape = list(self._shapes[x])
        axis %= len(shape)
        shape[axis] = size
        return self.op("split", x, out=tuple(shape), axis=axis, start=start, name=name)

    def add(self, *xs: str, fused: str = "", name: str = "add") -> str:
        """Element-wise sum of two tensors."""
        return self.op("add", *xs, fused=fused, name=name)

    def concat(self, *xs: str, axis: int = 1, name: str = "concat") -> str:
        """Join along ``axis``."""
        return self.op("concat", *xs, axis=axis, name=name)

    def resize(self, x: str, size: Sequence[int], mode: str = "nearest", *, nhwc: bool = False) -> str:
        """Spatial interpolation to ``size``."""
        n, c, _ = split_layout(self._shapes[x], {"nhwc": True} if nhwc else {})
        return self.op("resize", x, out=join_layout(n, c, size, {"nhwc": True} if nhwc else {}), mode=mode, nhwc=nhwc)

    def norm(
        self,
        x: str,
        kind: str = "layer_norm",
        *,
        width: int | None = None,
        name: str = "norm",
        groups: int | None = None,
        vectors: int | None = None,
    ) -> str:
        """Normalisation with a learned scale and shift of ``width`` (default: the last dimension)."""
        return self.op(
            kind, x, width=self._shapes[x][-1] if width is None else width, groups=groups, vectors=vectors, name=name
        )

    def heads(self, x: str, count: int) -> str:
        """(batch, length, features) to (batch, heads, length, features / heads)."""
        n, s, f = self._shapes[x]
        return self.transpose(self.reshape(x, (n, s, count, f // count)), 0, 2, 1, 3)

    def merge_heads(self, x: str) -> str:
        """The inverse of `heads`."""
        n, h, s, d = self._shapes[x]
        return self.reshape(self.transpose(x, 0, 2, 1, 3), (n, s, h * d))

    def attention(
        self,
        q: str,
        k: str,
        v: str,
        *,
        causal: bool = False,
        cache: int | None = None,
        mask: Sequence[str] = (),
        name: str = "attention",
    ) -> str:
        """softmax(q k^T) v on (batch, heads, length, depth) tensors."""
        return self.op("attention", q, k, v, *mask, causal=causal, cache=cache, name=name)


def _padding(
    p: Extent | str, spatial: Sequence[int], k: Sequence[int], s: Sequence[int], d: Sequence[int]
) -> tuple[int, ...]:
    if p == "same":
        return same_padding(spatial, k, s, d)
    return p if isinstance(p, tuple) else (int(p),) * len(spatial)


def same_padding(spatial: Sequence[int], k: Sequence[int], s: Sequence[int], d: Sequence[int]) -> tuple[int, ...]:
    """TensorFlow's SAME padding: begin of every axis, then end, the odd pixel at the end."""
    total = [max(0, (-(-x // s[i]) - 1) * s[i] + (k[i] - 1) * d[i] + 1 - x) for i, x in enumerate(spatial)]
    begin = [t // 2 for t in total]
    end = [t - b for t, b in zip(total, begin, strict=True)]
    return tuple(begin) if begin == end else (*begin, *end)


def check_ints(attrs: Mapping[str, AttrValue], key: str, rank: int) -> tuple[int, ...]:
    """Attribute ``key`` as ``rank`` integers."""
    return ints(attrs, key, rank, 1)
