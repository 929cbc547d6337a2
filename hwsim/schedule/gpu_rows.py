"""Rows of one GPU kernel, stage by stage: the helper the lowerings of products, attention and the rest share."""

from __future__ import annotations

from collections.abc import Sequence

from hwsim.schedule.folds import Loop
from hwsim.schedule.gpu_view import GpuView
from hwsim.schedule.table import AXIS, CAUSE, LEVEL, OPERATION, UNIT, ScheduleBuilder


class Stages:
    """Appends the rows of one kernel; the steps of a recurrence are the outermost loop of every row.

    The dispatch row comes with it: ``ops`` of it are the CTAs one start puts to work.
    """

    def __init__(self, builder: ScheduleBuilder, view: GpuView, repeat: int, code: int, ctas: int) -> None:
        self.builder, self.view, self.code = builder, view, code
        self.steps = [Loop("step", repeat)] if repeat > 1 else []
        self.stage = 0
        builder.row(
            stage=0, unit=UNIT["dispatch"], cause=CAUSE["launch"], awaits=2, buffers=0, axis=self.axes(self.steps),
            trips=tuple(x.count for x in self.steps), depth=len(self.steps), format=code, ops=ctas,
        )  # fmt: skip

    @staticmethod
    def axes(loops: Sequence[Loop]) -> tuple[int, ...]:
        """Axis codes of loops."""
        return tuple(AXIS[x.axis] for x in loops)

    def nest(
        self, loops: Sequence[Loop], first: Sequence[int] | None = None, trips: Sequence[int] | None = None
    ) -> dict[str, object]:
        """The columns of a row that walks ``loops`` inside the steps, over a part of their indices where stated."""
        whole = [*self.steps, *loops]
        steps = tuple(x.count for x in self.steps)
        return {
            "axis": self.axes(whole), "depth": len(whole), "first": (*(0 for _ in steps), *(first or [0] * len(loops))),
            "trips": (*steps, *(trips or [x.count for x in loops])),
        }  # fmt: skip

    def next(self) -> None:
        """Begin the next stage."""
        self.stage += 1

    def move(
        self, unit: str, nbytes: Sequence[int], source: str, target: str, cause: str, *, loops: Sequence[Loop] = (),
        first: Sequence[int] | None = None, trips: Sequence[int] | None = None, **values: object,
    ) -> None:  # fmt: skip
        """A copy of bytes per operand, once per iteration of ``loops``."""
        nest = self.nest(loops, first, trips)
        count = len(nbytes)
        self.builder.row(
            stage=self.stage, unit=UNIT[unit], format=self.code, lanes=self.view.sms, op=OPERATION["copy"],
            bytes=tuple(nbytes), refetch=(nest["depth"],) * count, cause=CAUSE[cause], awaits=1, buffers=0,
            dep=(self.stage - 1,), source=(LEVEL[source],) * count, target=(LEVEL[target],) * count, **nest, **values,
        )  # fmt: skip

    def work(self, unit: str, operation: str, nest: dict[str, object], **values: object) -> None:
        """A row of arithmetic in the current stage."""
        self.builder.row(
            stage=self.stage, unit=UNIT[unit], op=OPERATION[operation], format=self.code, lanes=self.view.sms,
            dep=(self.stage - 1,), awaits=1, **nest, **values,
        )  # fmt: skip


def even(total: int, parts: int) -> list[tuple[int, int, int]]:
    """Return (first, parts, amount of each) that deal ``total`` over ``parts`` as evenly as whole numbers do."""
    each, more = divmod(total, parts)
    return [row for row in ((0, more, each + 1), (more, parts - more, each)) if row[1] > 0]
