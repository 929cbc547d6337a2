"""Chains of reshape, transpose and slice as one mapping, so that only the data movement that matters becomes a layer.

PyTorch graphs are full of metadata operators. A `View` says how a tensor is read out of another one: the base's
dimensions are factored into atoms (row-major factors), and the view's dimensions are lists of atoms. Two transposes
that cancel leave no trace; what is left is a slice per cut atom, one reshape, one transpose and one reshape (`plan`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hwsim.network.dims import IntShape

Group = tuple[int, ...]
Groups = tuple[Group, ...]


@dataclass(frozen=True, slots=True)
class Atom:
    """A factor of a base dimension: ``size`` consecutive values from ``start`` of ``full``."""

    full: int
    start: int
    size: int

    @property
    def sliced(self) -> bool:
        return self.size != self.full


@dataclass(frozen=True, slots=True)
class Step:
    """One operator of a plan: ``split`` (axis, start), ``reshape`` or ``transpose`` (perm), with its output shape."""

    op: Literal["split", "reshape", "transpose"]
    shape: IntShape
    axis: int = 0
    start: int = 0
    perm: Group = ()


@dataclass(frozen=True, slots=True)
class View:
    """Tensor ``base`` read under another shape; ``base_dims`` and ``dims`` list atom numbers, row-major in the base."""

    base: str
    atoms: tuple[Atom, ...]
    base_dims: Groups
    dims: Groups

    @property
    def shape(self) -> IntShape:
        """Shape of the view."""
        return tuple(math.prod(self.atoms[i].size for i in g) for g in self.dims)

    @property
    def base_shape(self) -> IntShape:
        """Shape of the tensor behind it."""
        return tuple(math.prod(self.atoms[i].full for i in g) for g in self.base_dims)

    @property
    def sliced(self) -> bool:
        """True when the view leaves elements of the base out."""
        return any(a.sliced for a in self.atoms)

    @property
    def identity(self) -> bool:
        """True when the view is the base itself."""
        return not self.sliced and self.dims == self.base_dims

    # -- operators that only change the mapping; None when the mapping cannot express the result -------------------

    def reshape(self, shape: Sequence[int]) -> View | None:
        """The same elements, row-major, under ``shape``; None when a dimension would straddle factors."""
        view = self
        todo = [i for g in self.dims for i in g]
        dims: list[Group] = []
        for want in shape:
            group: list[int] = []
            left = want
            while left > 1:
                if not todo:
                    return None
                size = view.atoms[todo[0]].size
                if left % size == 0:
                    group.append(todo.pop(0))
                    left //= size
                    continue
                if size % left:
                    return None
                cut = view._cut(todo[0], left)
                if cut is None:
                    return None
                at = todo[0]
                view = cut
                todo = [at, *(i + 1 if i >= at else i for i in todo)]
                todo[1] = at + 1
                dims = [tuple(i + 1 if i > at else i for i in g) for g in dims]
                group = [i + 1 if i > at else i for i in group]
            dims.append(tuple(group))
        return None if todo else replace(view, dims=tuple(dims))

    def _cut(self, at: int, outer: int) -> View | None:
        """Factor atom ``at`` into ``outer`` times the rest."""
        atom = self.atoms[at]
        inner = atom.size // outer
        if atom.full % inner or atom.start % inner:
            return None
        pair = (Atom(atom.full // inner, atom.start // inner, outer), Atom(inner, 0, inner))

        def shift(groups: Groups) -> Groups:
            return tuple(
                tuple(j for i in g for j in ((at, at + 1) if i == at else (i + 1,) if i > at else (i,))) for g in groups
            )

        return View(
            self.base, (*self.atoms[:at], *pair, *self.atoms[at + 1 :]), shift(self.base_dims), shift(self.dims)
        )

    def permute(self, perm: Sequence[int]) -> View:
        """Dimensions in another order."""
        return replace(self, dims=tuple(self.dims[p] for p in perm))

    def part(self, dim: int, start: int, size: int) -> View | None:
        """Elements ``start`` … ``start + size`` of one dimension."""
        group = self.dims[dim]
        whole = math.prod(self.atoms[i].size for i in group)
        if size == whole:
            return self
        inner = math.prod(self.atoms[i].size for i in group[1:])
        if not group or start % inner or size % inner:
            return None
        head = self.atoms[group[0]]
        cut = Atom(head.full, head.start + start // inner, size // inner)
        atoms = tuple(cut if i == group[0] else a for i, a in enumerate(self.atoms))
        rest = group[1:] if cut.size == 1 else group
        return replace(self, atoms=atoms, dims=tuple(rest if i == dim else g for i, g in enumerate(self.dims)))

    def drop(self, dim: int) -> View:
        """Without a dimension of extent 1."""
        return replace(self, dims=tuple(g for i, g in enumerate(self.dims) if i != dim))

    def insert(self, dim: int) -> View:
        """With a new dimension of extent 1 before ``dim``."""
        return replace(self, dims=(*self.dims[:dim], (), *self.dims[dim:]))

    # -- operators that work on rows do not care how the rows are arranged -----------------------------------------

    @property
    def whole_rows(self) -> bool:
        """True when the last dimension is the base's last one and nothing is left out."""
        return bool(self.dims and self.base_dims and self.dims[-1] and not self.sliced) and (
            self.dims[-1] == self.base_dims[-1]
        )

    def on(self, base: str) -> View:
        """The same mapping of another tensor of the same shape."""
        return replace(self, base=base)

    def with_rows(self, base: str, width: int) -> View:
        """The same arrangement of rows (`whole_rows`) of ``base``, whose last dimension is ``width``."""
        rows = self.base_dims[-1]
        keep = [i for i in range(len(self.atoms)) if i not in rows]
        number = {old: new for new, old in enumerate(keep)}
        atoms = [self.atoms[i] for i in keep]
        last: Group = ()
        if width > 1:
            last = (len(atoms),)
            atoms.append(Atom(width, 0, width))

        def renumber(groups: Groups) -> Groups:
            return (*(tuple(number[i] for i in g) for g in groups[:-1]), last)

        return View(base, tuple(atoms), renumber(self.base_dims), renumber(self.dims))

    def sorted_rows(self) -> View:
        """The view with its leading dimensions regrouped in base order, so that no transpose is spent on row order."""
        leading = [i for g in self.dims[:-1] for i in g]
        if leading == sorted(leading):
            return self
        follows = {b: a for g in self.dims[:-1] for a, b in itertools.pairwise(g)}
        groups: list[list[int]] = []
        for i in sorted(leading):
            if groups and follows.get(i) == groups[-1][-1]:
                groups[-1].append(i)
            else:
                groups.append([i])
        return replace(self, dims=(*map(tuple, groups), self.dims[-1]))

    def rows_over(self, rows: View, base: str, width: int) -> View:
        """This arrangement over ``base``, which holds one row of ``width`` per row of ``rows`` (`sorted_rows`)."""
        number: dict[int, int] = {}
        atoms: list[Atom] = []
        base_dims: list[Group] = []
        for group in rows.dims[:-1]:
            for i in group:
                number[i] = len(atoms)
                atoms.append(Atom(self.atoms[i].size, 0, self.atoms[i].size))
            base_dims.append(tuple(number[i] for i in group))
        last: Group = ()
        if width > 1:
            last = (len(atoms),)
            atoms.append(Atom(width, 0, width))
        dims = (*(tuple(number[i] for i in g) for g in self.dims[:-1]), last)
        return View(base, tuple(atoms), (*base_dims, last), dims)

    def constant_in_base(self, shape: Sequence[int]) -> IntShape | None:
        """Shape, in the base's order, of a constant that broadcasts with the view; None when it has none."""
        if self.sliced or sorted(self.dims) != sorted(self.base_dims):
            return None
        if any(not g for g in self.dims) and self.dims != self.base_dims:
            return None
        full = (1,) * (len(self.dims) - len(shape)) + tuple(shape)
        if len(full) != len(self.dims):
            return None
        if self.dims == self.base_dims:
            return tuple(shape)
        out = [full[self.dims.index(g)] for g in self.base_dims]
        while len(out) > 1 and out[0] == 1:
            out.pop(0)
        return tuple(out)


