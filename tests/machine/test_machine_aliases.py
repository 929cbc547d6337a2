"""Users' words for machines: other names, spellings, and what they are taken as."""

from __future__ import annotations

import pytest

from hwsim.data import accelerators_dir
from hwsim.errors import HwsimError
from hwsim.machine import load_accelerator
from hwsim.machine.library import aliases

STEMS = {file.stem for file in accelerators_dir().glob("*.toml")}


def test_an_alias_names_one_machine_and_hides_none() -> None:
    assert not set(aliases()) & STEMS
    assert set(aliases().values()) <= STEMS
    text = "\n".join(f.read_text(encoding="utf-8") for f in accelerators_dir().glob("*.toml"))
    for alias in aliases():
        assert text.count(f'"{alias}"') == 1, f"{alias} is claimed twice"


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("a100", "a100-sxm4-80gb"),
        ("v100", "v100-sxm2"),
        ("h100*8", "h100-sxm*8"),
        ("orin-nano:7w", "jetson-orin-nano:7w"),
        ("Jetson Orin:50W", "jetson-agx-orin-64gb:50w"),
        ("NVIDIA GeForce RTX 3090", "rtx-3090"),
        ("Tesla T4", "t4"),
        ("quadro_rtx_8000", "rtx-8000"),
    ],
)
def test_users_words_work(text: str, target: str) -> None:
    assert load_accelerator(text).target == target


def test_a_machine_says_what_a_vague_name_was_taken_as() -> None:
    assert "a100 is taken as a100-sxm4-80gb" in load_accelerator("a100").notes
    assert not any("is taken as" in note for note in load_accelerator("a100-sxm4-80gb").notes)
    assert not any("is taken as" in note for note in load_accelerator("Tesla T4").notes)


def test_an_alias_is_not_inherited_and_near_ones_are_offered() -> None:
    with pytest.raises(HwsimError, match=r"did you mean .*a100"):
        load_accelerator("a1000")


def test_show_takes_every_way_to_name_a_machine(capsys: pytest.CaptureFixture[str]) -> None:
    from hwsim.cli import main

    for text, shown in (
        ("Jetson Orin:50w", "jetson-agx-orin-64gb"),
        ("a100:1g.10gb", "a100-sxm4-80gb"),
        ("t4*2", "t4"),
    ):
        assert main(["show", text]) == 0
        out = capsys.readouterr().out
        assert shown in out.splitlines()[0] and "sm.count" in out
    assert main(["show", "a1000"]) == 2
    assert "did you mean a100" in capsys.readouterr().err


def test_every_machine_is_found_by_its_own_title() -> None:
    for file in sorted(accelerators_dir().glob("*.toml")):
        machine = load_accelerator(file.stem)
        assert load_accelerator(machine.name).id == machine.id, machine.name


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("rtx3090", "rtx-3090"), ("H100PCIe", "h100-pcie"), ("NVIDIA A100 SXM4 80GB", "a100-sxm4-80gb"),
        ("Orin_Nano", "jetson-orin-nano"),
    ],
)  # fmt: skip
def test_spellings(text: str, found: str) -> None:
    assert load_accelerator(text).id == found
