"""The DLA: its array against a twin that steps every pass, and what must hold whatever the numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.machine import load_accelerator
from hwsim.timing.dla import DlaView, DlaWork, array_cycles, dla_times, dla_view
from hwsim.timing.reference.dla import passes

FOUND = dla_view(load_accelerator("jetson-agx-orin-64gb"))
assert FOUND is not None
ORIN: DlaView = FOUND
SMALL = replace(ORIN, channels=8, positions=2, kernels={"int8": 4, "fp16": 2})

LAYER = st.fixed_dictionaries(
    {
        "positions": st.integers(1, 12), "row": st.integers(1, 3), "rows": st.integers(1, 3), "inputs": st.integers(1, 20),
        "outputs": st.integers(1, 9), "groups": st.sampled_from([1, 1, 2, 5, 9, 24]),
    }
)  # fmt: skip
BYTES = st.fixed_dictionaries({n: st.integers(0, 1 << 22) for n in ("read_bytes", "write_bytes", "weight_bytes")})


def work(
    layer: dict[str, int], moved: dict[str, int], images: int = 1, sparse: bool = False, kernels: int = 4
) -> DlaWork:
    shape = {k: v for k, v in layer.items() if k != "rows"} | {"taps": layer["row"] * layer["rows"]}
    return DlaWork.of([{"images": images, "kernels": kernels, "elements": 0, "sparse": sparse, **shape, **moved}])


@settings(max_examples=200, deadline=None)
@given(LAYER)
def test_the_array_takes_the_clocks_of_its_passes_one_by_one(layer: dict[str, int]) -> None:
    none = dict.fromkeys(("read_bytes", "write_bytes", "weight_bytes"), 0)
    slow = sum(
        1
        for _ in passes(
            SMALL, layer["positions"], layer["row"] * layer["rows"], layer["row"], layer["inputs"], layer["outputs"],
            layer["groups"], 4,
        )
    )  # fmt: skip
    assert array_cycles(SMALL, work(layer, none))[0] == slow


@settings(max_examples=150, deadline=None)
@given(LAYER, BYTES, st.integers(1, 16), st.floats(1.0, 4.0))
def test_more_of_anything_never_makes_it_slower(
    layer: dict[str, int], moved: dict[str, int], images: int, factor: float
) -> None:
    one = dla_times(SMALL, work(layer, moved, images))
    for faster in (
        replace(SMALL, bytes_per_s=SMALL.bytes_per_s * factor),
        replace(SMALL, clock_hz=SMALL.clock_hz * factor),
        replace(SMALL, kernels={"int8": 8}),
    ):
        assert dla_times(faster, work(layer, moved, images)).body_s[0] <= one.body_s[0] * (1 + 1e-12)
    assert dla_times(SMALL, work(layer, moved, images), factor).body_s[0] >= one.body_s[0]
    sparse = dla_times(SMALL, work(layer, moved, images, sparse=True))
    assert sparse.body_s[0] <= one.body_s[0]


@settings(max_examples=150, deadline=None)
@given(LAYER, BYTES, st.integers(1, 16))
def test_a_layer_takes_its_roofline_and_a_batch_gains_nothing(
    layer: dict[str, int], moved: dict[str, int], images: int
) -> None:
    got = dla_times(SMALL, work(layer, moved, images))
    macs = layer["positions"] * layer["row"] * layer["rows"] * layer["inputs"] * layer["outputs"] * layer["groups"]
    peak = SMALL.channels * SMALL.positions * 4 * SMALL.clock_hz
    bound = images * max(macs / peak, sum(moved.values()) / SMALL.bytes_per_s)
    assert got.body_s[0] >= bound * (1 - 1e-9)
    single = dla_times(SMALL, work(layer, moved))
    assert got.body_s[0] + got.layer_s[0] == pytest.approx(images * (single.body_s[0] + single.layer_s[0]))


def test_2_4_weights_need_more_channels_than_the_array_has() -> None:
    layer = {"positions": 100, "row": 3, "rows": 3, "inputs": 64, "outputs": 64, "groups": 1}
    none = dict.fromkeys(("read_bytes", "write_bytes", "weight_bytes"), 0)
    for inputs, share in ((64, 1.0), (128, 0.5)):
        layer["inputs"] = inputs
        dense, sparse = (array_cycles(ORIN, work(layer, none, sparse=s, kernels=64))[0] for s in (False, True))
        assert sparse == dense * share
    layer["groups"] = 64
    layer["inputs"] = layer["outputs"] = 1
    depthwise = array_cycles(ORIN, work(layer, none, kernels=64))[0]
    assert depthwise == 50 * 9, "64 channels side by side, two positions at once"


def test_machines_without_dla_have_no_view() -> None:
    assert dla_view(load_accelerator("t4")) is None and dla_view(load_accelerator("jetson-orin-nano")) is None
    xavier = dla_view(load_accelerator("jetson-agx-xavier"))
    assert xavier is not None and xavier.kernels == {"int8": 32, "fp16": 16} and not xavier.sparse
    assert ORIN.macs_per_s("int8") == pytest.approx(13.1e12, rel=0.01) and ORIN.macs_per_s("fp32") == 0.0


def test_a_thousand_layers_at_once_equal_one_by_one() -> None:
    rng = np.random.default_rng(0)
    names = DlaWork.__slots__
    many = DlaWork(
        **{n: rng.integers(1, 50, 1000).astype(float) if n != "sparse" else rng.random(1000) < 0.5 for n in names}
    )
    whole = dla_times(ORIN, many)
    for i in range(0, 1000, 97):
        one = DlaWork(**{n: getattr(many, n)[i : i + 1] for n in names})
        assert dla_times(ORIN, one).body_s[0] == whole.body_s[i]
