"""The named integer semantics of one TFLite file: which rule each kernel family follows.

A file has several correct answers; a name picks one. Evidence for each rule and the recorded differences between them
are in ``docs/tflite_arithmetic.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

from hwsim.errors import HwsimError, near


@dataclass(frozen=True, slots=True)
class Semantics:
    """Rules by kernel family; letters are those of `hwsim.arithmetic.tflite_fixed`."""

    name: str
    convolution: str  # CONV_2D, DEPTHWISE_CONV_2D, TRANSPOSE_CONV: D, U or F
    dense: str  # FULLY_CONNECTED: R64, U, F or D
    product: str  # MUL: D or F
    addition: str  # ADD, SUB: "D" (left shift of 20), "U" (the same in vectors) or "xnnpack"
    rescale: str  # QUANTIZE between integers: "D", "U" (in vectors of 16, D for the rest) or "xnnpack"
    mean: str  # MEAN: "D", "U" over height and width, or "F"
    softmax: str  # "fixed" (gemmlowp) or "table" (float32 exp)
    quantise: str  # QUANTIZE from float: ties "away" or to "even"
    resize: str  # RESIZE_BILINEAR: "reference", "optimized" or "xnnpack"
    clamp: str  # bounds of a fused activation: ties "away" or to "even"
    recurrent: str  # activations inside LSTM: "gemmlowp" or "table"


SEMANTICS: dict[str, Semantics] = {
    s.name: s
    for s in (
        Semantics("tflite-reference", "D", "R64", "D", "D", "D", "D", "fixed", "away", "reference", "away", "gemmlowp"),
        Semantics("tflite-optimized", "U", "U", "D", "U", "U", "U", "table", "even", "optimized", "away", "gemmlowp"),
        Semantics("xnnpack", "F", "F", "F", "xnnpack", "xnnpack", "F", "table", "even", "xnnpack", "even", "gemmlowp"),
        Semantics("tflm", "D", "D", "D", "D", "D", "D", "fixed", "away", "reference", "away", "table"),
    )
}


def get_semantics(name: str) -> Semantics:
    """Return the semantics called ``name``; raises HwsimError with the names there are."""
    found = SEMANTICS.get(name)
    if found is None:
        known = ", ".join(SEMANTICS)
        raise HwsimError(f"unknown semantics {name!r}{near(name, SEMANTICS) or f'; there are {known}'}")
    return found
