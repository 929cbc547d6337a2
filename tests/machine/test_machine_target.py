"""The target grammar NAME[:MODE][@HOST[/LINK]][*COUNT]."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.machine import Target, load_accelerator, parse_target

WORD = st.from_regex(r"[a-z0-9][a-z0-9.+-]{0,12}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("tpu-v4", Target("tpu-v4")),
        ("jetson-orin-nano:15w", Target("jetson-orin-nano", mode="15w")),
        ("coral-usb:max@raspberry-pi-4/usb3", Target("coral-usb", "max", "raspberry-pi-4", "usb3")),
        ("h100-sxm*8", Target("h100-sxm", count=8)),
        ("a:b@c/d*2", Target("a", "b", "c", "d", 2)),
        (" tpu-v4 ", Target("tpu-v4")),
        ("dir/chip.toml:eco", Target("dir/chip.toml", "eco")),
    ],
)
def test_targets_parse(text: str, target: Target) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize(
    "text", ["", ":", "a:", "a@", "a*", "a*0", "a*-1", "a*1.5", "a/b@c/", "a:b:c", "a@b@c", "a*2:b"]
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(HwsimError, match=r"is not NAME\[:MODE\]"):
        parse_target(text)


@given(WORD, WORD | st.just(""), WORD | st.just(""), WORD | st.just(""), st.integers(1, 999_999))
def test_targets_round_trip(name: str, mode: str, host: str, link: str, count: int) -> None:
    target = Target(name, mode, host, link if host else "", count)
    assert parse_target(str(target)) == target


@given(st.text(max_size=80))
def test_any_text_is_a_target_or_a_clear_error(text: str) -> None:
    try:
        parse_target(text)
    except HwsimError as error:
        assert str(error).isprintable()


@given(st.text(max_size=80))
def test_any_text_loads_or_is_a_clear_error(text: str) -> None:
    try:
        load_accelerator(text)
    except HwsimError as error:
        assert str(error).isprintable()


def test_an_existing_path_wins_over_the_grammar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tpu-v4*2").write_text('name = "mine"\nbased_on = "tpu-v1"\n')
    (tmp_path / "tpu-v3").mkdir()
    monkeypatch.chdir(tmp_path)
    mine = load_accelerator("tpu-v4*2")
    assert mine.name == "mine" and mine.count == 1
    assert load_accelerator("tpu-v3").name == "TPU v3", "a folder is no machine file"


def test_names_ignore_case_and_unknown_ones_show_near_matches() -> None:
    assert load_accelerator("TPU-v4").id == "tpu-v4"
    with pytest.raises(HwsimError, match=r"did you mean .*tpu-v5e"):
        load_accelerator("tpu-v5")


def test_counts_multiply_boards() -> None:
    assert load_accelerator("tpu-v4*8").chips == 8
    assert load_accelerator("tpu-v3-8*2").chips == 8
    assert load_accelerator("tpu-v3-8*2").target == "tpu-v3-8*2"
    assert load_accelerator("tpu-v4*8").digest != load_accelerator("tpu-v4").digest
