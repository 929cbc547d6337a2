"""Stages around a network that its host works through: what users see is not what the network takes.

``host_stages`` costs a list of named stages before and after a network on a processor: frames are resized, colours
converted, values normalised or quantised, layouts changed; results are dequantised, ranked, decoded to boxes, suppressed.
Each is a pass over data with so many bytes and operations per element, for code of the kind people use (OpenCV or Pillow,
numpy, TensorFlow Lite's own post-processing), one thread unless said otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hwsim.errors import HwsimError, near
from hwsim.machine.accelerator import Accelerator
from hwsim.network.graph import Network
from hwsim.plan.cpu_work import host_work_s


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage by name: bytes and operations per element it reads and writes; ``scalar`` are instructions one by one.

    ``per`` says which elements: of the ``image`` as it arrives, of the network's ``input``, or of its ``output``.
    """

    name: str
    per: str
    read: float
    written: float
    simd: float
    scalar: float
    doc: str


# Bytes and operations per element. Resizing: google-coral/edgetpu classification_reference (resize of a photograph
# to 224 x 224 x 3 less the bare invoke, same host and device) comes to about 25 instructions per value of the result.
PRE: Mapping[str, Stage] = {
    s.name: s
    for s in (
        Stage("decode", "image", 0.2, 1, 6, 18, "JPEG to pixels: Huffman codes one by one, transforms in registers"),
        Stage("colour", "image", 1, 1, 4, 0, "YUV or BGR to RGB: a 3 x 3 matrix per pixel"),
        Stage("resize", "input", 4, 1, 0, 25, "bilinear sampling to the network's input"),
        Stage("letterbox", "input", 1, 1, 0, 1, "copied into a padded frame"),
        Stage("normalise", "input", 1, 4, 4, 0, "bytes to floats: less a mean, times a scale"),
        Stage("quantise", "input", 4, 1, 4, 0, "floats to 8-bit integers"),
        Stage("transpose", "input", 4, 4, 0, 3, "pixels first to channels first"),
        Stage("copy", "input", 1, 1, 0, 0, "into the runtime's buffer"),
    )
}
POST: Mapping[str, Stage] = {
    s.name: s
    for s in (
        Stage("dequantise", "output", 1, 4, 2, 0, "8-bit integers to floats"),
        Stage("softmax", "output", 8, 4, 18, 0, "exponentials and their sum"),
        Stage("argmax", "output", 4, 0, 2, 0, "largest value and where it is, along the last axis"),
        Stage("topk", "output", 4, 0, 0, 6, "the largest few, by partial sorting"),
        Stage("boxes", "output", 4, 4, 6, 4, "anchors and offsets to corners, exponentials for extents"),
        Stage("nms", "boxes", 4, 4, 0, 12, "scores above a threshold sorted, overlaps compared pair by pair"),
        Stage("mask", "output", 1, 1, 4, 4, "a class map resized to the frame"),
        Stage("keypoints", "output", 4, 0, 2, 6, "maxima of heat maps and their offsets"),
    )
}
_KEPT_BOXES = 200  # candidates above the threshold that suppression compares
_COMPARISON = 25.0  # instructions of one overlap of two boxes


@dataclass(frozen=True, slots=True)
class StageCost:
    """One stage on a host: its seconds, and the elements they are for."""

    name: str
    seconds: float
    elements: int
    doc: str


def host_stages(
    net: Network, host: Accelerator, *, pre: str | Sequence[str] = (), post: str | Sequence[str] = (), image: str = "1280x720",
    threads: int = 1,
) -> tuple[list[StageCost], list[StageCost]]:  # fmt: skip
    """Return the costs of stages before and after a bound network on ``host``, a machine of family cpu.

    ``pre`` and ``post`` are names (or one text with commas between), ``image`` the frame as it arrives, width x height.
    Raises HwsimError for an unknown stage or a frame that is no size, and when ``host`` is no processor.
    """
    width, height = _frame(image)
    inputs = sum(math.prod(int(d) for d in t.shape) for t in net.inputs)
    outputs = sum(math.prod(int(d) for d in net.tensors[n].shape) for n in net.output_names)
    boxes = _boxes(net)
    amounts = {"image": 3 * width * height, "input": inputs, "output": outputs, "boxes": boxes}
    before = [_cost(PRE, name, amounts, host, threads) for name in _names(pre, PRE, "pre")]
    after = [_cost(POST, name, amounts, host, threads) for name in _names(post, POST, "post")]
    return before, after


def _names(given: str | Sequence[str], known: Mapping[str, Stage], option: str) -> list[str]:
    names = [n.strip() for n in given.split(",")] if isinstance(given, str) else list(given)
    for name in names:
        if name and name not in known:
            raise HwsimError(f"--{option}: unknown stage {name!r}: one of {', '.join(known)}{near(name, known)}")
    return [n for n in names if n]


def _frame(text: str) -> tuple[int, int]:
    width, times, height = text.lower().partition("x")
    if not (times and width.isascii() and width.isdigit() and height.isascii() and height.isdigit()):
        raise HwsimError(f"frame {text!r}: write width and height as 1280x720")
    size = int(width[:6]), int(height[:6])
    if not all(1 <= s <= 65536 for s in size):
        raise HwsimError(f"frame {text!r}: each side must be from 1 to 65536")
    return size


def _boxes(net: Network) -> int:
    """Candidate boxes of a detector: the rows of its widest output of at least two dimensions."""
    rows = 0
    for name in net.output_names:
        shape = [int(d) for d in net.tensors[name].shape]
        if len(shape) >= 2:
            rows = max(rows, math.prod(shape) // min(d for d in shape if d > 1) if any(d > 1 for d in shape) else 1)
    return rows or 1


def _cost(
    known: Mapping[str, Stage], name: str, amounts: Mapping[str, int], host: Accelerator, threads: int
) -> StageCost:
    stage = known[name]
    count = amounts[stage.per]
    scalar = stage.scalar * count
    if name == "nms":
        kept = min(count, _KEPT_BOXES)
        scalar += _COMPARISON * kept * (kept - 1) / 2 + kept * max(1, kept.bit_length()) * 8
    seconds = host_work_s(
        host, read_bytes=stage.read * count, written_bytes=stage.written * count, simd_operations=stage.simd * count,
        scalar_operations=scalar, threads=threads, calls=1,
    )  # fmt: skip
    return StageCost(name, seconds, count, stage.doc)
