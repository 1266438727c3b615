"""The commit: every row exactly once, nothing else visible, `_SUCCESS` written last."""

from __future__ import annotations

from collections.abc import Mapping

from mlcls_ray.errors import RunError
from mlcls_ray.job.plan import ModelRun
from mlcls_ray.table import layout
from mlcls_ray.table.ledger import Fragment, fragment_names, read_rows
from mlcls_ray.table.records import Success, make_visible


def commit(
    model: ModelRun,
    written: list[Fragment],
    seconds: float,
    stage_seconds: Mapping[str, float] | None = None,
    labeled: int | None = None,
) -> Success:
    """Commit what earlier attempts and this one wrote into the output of one model.

    Args:
        seconds: wall time of this command, from the start of its workers on; `stage_seconds` by activity.
        labeled: rows that this command labeled. None: all.

    Raises:
        RunError: rows are missing or double. Nothing is committed; the same command resumes the run.
    """
    store, run_id, expected = model.store, model.record.run_id, model.record.rows
    fragments = sorted([*model.accepted, *written], key=lambda fragment: fragment.name)
    names = {fragment.name for fragment in fragments}
    rows = read_rows(store, run_id, sorted(names), expected)
    if len(rows) != expected or rows.duplicates or rows.out_of_range:
        raise RunError(
            f"run '{run_id}' has {len(rows)} of {expected} rows, {rows.duplicates} double, {rows.out_of_range} unknown; "
            f"run the same command with --run-id {run_id} to resume it"
        )
    for name in fragment_names(store, run_id):
        if name not in names:  # of a dead driver's late worker
            store.remove(f"{layout.labels_folder(run_id)}/{name}")
    return make_visible(store, run_id, fragments, seconds, stage_seconds, labeled)
