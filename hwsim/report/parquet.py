"""Rows as a Parquet file, for those who read results with pandas, Polars or DuckDB."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hwsim.errors import HwsimError
from hwsim.files import check_writable, write_whole


def write_parquet(rows: Iterable[Mapping[str, Any]], path: str | Path) -> None:
    """Write ``rows`` (equal keys; a nested value becomes JSON text) to ``path`` as Parquet.

    Raises HwsimError when the file cannot be written or pyarrow is not installed.
    """
    check_writable(path)
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise HwsimError('Parquet files need pyarrow: pip install "hwsim[parquet]"') from None
    import json

    plain = [{k: json.dumps(v) if isinstance(v, dict | list | tuple) else v for k, v in row.items()} for row in rows]
    names = list(dict.fromkeys(name for row in plain for name in row))
    table = pyarrow.table({name: [row.get(name) for row in plain] for name in names})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer)
    write_whole(path, buffer.getvalue())
