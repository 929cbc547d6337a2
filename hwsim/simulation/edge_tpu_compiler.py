"""``edgetpu_compiler`` without the compiler: what would be mapped, cached and streamed, and the log that says so.

`edge_tpu_compile` is the function, `add_arguments` and `command` the command line: one or several models for one chip
(co-compiled, the first ones first), or one model in segments for several.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from hwsim.errors import HwsimError
from hwsim.machine import Accelerator, load_accelerator
from hwsim.network.graph import Network
from hwsim.network.load import load_network
from hwsim.plan.edge_tpu_compile import Compiled, compile_network, compile_together
from hwsim.plan.edge_tpu_log import compiler_log
from hwsim.plan.options import RunOptions
from hwsim.plan.precision import check_patterns, parse_precision
from hwsim.simulation import bind_network

Model = str | PathLike[str] | Network


def edge_tpu_compile(
    models: Model | Sequence[Model],
    target: str | PathLike[str] | Accelerator,
    *,
    segments: int = 1,
    precision: str | Mapping[str, str] | None = None,
    shapes: Mapping[str, int] | None = None,
) -> list[Compiled]:
    """Return each model as compiled for ``target``; several share its wide memory, the first ones first.

    ``segments`` cuts a single model for so many chips (``edgetpu_compiler -n``). ``precision`` stands in for quantisation
    where a model is float. Raises HwsimError for machines that are no Edge TPU and models it cannot take, one line.
    """
    acc = load_accelerator(target if isinstance(target, Accelerator) else str(target))
    if acc.family != "edge-tpu":
        raise HwsimError(f"{acc.id} is of family {acc.family}: edgetpu_compiler compiles for coral-usb and its like")
    many = [models] if isinstance(models, str | PathLike | Network) else list(models)
    if len(many) > 1 and segments != 1:
        raise HwsimError("segments are of one model; several models share one chip: give one or the other")
    options = RunOptions(precision=precision, shapes={} if shapes is None else shapes).check()
    table = parse_precision(options.precision)
    nets = [bind_network(load_network(model), options, 1) for model in many]
    for net in nets:
        check_patterns(net, table)
    if len(nets) == 1:
        return [compile_network(nets[0], acc, table, segments=segments)]
    return compile_together(nets, acc, [table] * len(nets))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``hwsim compile``."""
    parser.add_argument("networks", nargs="+", metavar="network", help="zoo names or files; several share one chip")
    parser.add_argument("--on", required=True, metavar="TARGET", help="an Edge TPU, as coral-usb")
    parser.add_argument("-n", "--segments", type=int, default=1, help="programs to cut the model into, a chip each")
    parser.add_argument("--precision", help="int8 or uint8: take a float model as if it were quantised")
    parser.add_argument("--quiet", action="store_true", help="leave the table of operators out")


def main(args: argparse.Namespace) -> int:
    """Print what ``hwsim compile`` prints, and return its exit code."""
    done = edge_tpu_compile(args.networks, args.on, segments=args.segments, precision=args.precision)
    notes = [f"note: {note}" for c in done for note in c.notes]
    print("\n\n".join([compiler_log(done, show_operations=not args.quiet), *notes]))
    return 0


def json_of(done: Compiled) -> dict[str, Any]:
    """Return a compilation as plain data: sizes in bytes, status of every operator, segments."""
    return {
        "network": done.network.name,
        "machine": done.machine,
        "cached_bytes": done.cached_bytes,
        "remaining_bytes": done.remaining_bytes,
        "streamed_bytes": done.streamed_bytes,
        "operators": [
            {"index": op.index, "operator": op.code, "name": op.name, "status": status}
            for op, status in zip(done.operators, done.status, strict=True)
        ],
        "segments": [
            {
                "operators": list(s.operators),
                "cached_bytes": s.cache.used,
                "streamed_bytes": s.cache.streamed,
                "remaining_bytes": s.remaining,
                "instruction_bytes": s.instruction_bytes,
            }
            for s in done.segments
        ],
    }
