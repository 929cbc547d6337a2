"""Symbolic dimensions: a tensor dimension is an integer or a small expression such as ``N``, ``P+S`` or ``S/2``.

Grammar: integers, upper-case symbols, ``+ - *``, ``/`` (floor division) and parentheses. Expressions never contain a
lower-case ``x``, which separates the dimensions of a shape: ``Nx(P+S)x64``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TypeAlias

from hwsim.errors import HwsimError

Dim: TypeAlias = int | str
Shape: TypeAlias = tuple[Dim, ...]
IntShape: TypeAlias = tuple[int, ...]

MAX_DIM = 2**40
MAX_TEXT, MAX_NESTING = 200, 32
_TOKEN = re.compile(r"\s*([0-9]+|[A-Z][A-Z0-9_]*|[-+*/()])")
# A parsed expression: an int, a symbol, or (operator, left, right).
_Node: TypeAlias = "int | str | tuple[str, _Node, _Node]"


def _check_length(text: str) -> None:
    if len(text) > MAX_TEXT:
        raise HwsimError(f"dimension expression longer than {MAX_TEXT} characters: {text[:40]!r}…")


@lru_cache(maxsize=4096)
def _parse(text: str) -> _Node:
    _check_length(text)
    tokens: list[str] = []
    pos = 0
    while pos < len(text.rstrip()):
        hit = _TOKEN.match(text, pos)
        if hit is None:
            raise HwsimError(f"bad dimension {text!r}: use an integer, a symbol such as N, and + - * / ( )")
        tokens.append(hit.group(1))
        pos = hit.end()
    if not tokens:
        raise HwsimError("empty dimension")
    at = nesting = 0

    def atom() -> _Node:
        nonlocal at, nesting
        if at >= len(tokens):
            raise HwsimError(f"bad dimension {text!r}: it ends early")
        tok = tokens[at]
        at += 1
        if tok == "(":
            nesting += 1
            if nesting > MAX_NESTING:
                raise HwsimError(f"bad dimension {text!r}: more than {MAX_NESTING} brackets inside each other")
            inner = sums()
            if at >= len(tokens) or tokens[at] != ")":
                raise HwsimError(f"bad dimension {text!r}: missing ')'")
            at += 1
            nesting -= 1
            return inner
        if tok.isdigit():
            return int(tok)
        if tok[0].isalpha():
            return tok
        raise HwsimError(f"bad dimension {text!r}: unexpected {tok!r}")

    def chain(ops: str, operand: Callable[[], _Node]) -> _Node:
        nonlocal at
        node = operand()
        while at < len(tokens) and tokens[at] in ops:
            op = tokens[at]
            at += 1
            node = (op, node, operand())
        return node

    def products() -> _Node:
        return chain("*/", atom)

    def sums() -> _Node:
        return chain("+-", products)

    node = sums()
    if at != len(tokens):
        raise HwsimError(f"bad dimension {text!r}: unexpected {tokens[at]!r}")
    return node


def _evaluate(node: _Node, symbols: Mapping[str, int], text: str) -> int:
    if isinstance(node, int):
        return node
    if isinstance(node, str):
        if node not in symbols:
            raise HwsimError(f"dimension {text!r} uses symbol {node}, which this network does not declare")
        return symbols[node]
    op, left, right = node
    a, b = _evaluate(left, symbols, text), _evaluate(right, symbols, text)
    if op == "+":
        return a + b
    if op == "-":
        return a - b
    if op == "*":
        return a * b
    if b == 0:
        raise HwsimError(f"dimension {text!r} divides by zero")
    return a // b


def evaluate(dim: Dim, symbols: Mapping[str, int]) -> int:
    """Return the integer value of ``dim`` under ``symbols``; raise HwsimError for unknown symbols or bad text."""
    if isinstance(dim, int):
        return dim
    return _evaluate(_parse(dim), symbols, dim)


def symbols_of(dim: Dim) -> set[str]:
    """Return the names of the symbols used in ``dim``."""
    if isinstance(dim, int):
        return set()
    found: set[str] = set()
    stack: list[_Node] = [_parse(dim)]
    while stack:
        node = stack.pop()
        if isinstance(node, str):
            found.add(node)
        elif isinstance(node, tuple):
            stack += node[1:]
    return found


def check_shape(shape: Shape, symbols: Mapping[str, int], where: str, *, allow_empty: bool = False) -> IntShape:
    """Return ``shape`` as integers; raise HwsimError when a dimension is negative, zero or absurdly large."""
    out = tuple(evaluate(d, symbols) for d in shape)
    total = 1
    for text, value in zip(shape, out, strict=True):
        low = 0 if allow_empty else 1
        if value < low or value > MAX_DIM:
            raise HwsimError(f"{where}: dimension {text} = {value} is not between {low} and {MAX_DIM}")
        total *= max(value, 1)
    if total > 2**48:
        raise HwsimError(f"{where}: shape {format_shape(shape)} has {total} elements, more than 2^48")
    return out


def parse_dim(text: str) -> Dim:
    """Return ``text`` as an int when it is one, else as a checked expression string."""
    text = text.strip()
    _check_length(text)
    if text.isascii() and text.isdigit():
        return int(text)
    _parse(text)
    return text


def parse_shape(text: str) -> Shape:
    """Return the shape written as ``Nx64x112x112``; an empty text is a scalar."""
    text = text.strip()
    return tuple(parse_dim(part) for part in text.split("x")) if text else ()


def format_shape(shape: Shape) -> str:
    """Write a shape as ``Nx64x112x112``."""
    return "x".join(str(d) for d in shape)
