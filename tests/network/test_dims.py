"""Dimension expressions: grammar, evaluation, bounds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.network.dims import MAX_DIM, check_shape, evaluate, format_shape, parse_dim, parse_shape, symbols_of

TABLE = {"N": 3, "S": 128, "P": 0, "H2": 7}


@pytest.mark.parametrize(
    ("text", "value"),
    [("7", 7), ("N", 3), ("P+S", 128), ("S/2", 64), ("3*N*S", 1152), ("(N+1)*2", 8), ("S-N-1", 124), ("S/N", 42),
     ("S/N*N", 126), ("0-N", -3), ("H2", 7), (" N + 1 ", 4), ("(" * 32 + "N" + ")" * 32, 3)],
)  # fmt: skip
def test_evaluate(text: str, value: int) -> None:
    assert evaluate(parse_dim(text), TABLE) == value


@pytest.mark.parametrize(
    "text",
    ["", " ", "n", "N+", "+N", "-1", "(N", "N)", "N N", "2N", "N**2", "1.5", "N%2", "N//2", "()", "\N{SUPERSCRIPT TWO}",
     "9" * 5000, "N+" * 150 + "N", "(" * 99 + "N" + ")" * 99],
)  # fmt: skip
def test_bad_text_is_one_line(text: str) -> None:
    with pytest.raises(HwsimError) as caught:
        evaluate(parse_dim(text), TABLE)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_unknown_symbol_and_zero_division() -> None:
    with pytest.raises(HwsimError, match="symbol Q"):
        evaluate("Q+1", TABLE)
    with pytest.raises(HwsimError, match="divides by zero"):
        evaluate("N/P", TABLE)


def test_shapes() -> None:
    shape = parse_shape("Nx(P+S)x64")
    assert shape == ("N", "(P+S)", 64)
    assert check_shape(shape, TABLE, "x") == (3, 128, 64)
    assert format_shape(shape) == "Nx(P+S)x64"
    assert parse_shape("") == ()
    assert symbols_of("(P+S)*N") == {"P", "S", "N"}
    assert symbols_of(4) == set()


@pytest.mark.parametrize("shape", [("P",), (0,), ("0-N",), (MAX_DIM + 1,), (2**30, 2**30)])
def test_shapes_out_of_range(shape: tuple[int | str, ...]) -> None:
    with pytest.raises(HwsimError, match="layer 7"):
        check_shape(shape, TABLE, "layer 7")


def test_empty_dimension_where_allowed() -> None:
    assert check_shape(("P", 4), TABLE, "x", allow_empty=True) == (0, 4)


EXPRESSIONS = st.recursive(
    st.sampled_from(["N", "S", "P", "H2"]) | st.integers(0, 9999).map(str),
    lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: f"({t[0]}{t[1]}{t[2]})"),
    max_leaves=8,
)


@settings(deadline=None)
@given(EXPRESSIONS)
def test_grammar_agrees_with_python(text: str) -> None:
    try:
        expected = eval(text.replace("/", "//"), {"__builtins__": {}}, dict(TABLE))
    except ZeroDivisionError:
        with pytest.raises(HwsimError):
            evaluate(parse_dim(text), TABLE)
        return
    assert evaluate(parse_dim(text), TABLE) == expected


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="NSP0129+-*/() xX.\t\u00b2\u0663", max_size=60) | st.text(max_size=30))
def test_fuzz_raises_nothing_else(text: str) -> None:
    try:
        check_shape(parse_shape(text), TABLE, "x")
    except HwsimError as error:
        assert "\n" not in str(error)
