"""Precision assignment: which number formats each layer's operands have, and how a machine multiplies them.

A precision is the formats of weights, activations, accumulator, output and key/value cache. A preset names a common one
(``int8`` is 8-bit weights and activations with 32-bit accumulation); endings change it: ``w4a16g64`` has a scale for every
64 weights, ``bf16kv8`` keeps keys and values in 8 bits. ``nvfp4``, ``mxfp4`` and ``mxfp8`` have an 8-bit scale for every 16 or 32
elements along K, of weights and activations. None keeps the network's own formats; a mapping (or text
``int8,classifier*=bf16``) sets it per layer, later patterns winning.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from hwsim.errors import HwsimError, near
from hwsim.formats import FORMATS, get_format
from hwsim.network.graph import Layer, Network

INTEGERS = frozenset(n for n, f in FORMATS.items() if f.kind in ("int", "uint"))
BLOCK_SCALED = ("linear", "expert_linear")  # what libraries have block-scaled kernels for
# Formats of the key/value cache by the name an ending gives them.
KV_FORMATS = {"4": "int4", "8": "int8", "16": "", "int4": "int4", "int8": "int8", "fp8": "e4m3"}
_ENDINGS = re.compile(r"(?P<base>.+?)(?:-?g(?P<group>\d{1,5}))?(?:-?kv(?P<kv>[a-z]*\d+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Precision:
    """Formats of one layer's operands; ``passes`` is how many products of a narrower format make up one (0: machine's).

    ``kv`` is the format keys and values are kept in ("": that of the activations); ``group`` weights along K share a
    scale and a zero point (0: all of an output share a scale); ``block`` elements along K, of weights and of activations,
    share an 8-bit scale (0: none do).
    """

    weights: str
    activations: str
    accumulate: str
    output: str
    passes: int = 0
    kv: str = ""
    group: int = 0
    block: int = 0

    @property
    def weight_only(self) -> bool:
        """Whether weights are stored narrower than what they are multiplied with."""
        return FORMATS[self.weights].width < FORMATS[self.activations].width

    @property
    def cache(self) -> str:
        """The format keys and values are kept in."""
        return self.kv or self.activations

    def scale_bytes(self, elements: int, depth: int) -> int:
        """Bytes of the 16-bit scales (and zero points of a group, as wide as a weight) of ``elements`` weights.

        ``depth`` is their extent along K. None where weights are as wide as activations: folded into the output's scale;
        blocks bring their 8-bit scales.
        """
        if self.block and depth >= 1:
            return elements // depth * -(-depth // self.block)
        if not self.weight_only or depth < 1:
            return 0
        zero = FORMATS[self.weights].width if self.group and self.weights in INTEGERS else 0
        groups = elements // depth * -(-depth // (self.group or depth))
        return -(-groups * (16 + zero) // 8)


PRESETS: dict[str, Precision] = {
    "fp32": Precision("fp32", "fp32", "fp32", "fp32"),
    "fp32x3": Precision("fp32", "fp32", "fp32", "fp32", 3),
    "fp32x6": Precision("fp32", "fp32", "fp32", "fp32", 6),
    "tf32": Precision("tf32", "tf32", "fp32", "fp32"),
    "bf16": Precision("bf16", "bf16", "fp32", "bf16"),
    "fp16": Precision("fp16", "fp16", "fp32", "fp16"),
    "int16": Precision("int16", "int16", "int32", "int16"),
    "int8": Precision("int8", "int8", "int32", "int8"),
    "uint8": Precision("uint8", "uint8", "int32", "uint8"),
    "int4": Precision("int4", "int4", "int32", "int4"),
    "fp8": Precision("e4m3", "e4m3", "fp32", "bf16"),
    "e5m2": Precision("e5m2", "e5m2", "fp32", "bf16"),
    "nvfp4": Precision("e2m1", "e2m1", "fp32", "bf16", block=16),
    "mxfp4": Precision("e2m1", "e2m1", "fp32", "bf16", block=32),
    "mxfp8": Precision("e4m3", "e4m3", "fp32", "bf16", block=32),
    "w8a16": Precision("int8", "bf16", "fp32", "bf16"),
    "w4a16": Precision("int4", "bf16", "fp32", "bf16", group=128),
    "w8a8": Precision("int8", "int8", "int32", "int8"),
    "w8i16": Precision("int8", "int16", "int32", "int16"),
}


def parse_precision(value: str | Mapping[str, str] | None) -> dict[str, Precision] | None:
    """Return layer patterns to precisions in order, or None for the network's own; raise HwsimError for unknown names."""
    if value is None:
        return None
    if isinstance(value, str):
        pairs: dict[str, str] = {}
        for part in value.split(","):
            pattern, eq, name = part.partition("=")
            pairs[pattern.strip() if eq else "*"] = name.strip() if eq else pattern.strip()
    elif isinstance(value, Mapping):
        pairs = dict(value)
    else:
        raise HwsimError(f"precision must be a name or a mapping of layer patterns to names, not {value!r}")
    out: dict[str, Precision] = {}
    for pattern, name in pairs.items():
        if not isinstance(pattern, str) or not isinstance(name, str):
            raise HwsimError(f"precision {pattern!r}: {name!r}: patterns and formats are texts, as {{'fc*': 'int8'}}")
        out[pattern] = named_precision(name)
    return out


