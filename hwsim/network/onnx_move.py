"""ONNX nodes that move or cut data: slices, joins, look-ups, padding, resizing, and host-side operators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hwsim.network.importing import Value
from hwsim.network.onnx_fold import slices
from hwsim.network.onnx_graph import Handler, OnnxGraph


def cut(g: OnnxGraph) -> None:
    """Slice: a view when contiguous along one axis, else a copy."""
    x = g.x(0)
    found = slices(g.node, x.shape, [None, *(g.numbers(i) for i in range(1, 5))])
    known = all(g.x(i).fixed for i in range(1, 5) if g.has(i))
    if found is None:
        g.layer("slice", x, out=g.data_dependent())
        return
    shape = tuple(length for _, length, _ in found)
    moved = [i for i, (start, length, step) in enumerate(found) if (start, length, step) != (0, x.shape[i], 1)]
    if not moved:
        g.store(0, x)
    elif all(found[i][2] == 1 for i in moved):
        made = x
        for i in moved:
            made = part(g, made, i, found[i][0], found[i][1], fixed=known)
        g.store(0, made)
    elif all(found[i][2] == -1 and found[i][1] == x.shape[i] for i in moved):
        g.layer("flip", x, axes=tuple(moved))
    else:
        axis = moved[0] if len(moved) == 1 else None
        start, step = (found[axis][0], found[axis][2]) if axis is not None else (None, None)
        g.layer("slice", x, out=shape, axis=axis, start=start if known else None, step=step, fixed=known)


def part(g: OnnxGraph, x: Value, axis: int, start: int, size: int, *, fixed: bool = True) -> Value:
    """``size`` entries of ``x`` from ``start`` along ``axis``."""
    out = tuple(size if i == axis else d for i, d in enumerate(x.shape))
    if out == x.shape:
        return x
    made = g.part("split", x, out=out, axis=axis, start=start or None, fixed=fixed)
    if made.is_const:
        made.dtype, made.float_dtype, made.quant, made.learned = x.dtype, x.float_dtype, x.quant, x.learned
    return made


def split(g: OnnxGraph) -> None:
    """Split into parts of stated or equal size."""
    x = g.x(0)
    axis = g.axis(g.attr_int("axis", 0), len(x.shape))
    sizes, count = g.ints(1, "split"), len(g.node.outputs)
    if sizes is None and g.has(1):
        raise g.fail("its part sizes must be stored integers")
    if sizes is None:
        each = -(-x.shape[axis] // max(1, count))
        sizes = [each] * (count - 1) + [x.shape[axis] - each * (count - 1)]
    if len(sizes) != count or sum(sizes) != x.shape[axis] or min(sizes, default=0) < 0:
        raise g.fail(f"parts {sizes[:8]} do not make up the {x.shape[axis]} entries of axis {axis}")
    start = 0
    for i, size in enumerate(sizes):
        if size:
            g.store(i, part(g, x, axis, start, size))
        start += size


def concat(g: OnnxGraph) -> None:
    """Concat; empty operands (a cache before its first token) are left out."""
    values = [v for v in g.given() if v.elements]
    if not values:
        raise g.fail("every operand is empty")
    axis = g.axis(g.attr_int("axis", 1), len(values[0].shape))
    if len(values) == 1:
        g.store(0, values[0])
        return
    groups = [values[i : i + 256] for i in range(0, len(values), 256)]
    done = [g.part("concat", *group, axis=axis) if len(group) > 1 else group[0] for group in groups]
    g.store(0, done[0] if len(done) == 1 else g.part("concat", *done, axis=axis))


def gather(g: OnnxGraph) -> None:
    """Gather: look-up in a stored table, one index of an axis (a view), or rows picked."""
    x, ids = g.x(0), g.x(1)
    axis = g.axis(g.attr_int("axis", 0), len(x.shape))
    out = (*x.shape[:axis], *ids.shape, *x.shape[axis + 1 :])
    if x.is_const and x.learned and axis == 0 and len(x.shape) == 2 and not (ids.is_const and ids.fixed):
        ids = replace(ids, source=g.emit.source(ids))
        g.layer("embedding", ids, weight=x, rows=x.shape[0], width=x.shape[1], dtype=x.arithmetic_dtype)
    elif ids.elements == 1 and ids.data is not None and ids.fixed:
        at = int(ids.data.reshape(-1)[0])
        if not -x.shape[axis] <= at < x.shape[axis]:
            raise g.fail(f"index {at} is out of range for axis {axis} of {list(x.shape)}")
        g.store(0, g.reshaped(part(g, x, axis, at % x.shape[axis], 1), out))
    elif ids.is_const:
        g.layer("gather", x, out=out, axis=axis, fixed=ids.fixed)
    else:
        source = replace(x, source=g.emit.source(x))
        g.layer("gather", source, ids, out=out, axis=axis, dtype=x.arithmetic_dtype)


def gather_elements(g: OnnxGraph) -> None:
    """GatherElements: the output has the shape of the indices."""
    x, ids = g.x(0), g.x(1)
    active = [v for v in (x, ids) if not v.is_const] or [x]
    g.layer("gather", *active, out=ids.shape, axis=g.attr_int("axis", 0), dtype=x.arithmetic_dtype)


def gather_nd(g: OnnxGraph) -> None:
    """GatherND."""
    x, ids = g.x(0), g.x(1)
    lead = g.attr_int("batch_dims", 0)
    if not ids.shape or not 0 <= lead < len(ids.shape) or ids.shape[-1] + lead > len(x.shape):
        raise g.fail(f"indices {list(ids.shape)} do not fit input {list(x.shape)}")
    active = [v for v in (x, ids) if not v.is_const] or [x]
    out = (*ids.shape[:-1], *x.shape[lead + ids.shape[-1] :])
    g.layer("gather", *active, out=out, dtype=x.arithmetic_dtype)


def tile(g: OnnxGraph) -> None:
    """Tile."""
    x, times = g.x(0), g.ints(1)
    if times is None or len(times) != len(x.shape) or min(times, default=1) < 1:
        raise g.fail("its repeats must be stored positive integers, one a dimension")
    if all(t == 1 for t in times):
        g.store(0, x)
    else:
        g.layer("tile", x, out=[d * t for d, t in zip(x.shape, times, strict=True)], fixed=g.x(1).fixed)


def pad(g: OnnxGraph) -> None:
    """Pad: begin of every axis, then end."""
    x, amounts = g.x(0), g.ints(1, "pads")
    if amounts is None:
        amounts = g.attr_ints("paddings")
    rank = len(x.shape)
    axes = g.ints(3)
    if amounts is None:
        g.layer("pad", x, out=g.data_dependent())
        return
    if axes is not None and len(amounts) == 2 * len(axes):
        full = [0] * (2 * rank)
        for i, axis in enumerate(axes):
            full[g.axis(axis, rank)], full[rank + g.axis(axis, rank)] = amounts[i], amounts[len(axes) + i]
        amounts = full
    if len(amounts) != 2 * rank or any(abs(a) > 2**31 for a in amounts):
        raise g.fail(f"{len(amounts)} amounts for a tensor of rank {rank}")
    if not any(amounts):
        g.store(0, x)
        return
    mode = g.attr_str("mode", "constant")
    if min(amounts) < 0 and max(amounts) <= 0:  # a negative amount cuts
        made = x
        for i in range(rank):
            made = part(g, made, i, -amounts[i], made.shape[i] + amounts[i] + amounts[rank + i])
        g.store(0, made)
        return
    g.layer("pad", x, p=tuple(amounts), mode=mode if mode in ("reflect", "edge", "wrap") else None)


MODES = {"nearest": "nearest", "linear": "bilinear", "bilinear": "bilinear", "cubic": "bicubic"}


def resize(g: OnnxGraph) -> None:
    """Resize and Upsample: by target sizes or by scales (extent rounded down)."""
    x = g.x(0)
    upsample = g.node.op == "Upsample" or (g.file.opset < 11 and not g.node.domain)
    scales, sizes = g.numbers(1 if upsample else 2), None if upsample else g.ints(3)
    if upsample and scales is None:
        listed = g.node.attrs.get("scales")
        scales = np.array(listed) if isinstance(listed, tuple) else None
    axes = g.attr_ints("axes") or list(range(len(x.shape)))
    out = list(x.shape)
    if sizes:
        values: Sequence[float] = sizes
    elif scales is not None and scales.size and np.isfinite(scales).all():
        if scales.size != len(axes):
            raise g.fail(f"{scales.size} scales for {len(axes)} dimensions")
        values = [
            math.floor(x.shape[g.axis(a, len(x.shape))] * float(s))
            for a, s in zip(axes, scales.reshape(-1), strict=True)
        ]
    else:
        values, axes = g.data_dependent(), list(range(len(x.shape)))
    if len(values) != len(axes):
        raise g.fail(f"{len(values)} sizes for {len(axes)} dimensions")
    policy = g.attr_str("keep_aspect_ratio_policy", "stretch")
    if sizes and policy in ("not_larger", "not_smaller"):
        ratios = [v / x.shape[g.axis(a, len(out))] for a, v in zip(axes, values, strict=True)]
        ratio = min(ratios) if policy == "not_larger" else max(ratios)
        values = [math.floor(ratio * x.shape[g.axis(a, len(out))] + 0.5) for a in axes]
    for axis, value in zip(axes, values, strict=True):
        out[g.axis(axis, len(out))] = int(value)
    g.layer("resize", x, out=out, mode=MODES.get(g.attr_str("mode", "nearest"), "nearest"))


def block(op: str) -> Handler:
    """DepthToSpace and SpaceToDepth."""

    def handler(g: OnnxGraph) -> None:
        x, b = g.x(0), g.attr_int("blocksize", 1)
        if len(x.shape) != 4 or b < 1 or b > 2**20:
            raise g.fail("needs a rank-4 input and a positive blocksize")
        n, c, h, w = x.shape
        out = (n, c // (b * b), h * b, w * b) if op == "depth_to_space" else (n, c * b * b, h // b, w // b)
        g.layer(op, x, out=out, block=b)

    return handler


def scatter(g: OnnxGraph) -> None:
    """ScatterND, ScatterElements: rows written into a copy of the first operand."""
    x = g.x(0)
    active = [v for v in g.given() if not v.is_const]
    if not active or x.is_const:
        x = replace(x, source=g.emit.source(x)) if active else x
    g.layer("scatter", x, *(v for v in g.given()[1:3] if not v.is_const), dtype=x.arithmetic_dtype)


def top_k(g: OnnxGraph) -> None:
    """TopK: values, then indices."""
    x, count = g.x(0), g.ints(1, "k")
    k = count[0] if count else g.attr_int("k", 0)
    axis = g.axis(g.attr_int("axis", -1), len(x.shape))
    if k < 1:
        raise g.fail("its k must be a stored positive integer")
    k = min(k, x.shape[axis])
    out = tuple(k if i == axis else d for i, d in enumerate(x.shape))
    made = g.layer("top_k", x, out=out, k=k, axis=axis)
    if g.wants(1):
        g.store(1, g.emit.select(made, 1, out, "int64"))


def nms(g: OnnxGraph) -> None:
    """NonMaxSuppression: (selected boxes, 3); at most what its limit allows."""
    boxes, scores = g.x(0), g.x(1)
    limit = g.ints(2)
    if len(scores.shape) != 3 or len(boxes.shape) != 3:
        raise g.fail("needs boxes and scores of rank 3")
    n, classes, count = scores.shape
    most = min(limit[0], count) if limit and limit[0] > 0 else count
    g.layer("nms", boxes, scores, out=(n * classes * most, 3), classes=classes, boxes=most, dtype="int64")


def one_hot(g: OnnxGraph) -> None:
    """OneHot."""
    depth = g.ints(1)
    if not depth:
        raise g.fail("its depth must be a stored integer")
    shape = list(g.x(0).shape)
    axis = g.axis(g.attr_int("axis", -1), len(shape) + 1)
    shape.insert(axis, depth[0])
    g.layer("one_hot", g.x(0), out=shape, dtype=g.x(2).arithmetic_dtype)


def grid_sample(g: OnnxGraph) -> None:
    """GridSample."""
    x, grid = g.x(0), g.x(1)
    if len(x.shape) < 3 or len(grid.shape) != len(x.shape):
        raise g.fail("input and grid differ in rank")
    g.layer("grid_sample", x, grid, out=(*x.shape[:2], *grid.shape[1:-1]))


def roi_align(g: OnnxGraph) -> None:
    """RoiAlign."""
    x, rois = g.x(0), g.x(1)
    if len(x.shape) != 4 or len(rois.shape) != 2:
        raise g.fail("needs a rank-4 input and rank-2 regions")
    size = (g.attr_int("output_height", 1), g.attr_int("output_width", 1))
    g.layer("roi_align", x, rois, out=(rois.shape[0], x.shape[1], *size), size=size)


MOVE: dict[str, Handler] = {
    "Slice": cut, "Split": split, "Concat": concat, "Gather": gather, "GatherElements": gather_elements,
    "GatherND": gather_nd, "Tile": tile, "Pad": pad, "Resize": resize, "Upsample": resize,
    "DepthToSpace": block("depth_to_space"), "SpaceToDepth": block("space_to_depth"), "ScatterND": scatter,
    "ScatterElements": scatter, "Scatter": scatter, "TopK": top_k, "NonMaxSuppression": nms, "OneHot": one_hot,
    "GridSample": grid_sample, "RoiAlign": roi_align,
}  # fmt: skip
