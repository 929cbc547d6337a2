"""Links: the closed forms against the twin that plays every chunk, and what must hold of any link."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import load_accelerator
from hwsim.link import Link, Message, drain, host_link, transfer_s
from hwsim.link.model import chip_link
from hwsim.timing.reference.link_simpy import play

# Binary fractions: sums are exact, so that the twin must agree to the last bit.
rates = st.integers(0, 12).map(lambda e: 2.0**e)
links = st.builds(
    Link, st.just("link"), rates, rates, st.just(0.0), st.integers(0, 64), st.integers(0, 64), st.integers(1, 5)
)
starts = st.integers(0, 64).map(lambda n: n / 32)
messages = st.lists(
    st.builds(Message, st.integers(0, 400), st.integers(0, 64).map(float), starts, st.booleans()),
    min_size=1,
    max_size=5,
)


@given(links, messages)
@settings(max_examples=300, deadline=None)
def test_a_queue_of_messages_is_what_the_twin_plays(link: Link, queue: list[Message]) -> None:
    assert drain(link, queue) == play(link, queue)


@given(links, st.integers(0, 2000), starts, st.booleans())
@settings(max_examples=300, deadline=None)
def test_one_message_in_closed_form(link: Link, nbytes: int, start: float, to_host: bool) -> None:
    (begin, end) = play(link, [Message(nbytes, 0.0, start, to_host)])[0]
    assert begin == 0.0 and transfer_s(link, nbytes, to_host=to_host, start_s=start) == end


@given(links, st.integers(0, 2000), starts)
def test_more_of_anything_is_never_slower(link: Link, nbytes: int, start: float) -> None:
    now = transfer_s(link, nbytes, start_s=start)
    assert transfer_s(replace(link, to_chip_bytes_per_s=2 * link.to_chip_bytes_per_s), nbytes, start_s=start) <= now
    assert transfer_s(replace(link, in_flight=link.in_flight + 1), nbytes, start_s=start) <= now
    assert transfer_s(link, nbytes, start_s=start / 2) <= now
    assert transfer_s(link, nbytes + 1, start_s=start) >= now >= nbytes / link.to_chip_bytes_per_s


def test_links_of_machine_files() -> None:
    usb = host_link(load_accelerator("coral-usb").host)
    assert usb.name == "usb3" and usb.chunks(262144, True) == (256, 1024) and usb.chunks(10, False) == (1, 10)
    assert usb.chunks((1 << 20) + 1, False) == (2, 1)
    ici = chip_link(load_accelerator("tpu-v4").interconnect)
    assert ici.to_chip_bytes_per_s == pytest.approx(50e9, rel=0.5) and transfer_s(ici, 1 << 20) > 0
