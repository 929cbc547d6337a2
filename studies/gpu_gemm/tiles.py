"""Tiles that recorded kernel names show, and the model's time with that very tile."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import rows as data

from hwsim.timing.gpu_gemm import best_gemm

Floats = npt.NDArray[np.float64]


def recorded(rows: pd.DataFrame) -> pd.DataFrame:
    """Return what the kernel names say: m, n, slices, split, known. cuBLAS names the side along N first.

    Grid Z is the split of K of a single product, and the batch of a batched one. Names cut before the tile are unknown.
    """
    out = []
    for kernel, op in zip(rows["kernel"], rows["op"], strict=True):
        name, _, grid = kernel.partition("|g")
        tile = re.search(r"(\d+)x(\d+)", name.split("gemm")[-1]) if "xmma" not in name else None
        z = int(grid.split("x")[2]) if grid.count("x") == 2 else 1
        n, m = (int(tile[1]), int(tile[2])) if tile else (0, 0)
        out.append((m, n, 4 if "sliced1x4" in name else 1, z if op == "gemm" else 1, tile is not None))
    return pd.DataFrame(out, columns=["m", "n", "slices", "split", "known"], index=rows.index)


def recorded_times(rows: pd.DataFrame, constants: dict[str, float] | None = None) -> Floats:
    """Return predicted microseconds of rows of one set, each with its recorded tile and split; NaN where it is unknown."""
    said = recorded(rows)
    first = rows.iloc[0]
    view = data.machine(first["machine"])
    if constants:
        view = replace(view, constants={**view.constants, **constants})
    source = data.source_of(first["src"], first["framework"], first["machine"], first["dtype"])
    kind = data.kind_of(view, source, first["dtype"], first["sparsity"])
    tiles = kind.tiles(view)
    index = np.full(len(rows), -1)
    for i in range(len(tiles)):
        same = (said["m"] == tiles.m[i]) & (said["n"] == tiles.n[i]) & (said["slices"] == tiles.slices[i])
        index[same.to_numpy()] = i
    out = np.full(len(rows), np.nan)
    ok = index >= 0
    if not ok.any():
        return out
    mine = rows[ok]
    around = data.found(view, kind, source, mine)
    got = best_gemm(
        view, kind, mine["M"].to_numpy(), mine["N"].to_numpy(), mine["K"].to_numpy(), mine["batch"].to_numpy(),
        launch=source.launch, around=around, given=(index[ok], np.maximum(1, said["split"].to_numpy()[ok])),
    )  # fmt: skip
    out[ok] = got.time_s * 1e6 + float(source.overhead_us)
    return out


def chosen(rows: pd.DataFrame, constants: dict[str, float] | None = None) -> tuple[Any, Floats]:
    """Return (m, n, slices) of the tiles the model takes, and its microseconds, for rows of one set and framework."""
    times, answers = data.predict(rows, constants, parts=True)
    got = answers[0][1]
    t = got.tiles
    return np.stack([t.m[got.tile], t.n[got.tile], t.slices[got.tile]], axis=1), times
