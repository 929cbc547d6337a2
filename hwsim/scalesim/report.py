"""SCALE-Sim's four report files: same names, columns, order, punctuation and number formats."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hwsim.errors import HwsimError
from hwsim.scalesim.config import Config
from hwsim.scalesim.result import LayerReport, Number

if TYPE_CHECKING:
    import pandas as pd

COMPUTE_COLUMNS = (
    "Total Cycles (incl. prefetch)",
    "Total Cycles",
    "Stall Cycles",
    "Overall Util %",
    "Mapping Efficiency %",
    "Compute Util %",
)
METADATA_COLUMN = "Avg FILTER Metadata SRAM BW"
_SRAM_COLUMNS = ("Avg IFMAP SRAM BW", "Avg FILTER SRAM BW", "Avg OFMAP SRAM BW")
_DRAM_COLUMNS = ("Avg IFMAP DRAM BW", "Avg FILTER DRAM BW", "Avg OFMAP DRAM BW")
DETAIL_COLUMNS = tuple(
    f"{memory} {operand} {what}"
    for memory in ("SRAM", "DRAM")
    for operand, moved in (("IFMAP", "Reads"), ("Filter", "Reads"), ("OFMAP", "Writes"))
    for what in ("Start Cycle", "Stop Cycle", moved)
)
SPARSE_COLUMNS = (
    "Original Filter Storage",
    "New Storage (Filter+Metadata)",
    "Filter Metadata Storage",
    METADATA_COLUMN,
)
REPORT_NAMES = ("COMPUTE_REPORT.csv", "BANDWIDTH_REPORT.csv", "DETAILED_ACCESS_REPORT.csv", "SPARSE_REPORT.csv")


def bandwidth_columns(sparse: bool) -> tuple[str, ...]:
    """Columns of BANDWIDTH_REPORT after LayerID; the metadata column exists in sparse runs only."""
    first, second, third = _SRAM_COLUMNS
    return (first, second, METADATA_COLUMN, third, *_DRAM_COLUMNS) if sparse else (*_SRAM_COLUMNS, *_DRAM_COLUMNS)


def _line(layer: int, items: Sequence[Number | str]) -> str:
    return ", ".join([str(layer), *map(str, items)]) + ",\n"


def _header(columns: Sequence[str]) -> str:
    return ", ".join(["LayerID", *columns]) + ",\n"


def report_texts(config: Config, reports: Sequence[LayerReport]) -> dict[str, str]:
    """The report files of a run as {file name: text}; SPARSE_REPORT is there in sparse runs only, as in SCALE-Sim."""
    compute = [_header(COMPUTE_COLUMNS)]
    bandwidth = [_header(bandwidth_columns(config.sparsity))]
    detail = [_header(DETAIL_COLUMNS)]
    # SCALE-Sim ends this one header with a comma and a blank.
    sparse = [", ".join(["LayerID", "Sparsity Representation", *SPARSE_COLUMNS]) + ", \n"]
    for i, report in enumerate(reports):
        compute.append(_line(i, report.compute_items()))
        bandwidth.append(_line(i, report.bandwidth_items()))
        detail.append(_line(i, report.detail_items()))
        sparse.append(_line(i, [config.sparse_rep, *report.sparse_items()]))
    tables = [compute, bandwidth, detail] + ([sparse] if config.sparsity else [])
    return {name: "".join(table) for name, table in zip(REPORT_NAMES, tables, strict=False)}


def write_reports(config: Config, reports: Sequence[LayerReport], path: str | Path) -> Path:
    """Write the report files into ``path``/``run_name`` as SCALE-Sim does and return that folder.

    All files appear together or not at all: they are written to a temporary folder beside it, then moved.
    Raises HwsimError when the folder cannot be written.
    """
    folder = Path(path) / config.run_name
    texts = report_texts(config, reports)
    scratch: str | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.mkdtemp(prefix=".hwsim-", dir=folder)
        for name, text in texts.items():
            (Path(scratch) / name).write_text(text, encoding="utf-8", newline="\n")
        for name in texts:
            os.replace(Path(scratch) / name, folder / name)  # noqa: PTH105 - atomic on one file system
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise HwsimError(f"cannot write reports to {str(folder)[:120]!r}: {reason}") from None
    finally:
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)
    return folder


def to_frame(config: Config, reports: Sequence[LayerReport]) -> pd.DataFrame:
    """One row per layer with the columns of all reports, ``LayerID`` first; sparse columns in sparse runs only."""
    import pandas as pd

    bandwidth = bandwidth_columns(config.sparsity)
    rows = []
    for i, report in enumerate(reports):
        row: dict[str, Number | str] = {"LayerID": i, "Layer": report.name}
        row |= zip(COMPUTE_COLUMNS, report.compute_items(), strict=True)
        row |= zip(bandwidth, report.bandwidth_items(), strict=True)
        row |= zip(DETAIL_COLUMNS, report.detail_items(), strict=True)
        if config.sparsity:
            row["Sparsity Representation"] = config.sparse_rep
            row |= zip(SPARSE_COLUMNS, report.sparse_items(), strict=True)
        rows.append(row)
    return pd.DataFrame(rows)
