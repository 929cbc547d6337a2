"""Where 2:4 pays: the map of dense against sparse products."""

from __future__ import annotations

import numpy as np
import pytest

import hwsim
from hwsim.errors import HwsimError

SIZES = [256, 1024, 4096]


def test_a_map_says_what_a_run_says():
    """One product of the map is that product simulated dense and with 2:4 weights."""
    found = hwsim.sparsity_map("a100-sxm4-80gb", [2048], [4096], [4096])
    dense, sparse = (
        hwsim.simulate(hwsim.matmul(2048, 4096, 4096), "a100-sxm4-80gb", precision="fp16", sparsity=s)
        for s in ("dense", "2:4")
    )
    row = sparse.layers.iloc[0]
    assert bool(row["sparse_eligible"]) and bool(row["sparse_chosen"])
    assert found.gain[0, 0, 0] == pytest.approx(dense.latency_s / sparse.latency_s, rel=0.15)


def test_twice_the_rate_never_doubles_the_speed():
    for target, precision in (("a100-sxm4-80gb", "fp16"), ("h100-sxm", "fp8"), ("jetson-agx-orin-64gb", "int8")):
        found = hwsim.sparsity_map(target, [16, 512, 8192], SIZES, SIZES, precision)
        assert found.eligible.all()
        assert (found.gain >= 1).all() and (found.ratio < 2).all()
        # Larger products gain more than the smallest one, which is all launch and latency.
        assert found.ratio[2, 2, 2] > found.ratio[0, 0, 0]
        assert found.ratio[0, 0, 0] < 1.1


def test_products_without_a_sparse_kernel_stay_dense():
    found = hwsim.sparsity_map("a100-sxm4-80gb", [128], [1000, 1001], [64, 72])
    assert found.eligible[0].tolist() == [[True, False], [False, False]]
    assert (found.gain[~found.eligible] == 1).all() and (found.ratio[~found.eligible] == 0).all()
    table = found.table()
    assert list(table["limit"][~table["eligible"]].unique()) == [""]
    assert len(table) == 4 and table["limit"][0] in found.limiters


def test_break_even_is_where_all_larger_products_gain():
    found = hwsim.sparsity_map("l40s", [1, 64, 512, 4096, 16384], [4096], [4096])
    at = found.break_even_m(1.2)[0, 0]
    beyond = found.ratio[found.m >= at, 0, 0]
    assert at > 0 and (beyond > 1.2).all()
    assert found.break_even_m(5.0)[0, 0] == 0
    before = found.ratio[np.flatnonzero(found.m == at)[0] - 1, 0, 0] if at > found.m[0] else 0
    assert before <= 1.2


@pytest.mark.parametrize(("arguments", "message"), [
    (("v100-sxm2", [1], [8], [32]), "no 2:4 sparse Tensor Cores"),
    (("a100-sxm4-80gb", [1], [8], [32], "fp64"), "no 2:4 sparse fp64"),
    (("a100-sxm4-80gb", [0], [8], [32]), "at least 1"),
    (("tpu-v3", [1], [8], [32]), "of family systolic"),
])  # fmt: skip
def test_refusals(arguments, message):
    with pytest.raises(HwsimError, match=message):
        hwsim.sparsity_map(*arguments)
