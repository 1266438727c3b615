"""Commit and verify: every row exactly once, or nothing is committed; each way of breaking a table is found."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pytest

from mlcls_ray import schema
from mlcls_ray.errors import RunError, UsageError
from mlcls_ray.job.cluster import Node
from mlcls_ray.job.commit import commit
from mlcls_ray.job.plan import ModelRun, Run, next_attempt
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.ledger import Fragment, count_statuses, fragment_names, write_fragment
from mlcls_ray.table.verify import verify
from tests.table.fragments import LABELS, RUN, rows, written


def only(run: Run) -> ModelRun:
    (model,) = run.models
    return model


def test_a_whole_run_is_committed(run: Run) -> None:
    store = run.store
    success = commit(only(run), written(run, (0, 3), (1, 2, 4)), seconds=1.5, labeled=3)
    assert (success.rows, success.statuses, len(success.fragments)) == (5, {"empty": 5}, 2)
    assert success.per_s == 2.0, "a rate counts the rows of the command that was timed"
    assert success.model_copy(update={"labeled": None}).labeled_rows == 5, "version 0.1 did not say"
    assert store.read_json(layout.LATEST)["labels"] == LABELS
    assert verify(store) == verify(store, RUN) == []


@pytest.mark.parametrize(
    ("fragments", "message"),
    [
        ([(0, 1), (2, 3)], "4 of 5 rows"),
        ([(0, 1, 2), (2, 3, 4)], "1 double"),
        ([(0, 1, 2, 3, 4, 5)], "1 unknown"),
    ],
)
def test_anything_else_is_not(run: Run, fragments: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(RunError, match=f"{message}.*--run-id r"):
        commit(only(run), written(run, *fragments), seconds=1)
    assert run.store.read(layout.success(RUN)) is None
    assert "not committed" in verify(run.store)[0]


def test_a_dead_drivers_late_fragment_is_removed(run: Run) -> None:
    """It appears after the second attempt has read the ledger: the rows are there twice until the commit."""
    store = run.store
    early = written(run, (0, 1))
    second = next_attempt(run, [Node(2, {"CPU": 2.0})], run.copies)
    assert (second.attempt, [fragment.name for fragment in only(second).accepted]) == (2, [early[0].name])
    write_fragment(store, RUN, layout.fragment_name(1, 9), rows(2, 3))
    commit(only(second), written(second, (2, 3, 4)), seconds=1)
    assert fragment_names(store, RUN) == [early[0].name, layout.fragment_name(2, 0)]
    assert verify(store) == []


def test_a_late_fragment_is_not_accepted_by_the_attempt_after_next(run: Run) -> None:
    """A worker of driver 1 commits after driver 2 has read the ledger; driver 2 labels the same rows and dies; driver 3 sees both."""
    store = run.store
    early = written(run, (0, 1))
    second = next_attempt(run, [Node(2, {"CPU": 2.0})], run.copies)
    write_fragment(store, RUN, layout.fragment_name(1, 9), rows(2, 3))
    own = written(second, (2,))
    third = next_attempt(run, [Node(2, {"CPU": 2.0})], run.copies)
    assert [fragment.name for fragment in only(third).accepted] == [early[0].name, own[0].name]
    assert len(third.done) == 3
    commit(only(third), written(third, (3, 4)), seconds=1)
    assert verify(store) == []
    assert len(fragment_names(store, RUN)) == 3


def test_a_torn_fragment_is_not_accepted(run: Run) -> None:
    store = run.store
    store.write(f"{LABELS}/{layout.fragment_name(1, 0)}", b"PAR1 torn")
    second = next_attempt(run, [Node(2, {"CPU": 2.0})], run.copies)
    assert only(second).accepted == []
    commit(only(second), written(second, (0, 1, 2, 3, 4)), seconds=1)
    assert len(fragment_names(store, RUN)) == 1


def damage_missing(store: Store) -> None:
    store.remove(f"{LABELS}/{layout.fragment_name(1, 0)}")


def damage_extra(store: Store) -> None:
    write_fragment(store, RUN, layout.fragment_name(1, 9), rows(0))


def damage_bytes(store: Store) -> None:
    name = f"{LABELS}/{layout.fragment_name(1, 0)}"
    data = bytearray(store.read(name) or b"")
    data[40] ^= 1
    store.write(name, bytes(data))


def damage_schema(store: Store) -> None:
    name = layout.fragment_name(1, 0)
    fragment = write_fragment(store, RUN, name, rows(0, 3).drop_columns([schema.ETAG]))
    success = store.read_json(layout.success(RUN))
    success["fragments"][0] = fragment.model_dump()
    store.write_json(layout.success(RUN), success)


def damage_rows(store: Store) -> None:
    name = layout.fragment_name(1, 0)
    fragment = write_fragment(store, RUN, name, rows(0, 1))
    success = store.read_json(layout.success(RUN))
    success["fragments"][0] = fragment.model_dump()
    store.write_json(layout.success(RUN), success)


def replace_rows(store: Store, **columns: object) -> None:
    """The first fragment with other columns, and a _SUCCESS that agrees with it."""
    table = rows(0, 3)
    for name, value in columns.items():
        position = table.schema.get_field_index(name)
        field = table.schema.field(position)
        table = table.set_column(position, field, pa.array([value] * 2, field.type))
    fragment = write_fragment(store, RUN, layout.fragment_name(1, 0), table)
    success = store.read_json(layout.success(RUN))
    success["fragments"][0] = fragment.model_dump()
    success["statuses"] = count_statuses(Fragment.model_validate(one) for one in success["fragments"])
    store.write_json(layout.success(RUN), success)


def damage_uri(store: Store) -> None:
    replace_rows(store, uri="/other.jpg")


def damage_status(store: Store) -> None:
    replace_rows(store, status="lost")


def damage_ok(store: Store) -> None:
    replace_rows(store, status="ok")


def damage_message(store: Store) -> None:
    replace_rows(store, error_message=None)


def damage_lengths(store: Store) -> None:
    replace_rows(store, status="ok", labels=["a"], class_ids=[0], scores=[0.5, 0.4])


def damage_attempts(store: Store) -> None:
    replace_rows(store, attempts=0)


def damage_compaction(store: Store) -> None:
    store.write_json(layout.compaction(RUN), store.read_json(layout.success(RUN)))


def damage_counts(store: Store) -> None:
    success = store.read_json(layout.success(RUN))
    success["statuses"] = {"ok": 5}
    store.write_json(layout.success(RUN), success)


def damage_manifest(store: Store) -> None:
    store.remove(f"{layout.manifest_folder(RUN)}/part-00000.parquet")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_missing, "part-0001-000000.parquet is missing"),
        (damage_extra, "part-0001-000009.parquet is not in _SUCCESS"),
        (damage_bytes, "has changed: sha256|is not a Parquet file"),
        (damage_schema, "another schema: .*etag"),
        (damage_rows, "1 of 5 manifest rows are in no fragment.*1 rows appear twice"),
        (damage_counts, "do not add up"),
        (damage_uri, "2 rows name another input"),
        (damage_status, "2 rows have a status that does not exist"),
        (damage_ok, "2 rows are `ok` without labels"),
        (damage_message, "2 rows are errors without a message"),
        (damage_lengths, "2 rows have labels, class ids and scores of different lengths"),
        (damage_attempts, "2 rows have been attempted less than once"),
        (damage_compaction, "`mlcls compact` finishes it"),
        (damage_manifest, "the manifest has 0"),
    ],
)
def test_verify_finds(run: Run, damage: object, message: str) -> None:
    store = run.store
    commit(only(run), written(run, (0, 3), (1, 2, 4)), seconds=1)
    assert verify(store) == []
    damage(store)  # type: ignore[operator]
    assert re.search(message, " ".join(verify(store)))


def test_verify_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no runs"):
        verify(Store(str(tmp_path)))
    with pytest.raises(UsageError, match="no run 'x'"):
        verify(Store(str(tmp_path)), "x")
