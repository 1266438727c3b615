"""`open_labels`: the label table of an output, for SQL, pandas, polars, Arrow and Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

import pyarrow as pa
from duckdb import DuckDBPyConnection, connect

from mlcls_ray.config import S3Options
from mlcls_ray.errors import UsageError, suggest
from mlcls_ray.storage.store import Store
from mlcls_ray.storage.uris import redact_url
from mlcls_ray.table.corrected import correct_labels
from mlcls_ray.table.corrections import read_corrections, translate
from mlcls_ray.table.fragments import as_label_table, fragment_paths, fragment_schema, is_first_layout
from mlcls_ray.table.opened import OpenedTable
from mlcls_ray.table.output import open_output
from mlcls_ray.table.records import RunRecord, Success, newest_record, no_runs, read_records, read_successes
from mlcls_ray.table.vanished import create_vanished_view, leave_out_vanished
from mlcls_ray.table.views import committed_files, create_label_views, create_score_view

if TYPE_CHECKING:
    from ray.data import Dataset

    from mlcls_ray.table.merged import MergedTable


@overload
def open_labels(
    out: str, s3: S3Options | None = None, run_id: str | None = None, vanished: bool = True, corrected: bool = False
) -> LabelTable: ...


@overload
def open_labels(
    out: list[str] | tuple[str, ...],
    s3: S3Options | None = None,
    run_id: str | None = None,
    vanished: bool = True,
    corrected: bool = False,
) -> MergedTable: ...


def open_labels(
    out: str | list[str] | tuple[str, ...],
    s3: S3Options | None = None,
    run_id: str | None = None,
    vanished: bool = True,
    corrected: bool = False,
) -> LabelTable | MergedTable:
    """Open the label table of an output folder, local or `s3://`. It holds what was committed when it was opened.

    Args:
        out: An output folder of `mlcls label`; or a list of them, whose labels are merged: see `MergedTable`.
        s3: How to reach an object store. Default: the environment, then the newest run (see `open_output`).
        run_id: Take the rows of this run only. Default: of all committed runs.
        vanished: False leaves out the images that an incremental run found gone. With `run_id` the rows of that run are all there.
        corrected: True takes what people corrected in `mlcls browse`: see `LabelTable.take_corrections`.

    Raises:
        UsageError: no run is committed there, or not the one named `run_id`; a file of corrections cannot be read; or an output is there
            twice.
    """
    if isinstance(out, str):
        return open_one(out, s3, run_id, vanished, corrected)
    from mlcls_ray.table.merged import open_merged

    if run_id is not None:
        raise UsageError(f"run_id: '{run_id}' is a run of one output, and {len(out)} are given")
    return open_merged(out, s3, vanished, corrected)


def open_one(
    out: str,
    s3: S3Options | None,
    run_id: str | None,
    vanished: bool,
    corrected: bool,
    database: DuckDBPyConnection | None = None,
) -> LabelTable:
    """Open one output, into the current schema of `database`. Default: a database of its own. Raises as `open_labels`."""
    store = open_output(out, s3)
    committed = read_successes(store)
    if not committed:
        raise no_runs(store)
    if run_id is not None and run_id not in committed:
        raise UsageError(f"'{out}' holds no committed run '{run_id}'{suggest(run_id, committed)}")
    chosen = {run_id: committed[run_id]} if run_id else committed
    if not any(success.fragments for success in chosen.values()):
        raise UsageError(f"'{out}' holds no labeled image")
    table = LabelTable(store, chosen, database)
    if not vanished and run_id is None:
        table.leave_out_vanished()
    if corrected:
        table.take_corrections()
    return table


class LabelTable(OpenedTable):
    """A label table in DuckDB. Rows are read only when they are queried.

    Views for `sql`:

    - `labels`: the newest row of each uri.
    - `all_rows`: the rows of all runs.
    - `scores` (uri, run_id, model, class_id, class, label, score, threshold): one row per image of `labels` and class whose score was kept.
      `label` is the class's label: its own name, or that of the run's label map; null where the map drops it.
    - `thresholds` (run_id, model, class_id, class, label, threshold): the thresholds of each run.
    - `vanished` (uri, last_labeled_at): the images that an incremental run found gone, and that have not been labeled again since.
    - `corrections`, if they were taken: what people did, one row per image and action.
    """

    def __init__(self, store: Store, successes: dict[str, Success], database: DuckDBPyConnection | None = None) -> None:
        """Create the views in the current schema of `database`. Default: a database of its own."""
        super().__init__(connect() if database is None else database, store.s3)
        self.store = store
        self.successes = successes
        """The content of `_SUCCESS` of each run whose rows are here."""
        self.records: dict[str, RunRecord] = read_records(store, successes)
        store.register_with(self.database)
        create_label_views(self.database, committed_files(store, successes))
        relabeled = [run_id for run_id, record in self.records.items() if record.relabeled_from]
        create_vanished_view(self.database, store, successes, relabeled)
        self.left_out = 0
        """The number of vanished images that are not in `labels`."""
        self.corrections: pa.Table | None = None
        """The corrections of people, in the schema `CORRECTIONS`, if they were taken."""
        create_score_view(self.database, self.records)

    def __repr__(self) -> str:
        rows = sum(success.rows for success in self.successes.values())
        return f"LabelTable({redact_url(self.store.root)!r}, runs={len(self.successes)}, rows={rows})"

    @property
    def newest(self) -> RunRecord:
        """The record of the run that was started last.

        Raises:
            UsageError: the run.json of all runs is missing.
        """
        record = newest_record(self.records.values())
        if record is None:
            raise UsageError(f"'{self.store.root}' has no run.json of its runs")
        return record

    def leave_out_vanished(self) -> None:
        """Take the images that vanished out of `labels` and `scores`; `all_rows` keeps them."""
        self.left_out = leave_out_vanished(self.database)

    def take_corrections(self) -> None:
        """Replace the labels in `labels` by those that people gave. A correction counts while the image's content is what the person saw.

        `labels` has five more columns then: `model_labels` (the model's own), `verdict` (`labeled`, `unsure`, or null without a
        correction), `corrected_by`, `corrected_at` and `corrected_run`, the run that the person saw. The labels of an unsure image stay
        the model's. Call it after `leave_out_vanished`.
        """
        self.corrections = translate(read_corrections(self.store), self.records)
        correct_labels(self.database, self.corrections)

    def ray(self) -> Dataset:
        """Return the rows of all runs as a Ray dataset, which is read in parallel. Starts Ray if it does not run.

        Fragments of the first layout are read by Arrow from version 26 on; `mlcls compact` rewrites them.
        """
        import ray.data

        today, old = list[str](), list[str]()
        for run_id, success in self.successes.items():
            is_numbered = run_id in self.records and self.records[run_id].number > 0
            for name in fragment_paths(self.store, success):
                is_old = not is_numbered and is_first_layout(fragment_schema(self.store, name))
                (old if is_old else today).append(name)
        datasets = []
        for names in filter(None, (today, old)):
            paths = [self.store.data_path(name) for name in names]
            rows = ray.data.read_parquet([path for path, _ in paths], filesystem=paths[0][1])
            datasets.append(rows.map_batches(as_label_table, batch_format="pyarrow") if names is old else rows)
        first, *others = datasets
        return first.union(*others) if others else first
