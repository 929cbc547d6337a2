"""The operands of a layer as SCALE-Sim addresses them: im2col input, filter, output, dense or structured-sparse."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwsim.errors import HwsimError
from hwsim.network.scalesim_topology import TopologyLayer
from hwsim.scalesim.config import Config

Words = NDArray[np.int64]
HOLE = -1  # a request that is not made


@dataclass(frozen=True, slots=True)
class Storage:
    """Filter storage of a sparse layer in words, as SPARSE_REPORT prints it (data in 1-byte, ellpack metadata in 4-byte
    words: SCALE-Sim's own mixture)."""

    original: int
    new: int | float
    metadata: int | float


def sparsity_of(config: Config, layer: TopologyLayer) -> tuple[int, int]:
    """The layer's N:M; 1:1 when the topology gives none."""
    return layer.sparsity or (1, 1)


def kept_window(config: Config, layer: TopologyLayer) -> Words:
    """Indices of the filter window that a layer-wise N:M filter keeps, shape (K',)."""
    k = np.arange(layer.k, dtype=np.int64)
    if not config.sparsity or config.optimized_mapping:
        return k
    n, m = sparsity_of(config, layer)
    return k[k % m < n]


def window_offsets(layer: TopologyLayer, k: Words) -> tuple[Words, Words, Words]:
    """Row, column and channel of window elements ``k`` (filter rows outermost, channels innermost)."""
    row, rest = np.divmod(k, layer.filter_w * layer.channels)
    column, channel = np.divmod(rest, layer.channels)
    return row, column, channel


def ifmap_matrix(layer: TopologyLayer, m: Words, k: Words) -> Words:
    """Input addresses without offset, shape (len(m), len(k)); HOLE where the window leaves the input."""
    y, x = np.divmod(m, layer.ofmap_w)
    y, x = y * layer.stride_h, x * layer.stride_w
    row, column, channel = window_offsets(layer, k)
    base = (y * layer.ifmap_w + x) * layer.channels
    address: Words = base[:, None] + ((row * layer.ifmap_w + column) * layer.channels + channel)[None, :]
    edge = np.flatnonzero((y + layer.filter_h > layer.ifmap_h) | (x + layer.filter_w > layer.ifmap_w))
    if len(edge):  # few pixels: only these can see a window leave the input
        outside = (y[edge, None] + row >= layer.ifmap_h) | (x[edge, None] + column >= layer.ifmap_w)
        address[edge] = np.where(outside, HOLE, address[edge])
    return address


def overhangs(layer: TopologyLayer) -> bool:
    """Whether the last windows reach outside the input (ceil-mode output size)."""
    return (layer.ofmap_h - 1) * layer.stride_h + layer.filter_h > layer.ifmap_h or (
        layer.ofmap_w - 1
    ) * layer.stride_w + layer.filter_w > layer.ifmap_w


def row_wise_ratios(config: Config, layer: TopologyLayer) -> Words:
    """Kept elements per block, one draw per filter (row-wise sparsity), shape (N,)."""
    generator = np.random.RandomState(config.seed)
    return np.array([generator.randint(1, config.block_size // 2 + 1) for _ in range(layer.n)], dtype=np.int64)


def filter_matrix(config: Config, layer: TopologyLayer) -> Words:
    """Filter addresses without offset, shape (K or compressed K, N), HOLE where a row-wise filter is padded."""
    columns = np.arange(layer.n, dtype=np.int64)[None, :] * layer.k
    if not (config.sparsity and config.optimized_mapping):
        dense = kept_window(config, layer)[:, None] + columns
        if config.sparsity and config.filter_offset == 0:
            # Address 0 doubles as "pruned": the first block of the first filter loses its head, regained as padding.
            n, _ = sparsity_of(config, layer)
            head = dense[: min(n, len(dense)), 0]
            head[:] = np.roll(head, -1)
        return dense
    block, half = config.block_size, config.block_size // 2
    blocks = math.ceil(layer.k / (2 * block)) * 2
    matrix = np.full((blocks * block // 2, layer.n), HOLE, dtype=np.int64)
    ratios = row_wise_ratios(config, layer)
    for i in range(half):
        source = np.arange(blocks, dtype=np.int64) * block + i
        source = source[source < layer.k]
        rows = source // block * half + i
        matrix[rows] = np.where(i < ratios[None, :], source[:, None] + columns, HOLE)
    if config.filter_offset == 0 and ratios[0] > 1:
        # Address 0 doubles as "pruned" and, unlike above, is not regained.
        matrix[: ratios[0], 0] = [*range(1, int(ratios[0])), HOLE]
    return matrix


def check_sparsity(config: Config, layer: TopologyLayer) -> None:
    """Refuse the sparse cases on which SCALE-Sim stops. Raises HwsimError."""
    if not config.sparsity:
        return
    where = f"layer {layer.name!r}"
    if config.optimized_mapping:
        if config.block_size < 2:
            raise HwsimError(f"{where}: row-wise sparsity needs BlockSize >= 2, not {config.block_size}")
        if config.dataflow == "ws" and 2 * config.array_h % config.block_size:
            raise HwsimError(
                f"{where}: row-wise sparsity needs a BlockSize dividing 2 x ArrayHeight = {2 * config.array_h}, "
                f"not {config.block_size}"
            )
        rows = config.block_size * math.ceil(layer.k / (2 * config.block_size))
        if config.dataflow != "ws" and rows != layer.k:
            raise HwsimError(f"{where}: row-wise sparsity runs with Dataflow ws only, not {config.dataflow}")
    elif config.filter_offset == 0 and layer.n == 1 and layer.k <= sparsity_of(config, layer)[1]:
        raise HwsimError(
            f"{where}: a sparse filter of one block at FilterOffset 0 vanishes in SCALE-Sim; use an offset > 0"
        )


def filter_storage(config: Config, layer: TopologyLayer, compressed_rows: int) -> Storage:
    """Filter words before and after compression and of metadata (SCALE-Sim ``compression``)."""
    original = layer.k * layer.n
    if config.sparse_rep == "ellpack_block":
        words = compressed_rows * layer.n
        metadata = words * math.ceil(math.log2(sparsity_of(config, layer)[1])) / 32
        return Storage(original, words + metadata, metadata)
    if config.optimized_mapping:
        full, rest = divmod(layer.k, config.block_size)
        ratios = row_wise_ratios(config, layer)
        nonzero = int((ratios * full + np.minimum(ratios, rest)).sum())
    else:
        nonzero = compressed_rows * layer.n
    pointers = (layer.k if config.sparse_rep == "csr" else layer.n) + 1
    return Storage(original, 2 * nonzero + pointers, nonzero + pointers)
