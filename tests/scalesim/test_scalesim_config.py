"""Configuration files: every form SCALE-Sim ships, and anything else in one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.scalesim import Config, parse_config, read_config

FULL = """[general]
run_name = scale_example_run_32x32_ws
[architecture_presets]
ArrayHeight:    32
ArrayWidth:     16
IfmapSramSzkB:   64
FilterSramSzkB:  65
OfmapSramSzkB:   66
IfmapOffset:    0
FilterOffset:   10000000
OfmapOffset:    20000000
Bandwidth : 10,20
Dataflow : ws
MemoryBanks:   1
[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 11
IfmapSRAMBankNum: 1
IfmapSRAMBankPort: 2
FilterCustomLayout: True
FilterSRAMBankBandwidth: 12
FilterSRAMBankNum: 3
FilterSRAMBankPort: 4
[sparsity]
SparsitySupport : true
SparseRep : csr
OptimizedMapping : True
BlockSize : 8
RandomNumberGeneratorSeed : 41
[run_presets]
InterfaceBandwidth: USER
UseRamulatorTrace: True
"""
SECTIONS = ("[layout]", "[sparsity]", "[run_presets]")


def without(section: str) -> str:
    start = FULL.index(section)
    end = FULL.find("\n[", start) + 1
    return FULL[:start] + (FULL[end:] if end else "")


def test_every_key_is_read() -> None:
    assert parse_config(FULL, source="x.cfg") == Config(
        run_name="scale_example_run_32x32_ws",
        array_h=32,
        array_w=16,
        ifmap_sram_kb=64,
        filter_sram_kb=65,
        ofmap_sram_kb=66,
        dataflow="ws",
        mode="USER",
        bandwidths=(10, 20),
        ramulator=True,
        ifmap_bank_bandwidth=11,
        ifmap_bank_num=1,
        ifmap_bank_port=2,
        filter_custom_layout=True,
        filter_bank_bandwidth=12,
        filter_bank_num=3,
        filter_bank_port=4,
        sparsity=True,
        sparse_rep="csr",
        optimized_mapping=True,
        block_size=8,
        seed=41,
        source="x.cfg",
    )
    assert parse_config(FULL).notes == ()


@pytest.mark.parametrize("section", SECTIONS)
def test_sections_the_tool_insists_on_may_be_missing(section: str) -> None:
    config = parse_config(without(section))
    assert any(section in note and "missing" in note for note in config.notes)
    default = Config()
    if section == "[layout]":
        assert (config.ifmap_bank_bandwidth, config.filter_custom_layout) == (10, False)
    if section == "[sparsity]":
        assert config.sparsity is default.sparsity is False
    if section == "[run_presets]":
        assert (config.mode, config.ramulator) == ("CALC", False)


def test_a_missing_ramulator_key_is_noted() -> None:
    config = parse_config(FULL.replace("UseRamulatorTrace: True\n", ""))
    assert not config.ramulator
    assert config.notes == ("[run_presets] UseRamulatorTrace is missing: False assumed",)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "ArrayHeight:    32",
            "ArrayHeight: tall",
            "x.cfg, [architecture_presets] ArrayHeight: expected a whole number",
        ),
        ("ArrayHeight:    32", "ArrayHeight: 0", "[architecture_presets] ArrayHeight: 0 is outside 1"),
        ("ArrayHeight:    32", "ArrayHieght: 32", "ArrayHeight: missing; did you mean arrayhieght"),
        ("Dataflow : ws", "Dataflow : rs", "Dataflow: expected os or ws or is, found 'rs'"),
        ("Dataflow : ws\n", "", "Dataflow: missing"),
        ("Bandwidth : 10,20", "Bandwidth : fast", "Bandwidth: expected words per cycle"),
        ("Bandwidth : 10,20", "Bandwidth :", "Bandwidth: empty"),
        ("InterfaceBandwidth: USER", "InterfaceBandwidth: user", "InterfaceBandwidth: expected CALC or USER"),
        ("SparseRep : csr", "SparseRep : coo", "[sparsity] SparseRep: expected csr or csc or ellpack_block"),
        ("BlockSize : 8", "BlockSize : 33", "BlockSize: 33 is larger than ArrayHeight 32"),
        ("run_name = scale_example_run_32x32_ws", "run_name = ../up", "run_name: '../up' is not usable"),
        ("[architecture_presets]", "[architecture]", "no section [architecture_presets]; did you mean architecture"),
        ("[general]", "[general", "not an INI file"),
        ("SparsitySupport : true", "SparsitySupport : maybe", "SparsitySupport: expected True or False"),
    ],
)
def test_errors_name_file_section_and_key(old: str, new: str, expected: str) -> None:
    assert old in FULL
    with pytest.raises(HwsimError) as caught:
        parse_config(FULL.replace(old, new), source="x.cfg")
    assert expected in str(caught.value)
    assert "x.cfg" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(HwsimError, match="cannot read configuration"):
        read_config(tmp_path / "absent.cfg")
    with pytest.raises(HwsimError, match="cannot read configuration"):
        read_config(tmp_path)
    with pytest.raises(HwsimError, match="cannot read configuration"):
        read_config("a\0b")
    large = tmp_path / "large.cfg"
    large.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(HwsimError, match="larger than"):
        read_config(large)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutated_configurations_never_crash(data: st.DataObject) -> None:
    text = FULL
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        stop = data.draw(st.integers(start, min(len(text), start + 12)))
        text = text[:start] + data.draw(st.text(max_size=8)) + text[stop:]
    try:
        parse_config(text)
    except HwsimError as error:
        assert "\n" not in str(error)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_a_configuration_or_a_clear_error(text: str) -> None:
    try:
        parse_config(text)
    except HwsimError as error:
        assert "\n" not in str(error)
