"""Which arithmetic an instruction of a machine performs: the parameter table, and how a caller names a row of it.

`tensor_core.csv` has one line per (architecture, instruction, input, output) with what the instruction computes and
where that is known from; its columns are the fields of `Rule`. `devices.csv` maps devices to architectures.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hwsim.errors import HwsimError, near
from hwsim.formats import get_format

_HERE = Path(__file__).resolve().parent
_FAMILIES = {"mma": "mma.sync", "wgmma": "wgmma", "tcgen05": "tcgen05.mma"}
_FILLER = {"sync", "async", "aligned", "mma", "block_scale", "kind", "row", "col", "popc", "satfinite", "sp"}
_BINARY = ("b1", "u1", "bit", "binary")


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table: an instruction of an architecture and its arithmetic.

    ``inputs`` may be mixed freely between a and b. ``rule`` is the algorithm: "fused" (blocks of ``block_products``
    products and the running sum aligned and truncated to ``fraction_bits`` below the largest exponent, then rounded),
    "fp16-pairs" (fp8 run as two fp16 instructions, c added last), "groups-of-16" (4-bit block scales), "fma"
    (sequential fused multiply-add), "integer" or "binary". ``e_zero`` is the exponent of a zero term. ``rounding``:
    "rz" to the output format, "rz13" to 13 fraction bits, "rne"; for "binary" the bit operations. ``scales``:
    format/block. ``evidence``: "recorded: ..." on silicon, "vectors" (published software model), "definition" (the
    instruction set says so) or "assumed: ...".
    """

    arch: str
    instruction: str
    kind: str
    shapes: tuple[str, ...]
    inputs: tuple[str, ...]
    output: str
    c_formats: tuple[str, ...]
    rule: str
    block_products: int
    fraction_bits: int
    e_zero: int
    rounding: str
    scales: tuple[tuple[str, int], ...]
    evidence: str
    source: str

    @property
    def depths(self) -> tuple[int, ...]:
        """K of each shape, in the table's order (the one a library would use first)."""
        return tuple(int(shape.rpartition("k")[2]) for shape in self.shapes)


@cache
def rules() -> tuple[Rule, ...]:
    """Every line of the table."""
    with (_HERE / "tensor_core.csv").open(encoding="utf-8", newline="") as handle:
        return tuple(_rule(line) for line in csv.DictReader(handle))


@cache
def devices() -> dict[str, str]:
    """Architecture of each device name; architectures name themselves."""
    with (_HERE / "devices.csv").open(encoding="utf-8", newline="") as handle:
        known = {line["device"]: line["arch"] for line in csv.DictReader(handle)}
    return {rule.arch: rule.arch for rule in rules()} | known


def architecture(profile: str) -> str:
    """Architecture of a device or architecture name; a longer name (``a100-sxm4-80gb``) is known by its beginning.

    Raises HwsimError with near matches for an unknown name.
    """
    name = re.sub(r"[\s_]+", "-", profile.strip().lower())
    name = re.sub(r"^(nvidia|geforce|tesla)-", "", name)
    name = re.sub(r"^rtx(?=\d)", "rtx-", name)
    name = re.sub(r"^sm(?=\d)", "sm-", name)
    known = devices()
    parts = name.split("-")
    for end in range(len(parts), 0, -1):
        arch = known.get("-".join(parts[:end]))
        if arch is not None:
            return arch
    archs = ", ".join(dict.fromkeys(known.values()))
    raise HwsimError(f"no Tensor Core arithmetic for profile {profile!r}{near(name, known)}; architectures: {archs}")


def input_format(name: str) -> str:
    """Canonical name of an operand format; ``b1`` is the packed binary one."""
    return "b1" if name.lower() in _BINARY else get_format(name).name