def view_of(base: str, shape: Sequence[int]) -> View:
    """Return the identity view of tensor ``base``."""
    atoms: list[Atom] = []
    dims: list[Group] = []
    for extent in shape:
        dims.append((len(atoms),) if extent > 1 else ())
        if extent > 1:
            atoms.append(Atom(extent, 0, extent))
    return View(base, tuple(atoms), tuple(dims), tuple(dims))


def plan(view: View) -> list[Step]:
    """Return the operators that make ``view`` out of its base, fewest first; empty for the identity."""
    steps: list[Step] = []
    groups = [list(g) for g in view.base_dims]
    size = [a.full for a in view.atoms]

    def current() -> IntShape:
        return tuple(math.prod(size[i] for i in g) for g in groups)

    for number, atom in enumerate(view.atoms):
        if not atom.sliced:
            continue
        axis = next(d for d, g in enumerate(groups) if number in g)
        at = groups[axis].index(number)
        if math.prod(size[i] for i in groups[axis][:at]) > 1:
            groups[axis : axis + 1] = [groups[axis][:at], groups[axis][at:]]
            axis += 1
            steps.append(Step("reshape", current()))
            at = 0
        inner = math.prod(size[i] for i in groups[axis][at + 1 :])
        size[number] = atom.size
        steps.append(Step("split", current(), axis, atom.start * inner))
    have = [i for g in groups for i in g if size[i] > 1]
    want = [i for g in view.dims for i in g]
    if have != want:
        goal = {i: (d, p) for p, (d, i) in enumerate((d, i) for d, g in enumerate(view.dims) for i in g)}
        spare = sum(1 for g in view.dims if not g)
        tokens: list[list[int]] = []
        for group in groups:
            solid = [i for i in group if size[i] > 1]
            if not solid and spare:  # an extent of 1 the view has too: kept, so that no reshape is spent on it
                tokens.append([])
                spare -= 1
            for at, i in enumerate(solid):
                last = solid[at - 1] if at else None
                if last is not None and goal[last] == (goal[i][0], goal[i][1] - 1):
                    tokens[-1].append(i)
                else:
                    tokens.append([i])
        shape = tuple(math.prod(size[i] for i in t) for t in tokens)
        if shape != current():
            steps.append(Step("reshape", shape))
        first = {t[0]: n for n, t in enumerate(tokens) if t}
        units = [n for n, t in enumerate(tokens) if not t]
        perm: list[int] = []
        for wanted in view.dims:
            perm += [first[i] for i in wanted if i in first] if wanted else [units.pop(0)] if units else []
        steps.append(Step("transpose", tuple(shape[p] for p in perm), perm=tuple(perm)))
    before = steps[-1].shape if steps else view.base_shape
    if before != view.shape:
        steps.append(Step("reshape", view.shape))
    return steps
