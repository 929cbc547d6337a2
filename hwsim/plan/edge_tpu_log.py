"""The compiler's log in the words its users know."""

from __future__ import annotations

from collections.abc import Sequence

from hwsim.plan.edge_tpu_compile import Compiled

_PARTLY = (
    "Model successfully compiled but not all operations are supported by the Edge TPU. A percentage of the model will "
    "instead run on the CPU, which is slower. If possible, consider updating your model to use only operations supported "
    "by the Edge TPU. For details, visit g.co/coral/model-reqs."
)


def size_text(nbytes: int) -> str:
    """Return bytes as the compiler prints them: two decimals and the largest unit below the value."""
    value = float(nbytes)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.2f}{unit}"
        value /= 1024
    return f"{value:.2f}GiB"


def operator_table(done: Compiled) -> str:
    """Return the table of operators, how often each occurs, and the status."""
    counts: dict[tuple[str, str], int] = {}
    for op, status in zip(done.operators, done.status, strict=True):
        key = (op.code.split(":", 1)[0], status)
        counts[key] = counts.get(key, 0) + 1
    lines = [f"{'Operator':<30} {'Count':<10} Status", ""]
    lines += [f"{code:<30} {count:<10} {status}" for (code, status), count in counts.items()]
    return "\n".join(lines)


def compiler_log(done: Compiled | Sequence[Compiled], *, show_operations: bool = True) -> str:
    """Return the log of one or several compilations, segment after segment, with the operator tables (``-s``).

    Compile times, versions and file sizes, which need the real compiler, are left out.
    """
    many = [done] if isinstance(done, Compiled) else list(done)
    return "\n\n".join(_one(c, show_operations) for c in many)


def _one(done: Compiled, show_operations: bool) -> str:
    blocks = []
    segments = done.segments or (None,)
    for number, segment in enumerate(segments):
        name = done.network.name
        lines = [f"Input model: {name}" + (f" (segment {number} of {len(segments)})" if len(segments) > 1 else "")]
        count = len(done.operators) if len(segments) == 1 or segment is None else len(segment.operators)
        lines += [
            f"On-chip memory used for caching model parameters: {size_text(segment.cache.used if segment else 0)}",
            f"On-chip memory remaining for caching model parameters: {size_text(segment.remaining if segment else 0)}",
            "Off-chip memory used for streaming uncached model parameters: "
            f"{size_text(segment.cache.streamed if segment else 0)}",
            f"Number of Edge TPU subgraphs: {1 if segment else 0}",
            f"Total number of operations: {count}",
        ]
        blocks.append("\n".join(lines))
    mapped = len(done.mapped)
    if mapped < len(done.operators):
        blocks.append(
            f"{_PARTLY}\nNumber of operations that will run on Edge TPU: {mapped}\n"
            f"Number of operations that will run on CPU: {len(done.operators) - mapped}"
        )
    if show_operations:
        blocks.append(operator_table(done))
    return "\n\n".join(blocks)
