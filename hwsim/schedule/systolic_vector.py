"""Lowering everything that is no matrix product: the vector unit works through chunks streamed from memory."""

from __future__ import annotations

from dataclasses import dataclass

from hwsim.plan.kernel import Kernel
from hwsim.schedule.folds import Loop, split_classes
from hwsim.schedule.systolic_view import SystolicView
from hwsim.schedule.table import AXIS, CAUSE, FORMAT, LEVEL, OPERATION, UNIT, ScheduleBuilder


@dataclass(frozen=True, slots=True)
class Sweep:
    """One pass over the inputs: its lane operations, the cores that share it, and whether they must be started."""

    lane_ops: float
    cores: int = 1
    starts: bool = False


def lower_vector(
    builder: ScheduleBuilder, kernel: Kernel, view: SystolicView, earlier: Sweep, last: Sweep, chunk_bytes: int
) -> None:
    """Append the rows of a kernel without products: dispatch, load, vector work, store, in chunks of ``chunk_bytes``.

    A kernel of several passes runs ``earlier`` in all of them but the ``last``, which alone writes. Inputs and outputs
    kept on the chip cost no memory traffic.
    """
    outside = "dram" if view.activations_in_dram else "host"
    # Constants come from memory even where activations come over the host link.
    from_memory = kernel.weight_bytes + sum(o.bytes for o in kernel.inputs if o.level == "dram")
    from_host = sum(o.bytes for o in kernel.inputs if o.level == "host")
    written = sum(o.bytes for o in kernel.outputs if o.level == outside)
    writer = UNIT["store"] if outside == "dram" else UNIT["link"]
    sources = (("dma", "dram", "activation_fetch", from_memory), ("link", "host", "link", from_host))
    reads = [source for source in sources if source[3]]
    elements = max(1, sum(o.elements for o in kernel.outputs))
    total = sum(o.bytes for o in kernel.inputs) + kernel.output_bytes
    chunks = max(1, min(-(-total // max(1, chunk_bytes)), elements))
    sweep = Loop("step", max(1, kernel.passes))
    loop = Loop.over("m", elements, -(-elements // chunks))
    loops = [x for x in (sweep, loop) if x.count > 1]
    depth = len(loops)
    sweeps = 1 if sweep.count > 1 else 0  # loops outside the chunks
    axes = tuple(AXIS[x.axis] for x in loops)
    code = FORMAT[kernel.inputs[0].format] if kernel.inputs else 0
    parts = [
        ((*(0,) * sweeps, *f), (*(sweep.count,) * sweeps, *t), e.get("m", loop.edge))
        for f, t, e in split_classes([loop] if loop.count > 1 else [])
    ]
    share = 1 / elements
    passes = [(last, ((sweep.count - 1, 1),) * sweeps)]
    if sweeps:
        passes.insert(0, (earlier, ((0, sweep.count - 1),)))
    # Every sweep over the input is a program of its own: a reduction must end before its result is used.
    for one, lead in passes:
        builder.row(
            stage=0, unit=UNIT["dispatch"], depth=sweeps, first=tuple(x[0] for x in lead),
            trips=tuple(x[1] for x in lead), cause=CAUSE["dispatch"], awaits=2, buffers=0, axis=axes,
            dep=(1 + len(reads),), lanes=one.cores if one.starts else 1,
        )  # fmt: skip
    stage = 0
    for unit, level, cause, read in reads:
        stage += 1
        for first, trips, size in parts:
            builder.row(
                stage=stage, unit=UNIT[unit], axis=axes, depth=depth, first=first, trips=trips, extent=(size, 1, 1),
                padded=(size, 1, 1), op=OPERATION["copy"], bytes=(-(-read * size // elements),),
                refetch=(depth,),
                source=(LEVEL[level],), target=(LEVEL["shared"],), dep=(0,), cause=CAUSE[cause],
                buffers=view.buffers, awaits=1, format=code,
            )  # fmt: skip
    stage += 1
    arithmetic = (kernel.alu + kernel.special) * share / sweep.count
    for one, lead in passes:
        for first, trips, size in parts:
            builder.row(
                stage=stage, unit=UNIT["vector"], lanes=one.cores, axis=axes, depth=depth,
                first=(*(x[0] for x in lead), *first[sweeps:]), trips=(*(x[1] for x in lead), *trips[sweeps:]),
                extent=(size, 1, 1), padded=(size, 1, 1), op=OPERATION["alu"], ops=round(arithmetic * size),
                issued=max(1, round(one.lane_ops * size * share)), dep=tuple(range(1, stage)) or (0,), cause=CAUSE["vector_unit"],
                bytes=(round(total * size * share),), refetch=(depth,), source=(LEVEL["shared"],),
                target=(LEVEL["register"],), buffers=view.buffers, awaits=1, format=code,
            )  # fmt: skip
    if written:
        # The sweeps before the last store nothing.
        for one, lead in passes:
            for first, trips, size in parts:
                nbytes = -(-written * size // elements) if one is last else 0
                builder.row(
                    stage=stage + 1, unit=writer, axis=axes, depth=depth, at_end=1,
                    first=(*(x[0] for x in lead), *first[sweeps:]), trips=(*(x[1] for x in lead), *trips[sweeps:]),
                    extent=(size, 1, 1), padded=(size, 1, 1), op=OPERATION["copy"], bytes=(0, 0, nbytes),
                    refetch=(0, 0, depth), source=(0, 0, LEVEL["shared"]), target=(0, 0, LEVEL[outside]), dep=(stage,),
                    cause=CAUSE["store" if outside == "dram" else "link"], buffers=0, format=code,
                )  # fmt: skip