def find_rule(
    profile: str,
    inputs: tuple[str, str],
    output: str,
    instruction: str | None = None,
    scale: str | None = None,
    *,
    depth: int | None = None,
    block: float | None = None,
    c_format: str | None = None,
) -> tuple[Rule, str | None]:
    """Return the table's line for a machine, its operand formats and its output, and the shape if one was named.

    ``instruction`` names what the machine has two answers for: a family ("mma.sync", "wgmma", "tcgen05.mma"), a kind
    ("kind::mxf4nvf4"), a shape ("m8n8k4"), or several joined by dots, up to a whole PTX name. Without it the first
    line wins: the machine's native, fastest path; with ``depth`` the first with a shape of that K, then the first that
    can take it, and with ``c_format`` one that adds that. ``scale`` is "" for an instruction without block scales, a
    format for one with (``block`` elements to a scale, if known), None for either. Raises HwsimError naming what exists.
    """
    arch = architecture(profile)
    a, b = inputs
    family, kind, shape, named = _parse(instruction)
    of_arch = [r for r in rules() if r.arch == arch]
    found = [r for r in of_arch if a in r.inputs and b in r.inputs]
    if not found:
        offers = dict.fromkeys(f for r in of_arch for f in r.inputs)
        wanted = a if a == b else f"{a} with {b}"
        raise HwsimError(
            f"{profile}: the Tensor Cores of {arch} have no {wanted} instruction; they take {_list(offers)}"
        )
    by_output = [r for r in found if r.output == output]
    if not by_output:
        raise HwsimError(f"{profile}: {a} gives {_list(dict.fromkeys(r.output for r in found))}, not {output}")
    chosen = [r for r in by_output if family in (None, r.instruction) and kind in (None, r.kind)]
    chosen = [r for r in chosen if shape is None or any(_same_shape(shape, s) for s in r.shapes)]
    if scale is not None:
        chosen = [r for r in chosen if (not r.scales if scale == "" else any(s == scale for s, _ in r.scales))]
    if any(f not in (*inputs, output, *(s for r in chosen for s, _ in r.scales), *_c(chosen)) for f in named):
        raise HwsimError(f"instruction {instruction!r} names formats other than {a}, {b} → {output}")
    if not chosen:
        names = dict.fromkeys(
            f"{r.instruction}{'.kind::' + r.kind if r.kind else ''} {'/'.join(r.shapes)}"
            + (" with scales" if r.scales else "")
            for r in by_output
        )
        asked = instruction or ("with block scales " + scale if scale else "without block scales")
        raise HwsimError(f"{profile}: no instruction {asked!r} for {a} × {b} → {output}; there is {_list(names)}")
    if c_format is not None:
        chosen = [r for r in chosen if c_format in r.c_formats] or chosen
    if block is not None:
        chosen = [r for r in chosen if any(s == scale and block == g for s, g in r.scales)] or chosen
    if depth is not None:
        exact = [r for r in chosen if depth in r.depths]
        chosen = exact or [r for r in chosen if max(r.depths) >= depth] or chosen
    return chosen[0], shape


def _c(chosen: list[Rule]) -> list[str]:
    return [c for r in chosen for c in r.c_formats]


def _parse(instruction: str | None) -> tuple[str | None, str | None, str | None, list[str]]:
    """Family, kind, shape and formats named by an instruction text."""
    family: str | None = None
    kind: str | None = None
    shape: str | None = None
    named: list[str] = []
    if instruction is None:
        return family, kind, shape, named
    if not isinstance(instruction, str):
        raise HwsimError(f"instruction {instruction!r}: expected text such as mma.sync or m16n8k16")
    kinds = {r.kind for r in rules() if r.kind}
    for token in re.split(r"[.|\s:]+", instruction.strip().lower()):
        if token in _FAMILIES and family is None:
            family = _FAMILIES[token]
        elif re.fullmatch(r"m\d+n(\d+|n)k\d+", token):
            shape = token
        elif token in kinds and ((kind is None and "kind" in instruction.lower()) or token.startswith("mx")):
            kind = token
        elif token in _FILLER or not token or re.fullmatch(r"block\d+|scale_vec|[124]x|xor|and|i4", token):
            continue
        elif token not in {r.arch for r in rules()} and token not in ("ada lovelace", "lovelace", "rtx"):
            try:
                named.append(input_format(token))
            except HwsimError:
                families = ", ".join(_FAMILIES.values())
                raise HwsimError(
                    f"instruction {instruction!r}: {token!r} is no instruction family ({families}), kind, shape or format"
                ) from None
    return family, kind, shape, named


def _same_shape(asked: str, known: str) -> bool:
    """Whether K agrees, and m and n where the table gives them (they do not change the arithmetic)."""
    if asked.rpartition("k")[2] != known.rpartition("k")[2]:
        return False
    return known.startswith(("m64", "m128")) or asked == known


def _list(names: object) -> str:
    return ", ".join(names) if isinstance(names, dict | list | tuple) else str(names)


def _rule(line: dict[str, str]) -> Rule:
    def number(key: str) -> int:
        return int(line[key] or 0)

    return Rule(
        arch=line["arch"],
        instruction=line["instruction"],
        kind=line["kind"],
        shapes=tuple(line["shapes"].split()),
        inputs=tuple(line["inputs"].split()),
        output=line["output"],
        c_formats=tuple(line["c"].split()),
        rule=line["rule"],
        block_products=number("block_products"),
        fraction_bits=number("fraction_bits"),
        e_zero=number("e_zero"),
        rounding=line["rounding"],
        scales=tuple((s.split("/")[0], int(s.split("/")[1])) for s in line["scales"].split()),
        evidence=line["evidence"],
        source=line["source"],
    )
