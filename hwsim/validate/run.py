"""validate: run every suite of measured rows and score it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

from hwsim.errors import HwsimError, near
from hwsim.files import write_whole
from hwsim.validate.case import Case, Outcome
from hwsim.validate.measured import measured_dir
from hwsim.validate.score import Score, grouped, score

# Suite: its module. Each has cases(folder) -> list of Case, and predict(cases) -> list of Outcome, in order.
SUITES: dict[str, str] = {
    "tpu-v3": "hwsim.validate.tpu_v3",
    "tpu-v4": "hwsim.validate.tpu_v4",
    "cpu": "hwsim.validate.cpu",
    "edge-tpu": "hwsim.validate.edge_tpu",
    "gpu-gemm": "hwsim.validate.gpu_gemm",
    "gpu-conv": "hwsim.validate.gpu_conv",
    "gpu-networks": "hwsim.validate.gpu_networks",
    "llm": "hwsim.validate.llm",
    "dla": "hwsim.validate.dla",
}


@dataclass(frozen=True)
class Validation:
    """All outcomes, excluded rows among them; ``missing`` says which tables were not there."""

    outcomes: tuple[Outcome, ...]
    missing: tuple[str, ...] = ()

    @property
    def counted(self) -> list[Outcome]:
        """The outcomes that no rule excludes."""
        return [o for o in self.outcomes if not o.case.excluded]

    def by(self, *fields: str, excluded: bool = False) -> list[Score]:
        """Return the score of each group of rows that agree in the named fields of their case."""
        for name in fields:
            if name not in Case.__dataclass_fields__ or name == "question":
                raise HwsimError(f"rows cannot be grouped by {name!r}{near(name, Case.__dataclass_fields__)}")
        rows = self.outcomes if excluded else self.counted
        return grouped(rows, lambda o: tuple(str(getattr(o.case, f)) for f in fields))

    def score(self) -> Score:
        """Return the score of all rows that count."""
        return score(self.counted)

    def exclusions(self) -> dict[str, int]:
        """Rows left out by each rule."""
        out: dict[str, int] = {}
        for o in self.outcomes:
            if o.case.excluded:
                out[o.case.excluded] = out.get(o.case.excluded, 0) + 1
        return dict(sorted(out.items()))

    def to_csv(self, path: str | Path | None = None) -> str:
        """Return every outcome as CSV text, and write it to ``path`` when given."""
        buffer = io.StringIO()
        names = (
            "suite", "row", "device", "target", "family", "what", "precision", "group", "size", "quantity", "excluded",
        )  # fmt: skip
        out = csv.writer(buffer, lineterminator="\n")
        out.writerow([*names, "measured", "predicted", "roofline", "error_pct", "refused"])
        for o in self.outcomes:
            cells = [getattr(o.case, n) for n in names]
            numbers = (o.case.measured, o.predicted, o.roofline, o.error_pct)
            out.writerow([*cells, *("" if math.isnan(v) else f"{v:.6g}" for v in numbers), o.refused])
        if path is not None:
            write_whole(path, buffer.getvalue())
        return buffer.getvalue()


def validate(
    suites: Sequence[str] | str | None = None,
    *,
    devices: Sequence[str] = (),
    families: Sequence[str] = (),
    data: str | Path | None = None,
    excluded: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> Validation:
    """Return predictions for every measured row of ``suites`` (all by default) on ``devices`` or ``families``.

    ``data`` is a folder with the measured tables (default: those that ship with hwsim). Duplicate rows, the same
    question to the same machine in one group, count once, with the median of their measurements. Rows that a rule leaves
    out are answered only with ``excluded``, and never count. ``progress`` is told
    suite, rows done and rows in all. Raises HwsimError for an unknown suite, device or family.
    """
    names = [suites] if isinstance(suites, str) else list(suites or SUITES)
    for name in names:
        if name not in SUITES:
            raise HwsimError(f"unknown suite {name!r}: one of {', '.join(SUITES)}{near(name, SUITES)}")
    folder = measured_dir(data)
    outcomes: list[Outcome] = []
    missing: list[str] = []
    found: list[tuple[Any, str, list[Case]]] = []
    for name in names:
        module = import_module(SUITES[name])
        try:
            cases = merged(module.cases(folder))
        except FileNotFoundError as error:
            missing.append(f"{name}: no table {error.filename or error}")
            continue
        except (KeyError, ValueError, IndexError) as error:
            raise HwsimError(f"suite {name}: a row of {folder} is not what it should be: {error!r}") from None
        found.append((module, name, cases))
    _check("device", devices, {text for _, _, cases in found for c in cases for text in (c.device, c.target)})
    _check("family", families, {c.family for _, _, cases in found for c in cases})
    for module, name, cases in found:
        chosen = [
            c for c in cases if (not devices or c.device in devices or c.target in devices)
            and (not families or c.family in families)
        ]  # fmt: skip
        if progress is not None:
            progress(name, 0, len(chosen))
        try:
            asked = [c for c in chosen if excluded or not c.excluded]
            outcomes += module.predict(asked)
            outcomes += [] if excluded else [Outcome(c) for c in chosen if c.excluded]
        except (KeyError, ValueError, IndexError) as error:
            raise HwsimError(f"suite {name}: a row of {folder} is not what it should be: {error!r}") from error
        if progress is not None:
            progress(name, len(chosen), len(chosen))
    return Validation(tuple(outcomes), tuple(missing))


def _check(what: str, asked: Iterable[str], known: set[str]) -> None:
    for name in asked:
        if name not in known:
            raise HwsimError(f"no measured rows of {what} {name!r}{near(name, known)}")


def merged(cases: Iterable[Case]) -> list[Case]:
    """Return the cases with duplicates as one, measured at their median; an excluded one never joins one that counts."""
    found: dict[tuple[object, ...], list[Case]] = {}
    for case in cases:
        found.setdefault((*case.key, case.quantity, case.excluded), []).append(case)
    return [replace(same[0], measured=median(c.measured for c in same)) for same in found.values()]
