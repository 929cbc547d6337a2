"""Fitted constants: bounded, explained, per family and architecture."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwsim.data import accelerators_dir
from hwsim.errors import HwsimError
from hwsim.machine import FAMILIES, load_constants

GOOD = """\
[constant.ramp]
value = ["1.5 us", "fitted: by a script, on rows", "0.1 us", "10 us"]
dimension = "time"
means = "time until the pipeline is full"

[constant.share]
value = [0.6, "assumed: half and a bit", 0.2, "100 %"]
means = "share of the peak that is reached"

[architecture.tpu-v3.ramp]
value = ["2 us", "fitted: by a script, on rows", "0.1 us", "10 us"]
dimension = "time"
means = "time until the pipeline is full"
"""


def test_constants_are_base_units_with_bounds_and_meaning(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(GOOD)
    constants = load_constants("systolic", file=file)
    assert dict(constants) == {"ramp": 1.5e-6, "share": 0.6}
    ramp = constants.table["ramp"]
    assert (ramp.low, ramp.high, ramp.unit, ramp.kind) == (1e-7, 1e-5, "s", "derived")
    assert constants.table["share"].high == 1.0 and constants.table["share"].kind == "assumed"
    assert load_constants("systolic", "tpu-v3", file)["ramp"] == 2e-6
    assert load_constants("systolic", "tpu-v4", file)["ramp"] == 1.5e-6
    with pytest.raises(HwsimError, match="no constant 'rampe'; did you mean ramp"):
        constants["rampe"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('["1.5 us"', '["15 us"', ["constant.ramp", "out of range", "10 us"]),
        ('"0.1 us", "10 us"', '"10 us", "0.1 us"', ["low bound", "above"]),
        (', "0.1 us", "10 us"', "", ["must be [value, source, low, high]"]),
        ('dimension = "time"', 'dimension = "tyme"', ["dimension", "time"]),
        ('means = "time until the pipeline is full"', "", ["must say what the constant stands for"]),
        ("means", "menas", ["no such key 'menas'", "means"]),
        ("[constant.ramp]", "[constants.ramp]", ["constants: no such key", "constant"]),
        ('"1.5 us"', '"1.5 MHz"', ["not a time"]),
        ('"fitted: by a script, on rows"', '"fitted"', ["gives no reason"]),
        ("[constant.ramp]", "[constant.Ramp]", ["lower case"]),
        ("[architecture.tpu-v3.ramp]", "[architecture.tpu-v3.ramp.more]", ["architecture.tpu-v3.ramp"]),
    ],
)
def test_a_wrong_constant_is_refused(tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    assert old in GOOD
    file = tmp_path / "c.toml"
    file.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(HwsimError) as error:
        load_constants("systolic", file=file)
    for word in words:
        assert word in str(error.value)


def test_every_shipped_constants_file_loads_and_belongs_to_a_family() -> None:
    files = list((accelerators_dir() / "constants").glob("*.toml"))
    assert {f.stem for f in files} <= {
        *FAMILIES,
        "power",
        "dla",
        "link",
    } and files  # of all families; of an engine beside a GPU; between devices
    for file in files:
        for constant in load_constants(file.stem).table.values():
            assert constant.low <= constant.value <= constant.high


def test_a_family_without_a_file_has_no_constants() -> None:
    assert len(load_constants("none-such")) == 0