def named_precision(name: str) -> Precision:
    """Return the precision of a preset with its endings, as ``w4a16g64kv8``; raises HwsimError for unknown ones."""
    found = PRESETS.get(name.lower())
    if found is not None:
        return found
    match = _ENDINGS.fullmatch(name.lower())
    base = PRESETS.get(match["base"]) if match else None
    if match is None or base is None:
        raise HwsimError(f"unknown precision {name!r}: one of {', '.join(PRESETS)}{near(name, PRESETS)}")
    if match["kv"] is not None and match["kv"] not in KV_FORMATS:
        raise HwsimError(f"precision {name!r}: keys and values are kept in kv{', kv'.join(KV_FORMATS)}")
    if match["group"] is not None and not (base.weight_only and int(match["group"]) >= 8):
        raise HwsimError(
            f"precision {name!r}: groups of 8 or more are for weights narrower than activations, as w4a16g64"
        )
    group = base.group if match["group"] is None else int(match["group"])
    return replace(base, kv=KV_FORMATS[match["kv"] or "16"], group=group)


def check_patterns(net: Network, table: dict[str, Precision] | None) -> None:
    """Raise HwsimError for a pattern that no layer of ``net`` matches: it would silently do nothing."""
    for pattern in table or {}:
        if pattern != "*" and not any(_matches(pattern, layer) for layer in net.layers):
            known = [name for layer in net.layers for name in (layer.name, layer.op) if name]
            raise HwsimError(f"precision: no layer or operator of {net.name} matches {pattern!r}{near(pattern, known)}")


def _matches(pattern: str, layer: Layer) -> bool:
    return pattern == "*" or fnmatch.fnmatchcase(layer.name, pattern) or pattern == layer.op


def own_precision(layer: Layer) -> Precision:
    """The precision a network file itself states for ``layer``."""
    act = layer.dtype
    weight = layer.weight_dtype or act
    integer = act in INTEGERS and weight in INTEGERS
    return Precision(weight, act, "int32" if integer else "fp32", act)


def precision_of(layer: Layer, table: dict[str, Precision] | None) -> Precision:
    """The precision of ``layer`` under an assignment; patterns match a layer's name or operator.

    Quantisers of weights alone leave look-up tables as they are, and products that share one; block-scaled formats are
    for linear layers: every other layer is in the format of their results.
    """
    found: Precision | None = None
    for pattern, precision in (table or {}).items():
        if _matches(pattern, layer):
            found = precision
    if found is None:
        return own_precision(layer)
    table_like = layer.op == "embedding" or "tied" in layer.attrs
    if found.block and (table_like or layer.op not in BLOCK_SCALED):
        return replace(found, weights=found.output, activations=found.output, block=0)
    if table_like and found.weight_only:
        return replace(found, weights=found.activations, group=0)
    return found


