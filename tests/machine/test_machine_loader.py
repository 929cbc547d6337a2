"""One file in, a typed machine or all of its problems out."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from hwsim.errors import HwsimError
from hwsim.machine import load_accelerator, vary

Write = Callable[..., Path]


def refused(file: Path | str) -> str:
    with pytest.raises(HwsimError) as error:
        load_accelerator(file)
    message = str(error.value)
    assert message.isprintable()
    return message


def test_a_minimal_file_gives_typed_base_units(write: Write) -> None:
    acc = load_accelerator(write())
    assert (acc.id, acc.name, acc.family) == ("toy", "toy", "systolic")
    assert acc.matrix_unit.clock_hz == 1e9
    assert acc.matrix_unit.rates == {"int8": 1.0}
    assert acc.memory["dram"].bandwidth_bytes_per_s == 10e9
    assert acc.memory["dram"].capacity_bytes == 2**30
    assert acc.memory["dram"].read_bytes_per_s == math.inf
    assert acc.peak_ops_per_s("int8") == 2 * 16 * 1e9
    assert acc.peak_ops_per_s("bf16") == 0.0
    assert acc.vector_unit.ops_per_clk == 4
    assert acc.vector_unit.rates == {"fp32": 1.0}
    assert acc.dram.name == "dram"
    assert acc.chips == 1
    assert acc.target == "toy"


def test_every_number_keeps_its_source_and_kind(write: Write) -> None:
    values = load_accelerator(write()).values
    assert values["memory.dram.bandwidth"].source == "derived: 10 B per clock"
    kinds = {path: v.kind for path, v in values.items()}
    assert kinds["memory.dram.bandwidth"] == "derived"
    assert kinds["vector_unit.lanes"] == "assumed"
    assert kinds["matrix_unit.rows"] == "document"
    assert [v.path for v in load_accelerator(write()).assumed] == ["vector_unit.lanes"]
    row = load_accelerator(write()).describe()[-1]
    assert row == {
        "path": "memory.dram.bandwidth", "value": 10e9, "unit": "B/s", "text": "10 GB/s",
        "source": "derived: 10 B per clock", "kind": "derived", "file": row["file"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('["10 GB/s", "derived: 10 B per clock"]', '["10 Gb", "paper §1"]', ["dram.bandwidth", "'10 Gb'", "450 GB/s"]),
        ("rows = [4,", "row = [4,", ["matrix_unit.row: no such key", "rows", "matrix_unit: missing rows"]),
        ('rows = [4, "paper §1"]', "rows = 4", ["matrix_unit.rows: 4 has no source"]),
        ('rows = [4, "paper §1"]', "rows = [4]", ["pair of value and source"]),
        ('rows = [4, "paper §1"]', 'rows = [4, ""]', ["matrix_unit.rows", "says nothing"]),
        ('rows = [4, "paper §1"]', 'rows = [4, "assumed"]', ["gives no reason"]),
        ('rows = [4, "paper §1"]', 'rows = [0, "paper §1"]', ["out of range", "between 1 and 65536"]),
        ('rows = [4, "paper §1"]', 'rows = [-4, "paper §1"]', ["out of range"]),
        ('rows = [4, "paper §1"]', 'rows = [4.5, "paper §1"]', ["not a whole number"]),
        ('rows = [4, "paper §1"]', 'rows = [true, "paper §1"]', ["not a whole number"]),
        ('rows = [4, "paper §1"]', 'rows = [nan, "paper §1"]', ["whole number"]),
        ('rows = [4, "paper §1"]', f'rows = [{10**400}, "paper §1"]', ["matrix_unit.rows"]),
        ('["1 GHz", "paper §1"]', '[1e9, "paper §1"]', ["matrix_unit.clock", "no unit", "940 MHz"]),
        ('["1 GHz", "paper §1"]', '["100 GHz", "paper §1"]', ["between 1 kHz and 10 GHz"]),
        ('"weight-stationary"', '"weight-stationery"', ["matrix_unit.dataflow", "did you mean weight-stationary"]),
        ("[false,", '["no",', ["neither true nor false"]),
        ("int8 =", "int9 =", ["matrix_unit.rates.int9", "int8"]),
        ('family = "systolic"', 'family = "systolik"', ["family", "did you mean systolic"]),
        ('family = "systolic"\n', "", ["family: missing"]),
        ("[matrix_unit]", "[matrix_units]", ["matrix_units: no such key", "matrix_unit"]),
        ("[memory.dram]", "[memory]", ["memory.kind", "[memory.<name>]"]),
        ('kind = "dram"\n', "", ["memory.dram: missing kind"]),
        ('"1 GiB"', '"1.5 B"', ["whole number of bytes"]),
        ('name = "toy"', 'name = ["toy"]', ["name: must be one line of text"]),
        ('name = "toy"', 'name = "to\\ny"', ["name: must be one line of text"]),
    ],
)  # fmt: skip
def test_a_wrong_line_is_named_with_what_would_work(write: Write, old: str, new: str, words: list[str]) -> None:
    message = refused(write("toy", (old, new)))
    assert "toy.toml" in message
    for word in words:
        assert word in message


def test_all_problems_are_reported_at_once(write: Write) -> None:
    message = refused(write("toy", ("rows = [4,", "row = [4,"), ('"10 GB/s"', '"10 GHz"'), ("[1,", "[0,")))
    assert message.startswith("4 problems in ")
    for path in ("chip.cores: 0", "matrix_unit.row: no", "memory.dram.bandwidth: ", "matrix_unit: missing rows"):
        assert path in message


def test_a_hostile_key_cannot_break_the_line(write: Write) -> None:
    assert "memory.dram.a\\nb: no such key" in refused(write(more='"a\\nb" = 1\n'))


def test_a_bad_value_is_not_reported_as_missing_too(write: Write) -> None:
    message = refused(write("toy", ("rows = [4,", "rows = [0,")))
    assert "problems" not in message and "missing" not in message
    assert "missing" not in refused(write("toy", ('cores = [1, "paper §1"]', "cores = 1")))


def test_a_flood_of_problems_is_cut_short(write: Write) -> None:
    message = refused(write(more="".join(f"k{i} = 1\n" for i in range(500))))
    assert message.startswith("500 problems") and message.endswith("and 400 more")


@pytest.mark.parametrize("text", ["a = [", "[" * 50_000, "a = 1\na = 2", "x = " + "9" * 5000, "\0", "a" * 300_000])
def test_what_is_not_toml_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    assert "bad.toml" in refused(file)


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b'name = "\xff"')
    assert "UTF-8" in refused(tmp_path / "latin.toml")
    assert "cannot be read" in refused(tmp_path / "missing.toml")
    assert "no accelerator file" in refused(str(tmp_path / "missing.toml"))


def test_inheritance_overrides_only_what_is_given(write: Write) -> None:
    base = load_accelerator(write())
    child = load_accelerator(
        write("child", text='name = "child"\nbased_on = "toy"\n\n[matrix_unit]\nrows = [8, "paper §2"]\n')
    )
    assert child.matrix_unit.rows == 8 and child.matrix_unit.cols == base.matrix_unit.cols
    assert child.lineage == ("toy", "child")
    changed = {p for p in child.values if child.values[p] != base.values[p]}
    assert changed == {"matrix_unit.rows"}
    assert child.values["matrix_unit.rows"].source == "paper §2"


def test_without_drops_what_was_inherited(write: Write) -> None:
    write(more='\n[memory.sram]\nkind = "sram"\nscope = "core"\ncapacity = ["1 MiB", "paper §1"]\n')
    child = load_accelerator(write("child", text='based_on = "toy"\nwithout = ["memory.sram"]\n'))
    assert list(child.memory) == ["dram"]
    assert "'memory.sran' is not inherited" in refused(
        write("bad", text='based_on = "toy"\nwithout = ["memory.sran"]\n')
    )


def test_notes_are_inherited_and_may_be_dropped(write: Write) -> None:
    write("toy", ('name = "toy"', 'name = "toy"\nnotes = ["no vector unit"]'))
    more = load_accelerator(write("more", text='based_on = "toy"\nnotes = ["no vector unit", "no host"]\n'))
    assert more.notes == ("no vector unit", "no host")
    less = load_accelerator(write("less", text='based_on = "toy"\nwithout = ["notes"]\nnotes = ["no host"]\n'))
    assert less.notes == ("no host",)


def test_levels_keep_their_order_and_new_ones_follow(write: Write) -> None:
    more = '\n[memory.sram]\nkind = "sram"\nscope = "core"\ncapacity = ["1 MiB", "paper §1"]\n'
    assert list(load_accelerator(write(more=more)).memory) == ["dram", "sram"]


def test_a_circle_of_files_is_refused(write: Write) -> None:
    write("a", text='based_on = "b"\n')
    b = write("b", text='based_on = "a"\n')
    assert "goes in a circle (b -> a -> b)" in refused(b)


def test_a_base_must_exist_and_cannot_leave_the_folder(write: Write) -> None:
    assert "did you mean tpu-v4" in refused(write("x", text='based_on = "tpu-v44"\n'))
    assert "must be the name" in refused(write("x", text='based_on = "../x"\n'))
    assert "must be the name" in refused(write("x", text="based_on = 3\n"))


def test_a_library_file_may_be_a_base(write: Write) -> None:
    acc = load_accelerator(
        write("x", text='based_on = "tpu-v4"\n\n[memory.hbm]\nbandwidth = ["2 TB/s", "assumed: HBM3"]\n')
    )
    assert acc.memory["hbm"].bandwidth_bytes_per_s == 2e12
    assert acc.matrix_unit.rows == 128


def test_problems_of_a_base_name_its_file(write: Write) -> None:
    write("toy", ("rows = [4,", "rows = [0,"))
    message = refused(write("child", text='based_on = "toy"\n'))
    assert "child.toml" in message and "toy.toml) matrix_unit.rows" in message


def test_modes_replace_numbers(write: Write) -> None:
    file = write(more='\n[mode.eco.matrix_unit]\nclock = ["500 MHz", "manual §2"]\n')
    assert load_accelerator(file).matrix_unit.clock_hz == 1e9
    eco = load_accelerator(f"{file}:eco")
    assert eco.matrix_unit.clock_hz == 5e8 and eco.mode == "eco" and eco.modes == ("eco",)
    assert eco.digest != load_accelerator(file).digest
    assert "no mode 'echo'; did you mean eco?" in refused(f"{file}:echo")
    assert "mode.eco.matrix_unit.clok" in refused(write(more='\n[mode.eco.matrix_unit]\nclok = ["1 GHz", "manual"]\n'))


def test_the_default_mode_applies_unless_another_is_named(write: Write) -> None:
    more = '\n[mode.eco.matrix_unit]\nclock = ["500 MHz", "manual §2"]\n'
    more += '[mode.max.matrix_unit]\nclock = ["2 GHz", "manual §2"]\n'
    file = write("toy", ('name = "toy"', 'name = "toy"\ndefault_mode = "eco"'), more=more)
    assert load_accelerator(file).matrix_unit.clock_hz == 5e8
    assert load_accelerator(f"{file}:max").matrix_unit.clock_hz == 2e9


def test_links_replace_the_host(write: Write) -> None:
    more = '\n[host]\nname = "box"\nbandwidth = ["1 GB/s", "manual"]\n'
    more += '[link.usb2]\nbandwidth = ["30 MB/s", "measured: by us"]\n'
    file = write(more=more)
    assert load_accelerator(f"{file}@box").host.bandwidth_bytes_per_s == 1e9
    slow = load_accelerator(f"{file}@box/usb2")
    assert slow.host.bandwidth_bytes_per_s == 30e6 and slow.host.name == "box" and slow.link_name == "usb2"
    assert slow.target.endswith("@box/usb2")
    assert slow.values["host.bandwidth"].source == "measured: by us", "the report must name the link that was used"
    assert slow.digest != load_accelerator(f"{file}@box").digest
    assert "did you mean usb2" in refused(f"{file}@box/usb3")
    assert "no accelerator 'bax'" in refused(f"{file}@bax")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ('\n[price]\nhourly = ["1 USD/h", "web"]\n', ["source 'web' says nothing"]),
        ('\n[price]\nhourly = ["1 USD/h", "shop page"]\n', ["price.date: missing"]),
        ('\n[power]\nidle = ["9 W", "manual"]\nbusy = ["5 W", "manual"]\n', ["power.idle: is more than power.busy"]),
        ('\n[system]\nchips = [8, "manual"]\ndims = [[2, 2], "manual"]\n', ["system.dims: 2x2 is 4, not 8 chips"]),
        ('\n[system]\nchips = [2, "manual"]\nhosts = [4, "manual"]\n', ["more hosts (4) than chips (2)"]),
        ('\n[system]\ndims = [[2, 0], "manual"]\n', ["out of range"]),
        ('\n[memory.sram]\nkind = "sram"\nscope = "core"\n', ["memory.sram: missing capacity"]),
        ('\n[memory.SRAM]\nkind = "sram"\n', ["memory.SRAM", "lower case"]),
        ('\n[mode.eco]\nname = "x"\n', ["mode.eco.name: no such key"]),
        ("\nnotes = 3\n", ["memory.dram.notes: no such key"]),
    ],
)
def test_contradictions_are_refused(write: Write, more: str, words: list[str]) -> None:
    message = refused(write(more=more))
    for word in words:
        assert word in message


def test_varying_checks_like_a_file() -> None:
    acc = load_accelerator("tpu-v4")
    varied = vary(acc, {"matrix_unit.rows": 64, "memory.hbm.bandwidth": "1 TB/s", "matrix_unit.rates.fp8": 2})
    assert varied.matrix_unit.rows == 64 and acc.matrix_unit.rows == 128
    assert varied.memory["hbm"].bandwidth_bytes_per_s == 1e12
    assert varied.rate("fp8") == 2.0
    assert varied.values["matrix_unit.rows"].kind == "assumed"
    assert varied.digest != acc.digest
    for changes, word in (
        ({"matrix_unit.rowz": 1}, "did you mean rows"),
        ({"matrix.rows": 1}, "did you mean matrix_unit"),
        ({"matrix_unit.rows": 0}, "out of range"),
        ({"matrix_unit": 1}, "no such key"),
        ({"memory.hbm.bandwidth": 1e12}, "no unit"),
    ):
        with pytest.raises(HwsimError, match=word):
            vary(acc, changes)


def test_machines_travel_between_processes() -> None:
    acc = load_accelerator("tpu-v4*4")
    back = pickle.loads(pickle.dumps(acc))
    assert back.digest == acc.digest and back.matrix_unit == acc.matrix_unit and back.chips == 4


def test_a_section_of_another_family_is_refused() -> None:
    acc = load_accelerator("tpu-v4")
    with pytest.raises(HwsimError, match="has no \\[sm\\]"):
        acc.section("sm", int)


def test_a_machine_is_its_own_target() -> None:
    acc = load_accelerator("tpu-v4")
    assert load_accelerator(acc) is acc
