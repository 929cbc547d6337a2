"""Quantities in text: exact in, readable out, dimension checked."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.units import DIMENSIONS, format_quantity, parse


@pytest.mark.parametrize(
    ("text", "of", "value"),
    [
        ("940 MHz", "frequency", 940e6),
        ("16 GiB", "bytes", 16 * 2**30),
        ("450 GB/s", "bandwidth", 450e9),
        ("500 Gb/s", "bandwidth", 62.5e9),
        ("500 Gbps", "bandwidth", 62.5e9),
        ("1.8 V", "voltage", 1.8),
        ("7 nm", "node", 7.0),
        ("12 pJ/bit", "energy_per_bit", 12e-12),
        ("16 pJ/B", "energy_per_bit", 2e-12),
        ("350 W", "power", 350.0),
        ("1.2 us", "time", 1.2e-6),
        ("1.2 µs", "time", 1.2e-6),
        ("3.22 USD/h", "price_rate", 3.22),
        ("0.12 $/kWh", "energy_price", 0.12),
        ("92 TOPS", "op_rate", 92e12),
        ("123 TFLOP/s", "op_rate", 123e12),
        ("50 %", "ratio", 0.5),
        ("1e3Hz", "frequency", 1000.0),
        ("1_000 Hz", "frequency", 1000.0),
        ("300/s", "rate", 300.0),
        ("331 mm2", "area", 331e-6),
        ("-3 W", "power", -3.0),
    ],
)
def test_parse_is_exact(text: str, of: str, value: float) -> None:
    assert parse(text, of) == value


@pytest.mark.parametrize(
    ("text", "of", "words"),
    [
        ("450 Gb", "bandwidth", ["not bytes per second", "Gb/s", '"450 GB/s"']),
        ("16 GiB", "frequency", ["not a frequency", "it is bytes", '"940 MHz"']),
        ("940", "frequency", ["no unit"]),
        ("940 Mhz", "frequency", ["did you mean MHz"]),
        ("nan Hz", "frequency", ["not a frequency"]),
        ("inf W", "power", ["not a power"]),
        ("1e999 Hz", "frequency", ["too large"]),
        ("", "time", ["not a time"]),
        ("0x10 B", "bytes", ["not bytes"]),
        ("1 000 Hz", "frequency", ["not a frequency"]),
        ("1,5 GHz", "frequency", ["not a frequency"]),
        ("٣ Hz", "frequency", []),
    ],
)
def test_bad_quantities_say_what_would_work(text: str, of: str, words: list[str]) -> None:
    with pytest.raises(HwsimError) as error:
        parse(text, of)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("value", "of", "text"),
    [
        (940e6, "frequency", "940 MHz"),
        (16 * 2**30, "bytes", "16 GiB"),
        (1536, "bytes", "1.5 KiB"),
        (34.4e9, "bytes", "34.4 GB"),
        (1.2e12, "bandwidth", "1.2 TB/s"),
        (999.96e6, "frequency", "1 GHz"),
        (0.0, "time", "0 s"),
        (5.5e-4, "time", "550 us"),
        (math.inf, "bandwidth", "unlimited"),
        (3.22, "price_rate", "3.22 USD/h"),
    ],
)
def test_format_reads_well(value: float, of: str, text: str) -> None:
    assert format_quantity(value, of) == text


@given(st.sampled_from(sorted(DIMENSIONS)), st.floats(1e-12, 1e15), st.integers(2, 17))
def test_formatted_text_parses_back(of: str, value: float, digits: int) -> None:
    back = parse(format_quantity(value, of, digits), of)
    assert back == pytest.approx(value, rel=10.0 ** (1 - digits) if digits < 17 else 1e-15)


@given(st.sampled_from(sorted(DIMENSIONS)), st.text(max_size=60))
def test_any_text_is_a_number_or_a_clear_error(of: str, text: str) -> None:
    try:
        assert math.isfinite(parse(text, of))
    except HwsimError as error:
        assert str(error).isprintable()


def test_every_dimension_parses_its_own_example_and_prints_in_its_own_units() -> None:
    for name, dimension in DIMENSIONS.items():
        assert parse(dimension.example, name) > 0
        assert all(unit in dimension.units for unit in dimension.printed)
        assert dimension.base in dimension.units or not dimension.base


def test_no_unit_means_two_things_in_one_dimension() -> None:
    for dimension in DIMENSIONS.values():
        assert all(factor > 0 for factor in dimension.units.values())
    assert parse("1 MB", "bytes") == 1e6 != parse("1 MiB", "bytes")
    assert parse("1 mW", "power") == 1e-3 != parse("1 MW", "power")
