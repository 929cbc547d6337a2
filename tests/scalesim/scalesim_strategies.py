"""Random small layers and configurations, the awkward ones included."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from hwsim.scalesim import Config, TopologyLayer

FLOWS = ("os", "ws", "is")


@st.composite
def layers(draw: st.DrawFn, size: int = 10) -> TopologyLayer:
    """Convolutions with overlapping, touching and overhanging windows, and GEMMs."""
    whole = lambda low, high: draw(st.integers(low, high))  # noqa: E731
    ratio = None
    if draw(st.booleans()):
        m = draw(st.sampled_from((1, 2, 3, 4, 8)))
        ratio = (whole(1, m), m)
    if draw(st.booleans()):
        m, n, k = whole(1, 4 * size), whole(1, 4 * size), whole(1, 4 * size)
        return TopologyLayer("gemm", "gemm", m, k, 1, k, 1, n, sparsity=ratio)
    h, w = whole(1, size), whole(1, size)
    r, s = whole(1, min(h, 4)), whole(1, min(w, 4))
    return TopologyLayer("conv", "conv", h, w, r, s, whole(1, 10), whole(1, 20), whole(1, 3), whole(1, 3), ratio)


@st.composite
def configs(draw: st.DrawFn, **fixed: Any) -> Config:
    """Arrays from 1×1 up, all dataflows and modes, small SRAMs and bandwidths, dense and sparse."""
    whole = lambda low, high: draw(st.integers(low, high))  # noqa: E731
    values = {
        "array_h": whole(1, 9),
        "array_w": whole(1, 9),
        "dataflow": draw(st.sampled_from(FLOWS)),
        "mode": draw(st.sampled_from(("CALC", "USER"))),
        "ifmap_sram_kb": whole(1, 3),
        "filter_sram_kb": whole(1, 3),
        "ofmap_sram_kb": whole(1, 2),
        "ifmap_bank_bandwidth": draw(st.sampled_from((1, 2, 7, 10, 33))),
        "filter_bank_bandwidth": draw(st.sampled_from((1, 3, 10, 16))),
        "bandwidths": (draw(st.sampled_from((1, 3, 10, 16))),),
        "ifmap_offset": draw(st.sampled_from((0, 7))),
        "filter_offset": draw(st.sampled_from((0, 100, 10_000_000))),
        "sparsity": draw(st.booleans()),
        "optimized_mapping": draw(st.booleans()),
        "sparse_rep": draw(st.sampled_from(("csr", "csc", "ellpack_block"))),
        "block_size": draw(st.sampled_from((2, 3, 4, 6))),
        "seed": whole(0, 99),
    }
    return Config(**(values | fixed))