def tensor_format(own: str, precision: Precision | None) -> str:
    """Format of an activation tensor: floats and 8/16-bit integers take the assigned one, indices and masks keep theirs."""
    if precision is None or own in ("int64", "int32", "uint32", "uint64", "bool"):
        return own
    return precision.output


@dataclass(frozen=True, slots=True)
class Multiply:
    """How a machine's matrix unit multiplies given operands.

    ``format`` is what the cells multiply, ``rate`` its speed relative to one multiply-accumulate a cell and clock,
    ``passes`` how many times the product runs; ``convert_a``/``convert_b`` say whether the vector unit must convert
    that operand first; ``note`` explains it to a reader, empty when native.
    """

    format: str
    rate: float
    passes: int
    convert_a: bool
    convert_b: bool
    note: str = ""
    block: int = 0  # elements of K that share an 8-bit scale, which the matrix unit applies
    emulates: str = ""  # the format asked for, where the machine multiplies another in its place


def multiply_on(
    rates: Mapping[str, float], fp32_passes: int, precision: Precision, machine: str, where: str = ""
) -> Multiply:
    """Return how a matrix unit with native ``rates`` multiplies ``precision``'s operands.

    Native pairs run as they are. Other floats, and integers on a unit without integer multipliers, are converted to
    bf16 (8-bit integers are exact in it); fp32 runs in 1, 3 or 6 bf16 passes. Raises HwsimError when nothing fits.
    """
    act, weight = get_format(precision.activations).name, get_format(precision.weights).name
    rate = rates.get(act, 0.0) if act == weight else rates.get(f"{act}x{weight}", 0.0)
    if rate > 0 and precision.passes == 0:
        return Multiply(act if act == weight else f"{act}x{weight}", rate, 1, False, False)
    if {act, weight} == {"int8", "uint8"} and rates.get("int8", 0.0) > 0:
        return Multiply("int8", rates["int8"], 1, False, False)
    both_integer = act in INTEGERS and weight in INTEGERS
    for wider in ("int8", "int16"):
        if (
            both_integer
            and rates.get(wider, 0.0) > 0
            and max(FORMATS[act].bits, FORMATS[weight].bits) <= FORMATS[wider].bits
        ):
            note = f"{machine} has no {act} x {weight} multiplier: widened to {wider}"
            return Multiply(wider, rates[wider], 1, act != wider, weight != wider, note)
    bf16 = rates.get("bf16", 0.0)
    if bf16 <= 0:
        known = ", ".join(rates)
        at = f"{where}: " if where else ""
        advice = "int8" if "int8" in rates or "uint8" in rates else known
        raise HwsimError(f"{at}{machine} multiplies {known} only, not {act} x {weight}; try --precision {advice}")
    passes = 1
    note = ""
    wide = [f for f in (act, weight) if FORMATS[f].kind == "float" and FORMATS[f].precision > 8]
    if "fp32" in (act, weight):
        passes = precision.passes or max(1, fp32_passes)
        note = f"{machine} multiplies fp32 operands in {passes} bf16 pass{'es' if passes > 1 else ''}"
    elif wide:
        note = f"{machine} has no {wide[0]} multiplier: operands are converted to bf16"
    elif both_integer:
        if max(FORMATS[act].bits, FORMATS[weight].bits) > 8:
            raise HwsimError(f"{where or machine}: {machine} has no {act} x {weight} multiplier; try int8 or bf16")
        note = f"{machine} has no {act} multiplier: integers are converted to bf16 (exact), so they run at its rate"
    else:
        note = f"{machine} has no {act} x {weight} multiplier: operands are converted to bf16"
    return Multiply("bf16", bf16, passes, act != "bf16", weight != "bf16", note)
