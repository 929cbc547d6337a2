"""Stages around a network: named ones alone, more data never cheaper, resizing as measured on boards."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.machine import load_accelerator
from hwsim.network.load import load_network
from hwsim.plan.stages import POST, PRE, host_stages

# What google-coral/edgetpu's classification with a resize takes more than its bare invoke, seconds, fastest and slowest file.
RESIZE_S = {
    "desktop-xeon": (0.23e-3, 0.47e-3),
    "dev-board-cpu": (1.66e-3, 2.71e-3),
    "raspberry-pi-3": (2.68e-3, 3.71e-3),
    "raspberry-pi-3b-plus": (2.04e-3, 3.05e-3),
    "raspberry-pi-4": (1.11e-3, 1.67e-3),
}


@pytest.mark.parametrize("device", RESIZE_S)
def test_a_resize_costs_what_boards_take(device: str) -> None:
    (stage,), after = host_stages(load_network("mobilenet_v1").bind(), load_accelerator(device), pre="resize")
    low, high = RESIZE_S[device]
    assert 0.9 * low <= stage.seconds <= 1.1 * high
    assert not after and stage.elements == 224 * 224 * 3


def test_all_stages_cost_something_and_keep_their_order() -> None:
    net, host = load_network("ssd_mobilenet_v1").bind(), load_accelerator("raspberry-pi-4")
    before, after = host_stages(net, host, pre=list(PRE), post=list(POST))
    assert [s.name for s in before] == list(PRE) and [s.name for s in after] == list(POST)
    assert all(s.seconds > 0 and s.elements > 0 for s in (*before, *after))


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 400))
def test_larger_frames_never_decode_faster(width: int, height: int, more: int) -> None:
    net, host = load_network("mobilenet_v1").bind(), load_accelerator("raspberry-pi-4")
    small, large = (
        host_stages(net, host, pre="decode,colour", image=f"{w}x{height}")[0] for w in (width, width + more)
    )
    assert all(a.seconds <= b.seconds for a, b in zip(small, large, strict=True))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"pre": "resise"}, "resize"),
        ({"post": "resize"}, "unknown stage"),
        ({"pre": "decode", "image": "1280"}, "1280x720"),
        ({"pre": "decode", "image": "0x720"}, "from 1 to 65536"),
        ({"pre": "decode", "image": "99999999999x9"}, "from 1 to 65536"),
    ],
)
def test_mistakes_are_told_in_one_line(options: dict[str, str], told: str) -> None:
    with pytest.raises(HwsimError, match=told) as caught:
        host_stages(load_network("mobilenet_v1").bind(), load_accelerator("raspberry-pi-4"), **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_an_accelerator_is_no_host() -> None:
    with pytest.raises(HwsimError, match="tpu-v3"):
        host_stages(load_network("mobilenet_v1").bind(), load_accelerator("tpu-v3"), pre="resize")
