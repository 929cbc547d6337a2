"""PyTorch operators that rename, re-arrange or move data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hwsim.network import torch_ops as table
from hwsim.network.torch_graph import TorchNode
from hwsim.network.torch_values import Const, Handler, Value, as_ints
from hwsim.network.torch_views import View

if TYPE_CHECKING:
    from hwsim.network.torch_convert import Converter


def same(at: Converter, target: str, node: TorchNode) -> Value:
    """First argument unchanged; integers turned into floats become a cast."""
    got = at.value(node.args[0])
    out = node.outs[0] if node.outs else None
    if isinstance(got, View) and out is not None:
        have = at.dtypes.get(got.base, "fp32")
        if have != out.dtype and (out.is_float != at.is_float(got)):
            return at.row("cast", [at.make(got)], out.shape)
    return (got, None) if target == "native_dropout" else got


def reshape(at: Converter, target: str, node: TorchNode) -> Value:
    view = at.view(node.args[0], node)
    shape = node.out.shape
    made = view.reshape(shape)
    if made is None:
        solid = at.solid(view)
        made = solid.reshape(shape)
    if made is None:
        made = at.row("reshape", [at.make(view)], shape)
    return made


def permute(at: Converter, target: str, node: TorchNode) -> Value:
    view = at.view(node.args[0], node)
    rank = len(view.shape)
    if target in ("t", "numpy_T"):
        order = list(range(rank))[::-1]
    elif target in ("permute", "permute_copy"):
        order = [int(p) % rank for p in at.arg(node, 1, "dims")]
    elif target in ("movedim", "moveaxis"):
        a, b = at.arg(node, 1, "source"), at.arg(node, 2, "destination")
        froms = [int(v) % rank for v in (a if isinstance(a, list) else [a])]
        tos = [int(v) % rank for v in (b if isinstance(b, list) else [b])]
        order = [i for i in range(rank) if i not in froms]
        for to, source in sorted(zip(tos, froms, strict=True)):
            order.insert(to, source)
    else:
        a, b = (-2, -1) if target == "mT" else (int(at.arg(node, 1, "dim0")), int(at.arg(node, 2, "dim1")))
        order = list(range(rank))
        order[a], order[b] = order[b], order[a]
    return view.permute(order)


def part(at: Converter, view: View, dim: int, start: int, size: int) -> View:
    """A contiguous part, as a mapping when possible."""
    made = view.part(dim, start, size)
    if made is None:
        made = at.solid(view).part(dim, start, size)
    assert made is not None  # one atom per dimension: always expressible
    return made


def slice_part(at: Converter, target: str, node: TorchNode) -> Value:
    view = at.view(node.args[0], node)
    dim = int(at.arg(node, 1, "dim", 0)) % len(view.shape)
    extent, size = view.shape[dim], node.out.shape[dim]
    start = at.arg(node, 2, "start", 0) or 0
    start = max(0, min(extent, start + extent if start < 0 else start))
    step = int(at.arg(node, 4, "step", 1) or 1)
    if node.target.startswith("narrow"):
        step = 1
    if step != 1:
        return at.row("slice", [at.make(view)], node.out.shape, axis=dim, start=start, step=step)
    return part(at, view, dim, start, size)


def select(at: Converter, target: str, node: TorchNode) -> Value:
    view = at.view(node.args[0], node)
    dim = int(node.args[1]) % len(view.shape)
    index = int(node.args[2])
    return part(at, view, dim, index % view.shape[dim], 1).drop(dim)


def split_parts(at: Converter, target: str, node: TorchNode) -> Value:
    view = at.view(node.args[0], node)
    default = at.arg(node, 1, "dim", 0) if target == "unbind" else at.arg(node, 2, "dim", 0)
    dim = int(default) % len(view.shape)
    parts: list[View] = []
    start = 0
    for out in node.outs:
        size = 1 if target == "unbind" else out.shape[dim] if out else 0
        made = part(at, view, dim, start, size)
        parts.append(made.drop(dim) if target == "unbind" else made)
        start += size
    return tuple(parts)


def expansion(at: Converter, target: str, node: TorchNode) -> Value:
    return at.expand(at.view(node.args[0], node), node.out.shape)


def cat(at: Converter, target: str, node: TorchNode) -> Value:
    items = node.args[0]
    axis = int(at.arg(node, 1, "dim", 0))
    if target == "stack":
        rank = len(node.out.shape)
        axis %= rank
        views = [at.view(i, node).insert(axis) for i in items]
        return at.row("concat", [at.make(v) for v in views], node.out.shape, axis=axis)
    axis %= len(node.out.shape)
    values = [at.value(i) for i in items]
    views = [v for v in values if isinstance(v, View)]
    consts = [v for v in values if isinstance(v, Const) and v.shape != (0,)]
    rows = 0
    sources: list[str] = []
    for value in values:
        if isinstance(value, Const) and value in consts:
            whole = value.param is not None and math.prod(value.core) == at.param_size.get(value.param)
            if whole and value.param not in at.used and axis != 0 and value.core[0] == 1 and rows == 0:
                rows = value.shape[axis]
                at.used[str(value.param)] = "%cat"
            else:
                sources.append(at.make(at.expand(at.force(value), value.shape)))
        elif isinstance(value, View):
            sources.append(at.make(value))
    if len(views) == 1 and not rows and len(sources) == 1:
        return views[0]
    return at.row("concat", sources, node.out.shape, axis=axis, constant=rows or None)


def roll(at: Converter, target: str, node: TorchNode) -> Value:
    view = at.solid(at.view(node.args[0], node))
    axes, shift = as_ints(at.arg(node, 2, "dims", [])), as_ints(node.args[1])
    return at.row("roll", [view.base], view.shape, axes=axes, shift=shift)


def flip(at: Converter, target: str, node: TorchNode) -> Value:
    view = at.solid(at.view(node.args[0], node))
    return at.row("flip", [view.base], view.shape, axes=as_ints(node.args[1]))


def padding(at: Converter, target: str, node: TorchNode) -> Value:
    amounts = [int(v) for v in node.args[1]]
    if not any(amounts):
        return at.value(node.args[0])
    view = at.solid(at.view(node.args[0], node))
    rank = len(view.shape)
    begin, end = [0] * rank, [0] * rank
    for i in range(len(amounts) // 2):
        begin[rank - 1 - i], end[rank - 1 - i] = amounts[2 * i], amounts[2 * i + 1]
    mode = "constant"
    fill = 0.0
    if node.target == "pad":
        mode = str(at.arg(node, 2, "mode", "constant"))
        fill = at.arg(node, 3, "value") or 0.0
    elif node.target.startswith(("reflection", "replication")):
        mode = node.target.split("_")[0]
    else:
        fill = at.arg(node, 2, "value", 0) or 0.0
    if min(*begin, *end) < 0:
        for dim, (b, e) in enumerate(zip(begin, end, strict=True)):
            if b < 0 or e < 0:
                view = part(at, view, dim, max(0, -b), view.shape[dim] + min(b, 0) + min(e, 0))
        begin, end = [max(0, b) for b in begin], [max(0, e) for e in end]
        if not any((*begin, *end)):
            return view
    kind = None if mode == "constant" and fill == 0 else mode if mode != "constant" else "fill"
    return at.row("pad", [at.make(view)], node.out.shape, p=(*begin, *end), mode=kind)


def resize(at: Converter, target: str, node: TorchNode) -> Value:
    view = at.solid(at.view(node.args[0], node))
    if view.shape == node.out.shape:
        return view
    return at.row("resize", [view.base], node.out.shape, mode=table.RESIZE[target])


def shuffle(at: Converter, target: str, node: TorchNode) -> Value:
    solid = at.solid(at.view(node.args[0], node))
    op = "space_to_depth" if node.target == "pixel_unshuffle" else "depth_to_space"
    return at.row(op, [solid.base], node.out.shape, block=int(node.args[1]))


def channel_shuffle(at: Converter, target: str, node: TorchNode) -> Value:
    view = at.view(node.args[0], node)
    n, c, *rest = view.shape
    groups = int(node.args[1])
    split = view.reshape((n, groups, c // groups, *rest)) or at.solid(view).reshape((n, groups, c // groups, *rest))
    assert split is not None
    swapped = split.permute((0, 2, 1, *range(3, 3 + len(rest))))
    return swapped.reshape((n, c, *rest))


def gather(at: Converter, target: str, node: TorchNode) -> Value:
    sources = [at.make(v) for v in at.operands(node) if isinstance(v, View)][:2]
    axis = 0
    if node.target in ("gather", "index_select"):
        axis = int(node.args[1])
    elif node.target == "index":
        axis = next((i for i, v in enumerate(node.args[1]) if v is not None), 0)
    return at.row("gather", sources, node.out.shape, axis=axis % max(1, len(node.out.shape)))


def repetition(at: Converter, target: str, node: TorchNode) -> Value:
    return at.row("tile", [at.make(at.view(node.args[0], node))], node.out.shape)


def grid_sample(at: Converter, target: str, node: TorchNode) -> Value:
    return at.row("grid_sample", [at.make(at.view(a, node)) for a in node.args[:2]], node.out.shape)


def top_k(at: Converter, target: str, node: TorchNode) -> Value:
    made = at.row("top_k", [at.make(at.view(node.args[0], node))], node.out.shape, k=int(node.args[1]))
    index = node.outs[1]
    assert index is not None
    return (made, Const(index.shape, index.shape, index.dtype, runtime=made.base))


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(table.SAME, same), **dict.fromkeys(table.RESHAPE, reshape), **dict.fromkeys(table.PERMUTE, permute),
    **dict.fromkeys(table.SPLIT, split_parts), **dict.fromkeys(table.RESIZE, resize),
    **dict.fromkeys(table.EXPAND, expansion), **dict.fromkeys(table.PAD, padding),
    **dict.fromkeys(table.GATHER, gather),
    "slice": slice_part, "narrow": slice_part, "select": select, "cat": cat, "concat": cat, "stack": cat, "roll": roll,
    "flip": flip, "pixel_shuffle": shuffle, "pixel_unshuffle": shuffle, "channel_shuffle": channel_shuffle,
    "repeat": repetition, "repeat_interleave": repetition, "tile": repetition, "grid_sampler": grid_sample,
    "grid_sampler_2d": grid_sample, "topk": top_k,
}  # fmt: skip
