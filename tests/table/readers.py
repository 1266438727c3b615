"""Read a label table with one reader, as its users do, and print its rows: `python readers.py READER OUT`.

Imports nothing but that reader: it runs in environments that have nothing else.
"""

from __future__ import annotations

import glob
import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

COLUMNS = ["uri", "status", "run_id", "run_number", "labels", "scores", "all_scores", "embedding"]


def files(out: str) -> list[str]:
    return sorted(glob.glob(f"{out}/runs/*/labels/*.parquet"))


def read_pyarrow(out: str) -> list[dict[str, Any]]:
    import pyarrow.dataset

    return pyarrow.dataset.dataset(files(out)).to_table(columns=COLUMNS).to_pylist()


def read_pandas(out: str) -> list[dict[str, Any]]:
    import pandas

    return pandas.read_parquet(files(out))[COLUMNS].to_dict("records")


def read_fastparquet(out: str) -> list[dict[str, Any]]:
    import fastparquet

    return fastparquet.ParquetFile(files(out)).to_pandas(columns=COLUMNS).to_dict("records")


def read_polars(out: str) -> list[dict[str, Any]]:
    import polars

    return polars.scan_parquet(f"{out}/runs/*/labels/*.parquet").select(COLUMNS).collect().to_dicts()


def read_duckdb(out: str) -> list[dict[str, Any]]:
    import duckdb

    query = f"SELECT {', '.join(COLUMNS)} FROM '{out}/runs/*/labels/*.parquet'"
    return [dict(zip(COLUMNS, row, strict=True)) for row in duckdb.sql(query).fetchall()]


def read_datafusion(out: str) -> list[dict[str, Any]]:
    from datafusion import SessionContext

    context = SessionContext()
    rows: list[dict[str, Any]] = []
    for number, file in enumerate(files(out)):
        context.register_parquet(f"part{number}", file)
        rows += context.sql(f"SELECT {', '.join(COLUMNS)} FROM part{number}").to_pylist()
    return rows


def read_daft(out: str) -> list[dict[str, Any]]:
    import daft

    return daft.read_parquet(f"{out}/runs/*/labels/*.parquet").select(*COLUMNS).to_pylist()


def read_spark(out: str) -> list[dict[str, Any]]:
    from pyspark.sql import SparkSession

    session = (
        SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .getOrCreate()
    )
    rows = session.read.parquet(f"{out}/runs/*/labels").select(*COLUMNS).collect()
    return [row.asDict() for row in rows]


READERS: dict[str, Callable[[str], list[dict[str, Any]]]] = {
    name.removeprefix("read_"): function for name, function in list(globals().items()) if name.startswith("read_")
}


def plain(value: Any) -> Any:
    """Lists of numbers, and None for nothing: readers have arrays, NaN and NaT for them."""
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    number = float(value)
    return None if number != number else round(number, 6)


def read(reader: str, out: str) -> list[list[Any]]:
    rows = [[plain(row[name]) for name in COLUMNS] for row in READERS[reader](out)]
    return sorted(rows, key=lambda row: (row[2], row[0]))


if __name__ == "__main__":
    print(json.dumps(read(sys.argv[1], sys.argv[2])))
