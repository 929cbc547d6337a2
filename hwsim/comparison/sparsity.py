"""Where 2:4 sparsity pays: dense and sparse time of matrix products over M, N and K, and what limits the sparse one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.machine import Accelerator, load_accelerator
from hwsim.plan.gpu_candidates import SPARSE_K
from hwsim.schedule.gpu_view import gpu_view
from hwsim.timing.gpu_gemm import LIMITERS, best_gemm, gemm_kind

if TYPE_CHECKING:
    import pandas as pd

Grid = npt.NDArray[Any]

OUTPUTS = 8  # columns of weights a sparse kernel's tile is aligned to


@dataclass(frozen=True)
class SparsityMap:
    """Products C[m, n] = A[m, k] B[k, n] with 2:4 weights B, every array [m, n, k] over the sizes asked for.

    ``dense_s`` and ``sparse_s``: the fastest kernel of each, in seconds; ``sparse_s`` is infinite where a library has no
    sparse kernel (``eligible``). ``gain``: dense over sparse, at least 1 as the faster one runs. ``limit``: what holds
    the sparse kernel up, an index into ``limiters``.
    """

    target: str
    precision: str
    m: Grid
    n: Grid
    k: Grid
    dense_s: Grid
    sparse_s: Grid
    eligible: Grid
    limit: Grid
    limiters: tuple[str, ...] = LIMITERS

    @property
    def gain(self) -> Grid:
        """Time of the dense kernel over that of the one that runs."""
        return np.asarray(self.dense_s / np.minimum(self.dense_s, self.sparse_s))

    @property
    def ratio(self) -> Grid:
        """Time of the dense kernel over the sparse one's: below 1 where 2:4 would lose, 0 where there is no kernel."""
        return np.asarray(self.dense_s / self.sparse_s)

    def break_even_m(self, gain: float = 1.0) -> Grid:
        """Least m from which on every larger one of the map gains more than ``gain``, [n, k]; 0 where none does."""
        good = self.ratio > gain
        steady = np.flip(np.logical_and.accumulate(np.flip(good, 0), axis=0), 0)
        return np.where(steady.any(axis=0), self.m[steady.argmax(axis=0)], 0)

    def table(self) -> pd.DataFrame:
        """Return a DataFrame with one row a product, in the order of m, n and k."""
        import pandas as pd

        shape = np.meshgrid(self.m, self.n, self.k, indexing="ij")
        names = np.array([*self.limiters, ""])
        return pd.DataFrame({
            **{name: column.ravel() for name, column in zip("mnk", shape, strict=True)},
            "dense_s": self.dense_s.ravel(), "sparse_s": self.sparse_s.ravel(), "eligible": self.eligible.ravel(),
            "gain": self.gain.ravel(), "limit": names[np.where(self.eligible, self.limit, -1).ravel()],
        })  # fmt: skip


def sparsity_map(
    target: str | Accelerator,
    m: npt.ArrayLike,
    n: npt.ArrayLike,
    k: npt.ArrayLike,
    precision: str = "fp16",
    *,
    cache: str = "cold",
    launch: str = "graph",
) -> SparsityMap:
    """Return dense against 2:4 times of all products of the sizes ``m``, ``n`` and ``k`` on a GPU.

    ``precision`` is the format of weights and activations (fp16, bf16, int8, fp8, tf32); the weights are B. ``cache`` and
    ``launch`` are those of the GEMM engine. Sparse kernels need k in whole sparse instructions and n in multiples of 8.
    Raises HwsimError for a GPU or a format without sparse instructions, and for sizes below 1.
    """
    acc = load_accelerator(target) if isinstance(target, str) else target
    if acc.family != "gpu":
        raise HwsimError(f"{acc.id} is of family {acc.family}: 2:4 sparsity is for GPUs from Ampere on")
    view = gpu_view(acc)
    if not view.sparse:
        raise HwsimError(f"{acc.id} has no 2:4 sparse Tensor Cores: use Ampere or later")
    depth = SPARSE_K.get({"fp8": "e4m3"}.get(precision, precision))
    if depth is None:
        raise HwsimError(f"no 2:4 sparse {precision[:32]} instructions; there are {', '.join(SPARSE_K)}, fp8")
    dense_kind, sparse_kind = gemm_kind(view, precision), gemm_kind(view, precision, sparsity="2:4")
    sizes = [np.unique(np.atleast_1d(np.asarray(x, np.int64))) for x in (m, n, k)]
    if any(x[0] < 1 for x in sizes):
        raise HwsimError("a product needs m, n and k of at least 1")
    grid = [x.ravel() for x in np.meshgrid(*sizes, indexing="ij")]
    shape = tuple(len(x) for x in sizes)
    dense = best_gemm(view, dense_kind, *grid, cache=cache, launch=launch)
    sparse = best_gemm(view, sparse_kind, *grid, cache=cache, launch=launch)
    eligible = (grid[2] % depth == 0) & (grid[1] % OUTPUTS == 0)
    times = np.where(eligible, sparse.time_s, np.inf)
    of = [x.reshape(shape) for x in (dense.time_s, times, eligible, sparse.limiter)]
    return SparsityMap(acc.id, precision, sizes[0], sizes[1], sizes[2], of[0], of[1], of[2], of[3])
