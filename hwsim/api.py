"""Small public helpers: one-layer networks for microbenchmarks, and the lists as DataFrames."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwsim.errors import HwsimError
from hwsim.network.graph import Network

if TYPE_CHECKING:
    import pandas as pd

    from hwsim.network.builder import Builder


def matmul(m: int, n: int, k: int, batch: int = 1, quantize_activations: bool = False) -> Network:
    """Return the one-layer network C[m, n] = A[m, k] B[k, n], B constant; ``batch`` of them multiply activations.

    With ``quantize_activations`` the casts a library runs before a narrow product are kernels too, for every operand
    that is an activation: one pass for the scale, one to convert. Raises HwsimError for sizes below 1.
    """
    _sizes(m=m, n=n, k=k, batch=batch)
    from hwsim.network.builder import Builder

    net = Builder(f"matmul_{m}x{n}x{k}" + (f"_b{batch}" if batch > 1 else ""))
    if batch > 1:
        pair = [net.input("a", (batch, m, k)), net.input("b", (batch, k, n))]
        if quantize_activations:
            pair = [_quantized(net, operand, 3) for operand in pair]
        return net.build(net.op("matmul", *pair, name="matmul"))
    a = net.input("a", (m, k))
    if quantize_activations:
        a = _quantized(net, a, 2)
    return net.build(net.linear(a, n, bias=False, name="matmul"))


def _quantized(net: Builder, operand: str, rank: int) -> str:
    net.op("reduce_max", operand, axes=tuple(range(rank)), name="amax")
    return net.op("quantize", operand, name="quantize")


def conv2d(
    *, n: int, c: int, h: int, w: int, k: int, r: int, s: int, stride: int = 1, padding: int = 0, groups: int = 1
) -> Network:
    """Return the one-layer network of a 2-D convolution: input n x c x h x w, k filters of r x s.

    Raises HwsimError for sizes below 1 or a kernel larger than the padded input.
    """
    _sizes(n=n, c=c, h=h, w=w, k=k, r=r, s=s, stride=stride, groups=groups)
    if not isinstance(padding, int) or isinstance(padding, bool) or padding < 0:
        raise HwsimError(f"padding must be a whole number of at least 0, not {padding!r}")
    from hwsim.network.builder import Builder

    net = Builder(f"conv2d_{n}x{c}x{h}x{w}_{k}x{r}x{s}")
    x = net.input("x", (n, c, h, w))
    return net.build(net.conv(x, k, (r, s), stride, padding, g=groups, name="conv2d"))


def _sizes(**sizes: int) -> None:
    for name, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise HwsimError(f"{name} must be a whole number of at least 1, not {value!r}")


def list_networks() -> pd.DataFrame:
    """Return the shipped networks: name, task, symbols, layers, MACs, parameters."""
    import pandas as pd

    from hwsim.network.load import list_networks as rows

    return pd.DataFrame(rows())


def list_accelerators() -> pd.DataFrame:
    """Return the shipped machines: name, family, chips, peak rates, memory."""
    import pandas as pd

    from hwsim.machine import list_accelerators as rows

    return pd.DataFrame(rows())
