"""The values that machines really compute, bit for bit: formats, Tensor Cores, systolic arrays, 2:4 sparsity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwsim.arithmetic.formats import convert, decode, encode
    from hwsim.arithmetic.fused import fused_dot, sparse_dot
    from hwsim.arithmetic.product import gemm
    from hwsim.arithmetic.sparsity import compress, decompress, permute_columns, prune

_HOME = {
    "compress": "sparsity",
    "convert": "formats",
    "decode": "formats",
    "decompress": "sparsity",
    "encode": "formats",
    "fused_dot": "fused",
    "gemm": "product",
    "permute_columns": "sparsity",
    "prune": "sparsity",
    "sparse_dot": "fused",
}

__all__ = [
    "compress",
    "convert",
    "decode",
    "decompress",
    "encode",
    "fused_dot",
    "gemm",
    "permute_columns",
    "prune",
    "sparse_dot",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(f"hwsim.arithmetic.{_HOME[name]}"), name)
    raise AttributeError(f"module 'hwsim.arithmetic' has no attribute {name!r}")
