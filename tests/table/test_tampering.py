"""`mlcls verify` notices what was changed in a committed output, and what lies in it that nothing names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlcls_ray.errors import UsageError
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.ledger import describe_fragment
from mlcls_ray.table.verify import verify
from tests.conftest import ROOT
from tests.table.outputs import write_run

FIRST = layout.fragment_name(1, 0)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tampered")
    store = Store(str(folder))
    write_run(store, "one")
    write_run(store, "two", seed=1)
    return folder


@pytest.fixture
def out(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "out"))


def edit_json(name: str, **changes: Any) -> Callable[[Path], None]:
    def edit(run: Path) -> None:
        content = json.loads((run / name).read_text("utf-8"))
        (run / name).write_text(json.dumps({**content, **changes}), "utf-8")

    return edit


def edit_fragment_entry(**changes: Any) -> Callable[[Path], None]:
    """Change what `_SUCCESS` says of the first fragment."""

    def edit(run: Path) -> None:
        success = json.loads((run / "_SUCCESS").read_text("utf-8"))
        success["fragments"][0].update(changes)
        (run / "_SUCCESS").write_text(json.dumps(success), "utf-8")

    return edit


def edit_rows(
    folder: str, change: Callable[[pa.Table], pa.Table], *, is_hidden: bool = False
) -> Callable[[Path], None]:
    """Rewrite the first file; `is_hidden`: and correct its entry in `_SUCCESS`, as one who knows would."""

    def edit(run: Path) -> None:
        path = sorted((run / folder).iterdir())[0]
        pq.write_table(change(pq.ParquetFile(path).read()), path)
        if is_hidden:
            fragment = describe_fragment(Store(str(run.parent.parent)), run.name, path.name)
            edit_fragment_entry(**fragment.model_dump())(run)

    return edit


def replaced(column: str, value: object) -> Callable[[pa.Table], pa.Table]:
    """Put one value into a column's first row."""

    def change(rows: pa.Table) -> pa.Table:
        field = rows.schema.field(column)
        values = [value, *rows.column(column).to_pylist()[1:]]
        return rows.set_column(rows.schema.get_field_index(column), field, pa.array(values, field.type))

    return change


def copied(source: str, target: str) -> Callable[[Path], None]:
    def copy(run: Path) -> None:
        (run / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run / source, run / target)

    return copy


def cut(name: str, size: int = 40) -> Callable[[Path], None]:
    return lambda run: (run / name).write_bytes((run / name).read_bytes()[:size]) and None


def removed(name: str) -> Callable[[Path], None]:
    return lambda run: (run / name).unlink()


def appended(name: str) -> Callable[[Path], None]:
    return lambda run: (run / name).write_bytes((run / name).read_bytes() + b"\n") and None


def flipped(name: str) -> Callable[[Path], None]:
    def flip(run: Path) -> None:
        data = bytearray((run / name).read_bytes())
        data[len(data) // 3] ^= 1
        (run / name).write_bytes(data)

    return flip


def doubled(rows: pa.Table) -> pa.Table:
    return pa.concat_tables([rows, rows])


def shortened(rows: pa.Table) -> pa.Table:
    return rows.slice(1)


FRAGMENT, MANIFEST = f"labels/{FIRST}", "manifest/part-00000.parquet"
RUN_EDITS: dict[str, Callable[[Path], None]] = {
    "fragment removed": removed(FRAGMENT),
    "fragment cut": cut(FRAGMENT),
    "fragment emptied": cut(FRAGMENT, 0),
    "fragment with a flipped bit": flipped(FRAGMENT),
    "fragment with a byte more": appended(FRAGMENT),
    "fragment written anew": edit_rows("labels", lambda rows: rows),
    "fragment copied under a new name": copied(FRAGMENT, f"labels/{layout.fragment_name(2, 0)}"),
    "fragment copied into a sub-folder": copied(FRAGMENT, f"labels/more/{FIRST}"),
    "fragment copied into a folder beside": copied(FRAGMENT, f"labels-more/{FIRST}"),
    "fragment copied under another suffix": copied(FRAGMENT, "labels/part.parq"),
    "fragment copied in capitals": copied(FRAGMENT, "labels/COPY.PARQUET"),
    "fragment copied as a temporary file": copied(FRAGMENT, f"labels/{FIRST}.tmp"),
    "fragment copied hidden": copied(FRAGMENT, "labels/.copy.parquet"),
    "fragment copied beside run.json": copied(FRAGMENT, FIRST),
    "fragment copied among the attempts": copied(FRAGMENT, f"attempts/{FIRST}"),
    "fragment in the manifest": copied(FRAGMENT, "manifest/part-00001.parquet"),
    "fragment taken from the manifest": copied(MANIFEST, FRAGMENT),
    "rows doubled": edit_rows("labels", doubled, is_hidden=True),
    "rows left out": edit_rows("labels", shortened, is_hidden=True),
    "row with another id": edit_rows("labels", replaced("row_id", 77), is_hidden=True),
    "row with another uri": edit_rows("labels", replaced("uri", "/elsewhere.jpg"), is_hidden=True),
    "row with a status that is none": edit_rows("labels", replaced("status", "fine"), is_hidden=True),
    "row without labels": edit_rows("labels", replaced("labels", None), is_hidden=True),
    "row with another label": edit_rows("labels", replaced("labels", ["dog"] * 3), is_hidden=True),
    "row with a class that is none": edit_rows("labels", replaced("class_ids", [40]), is_hidden=True),
    "row with another score": edit_rows("labels", replaced("scores", [0.1] * 3), is_hidden=True),
    "row of another run": edit_rows("labels", replaced("run_id", "three"), is_hidden=True),
    "row of another run number": edit_rows("labels", replaced("run_number", 99), is_hidden=True),
    "row of another model": edit_rows("labels", replaced("model", "n"), is_hidden=True),
    "row of another network": edit_rows("labels", replaced("model_fingerprint", "g"), is_hidden=True),
    "row of other thresholds": edit_rows("labels", replaced("threshold_id", "0.6"), is_hidden=True),
    "row that was never tried": edit_rows("labels", replaced("attempts", 0), is_hidden=True),
    "a column less": edit_rows("labels", lambda rows: rows.drop_columns(["etag"]), is_hidden=True),
    "a column more": edit_rows(
        "labels", lambda rows: rows.append_column("note", pa.array(["x"] * len(rows))), is_hidden=True
    ),
    "manifest removed": removed(MANIFEST),
    "manifest cut": cut(MANIFEST),
    "manifest with a part more": copied(MANIFEST, "manifest/part-00001.parquet"),
    "manifest with a strange file": copied(MANIFEST, "manifest/notes.txt"),
    "manifest rows doubled": edit_rows("manifest", doubled),
    "manifest rows left out": edit_rows("manifest", shortened),
    "manifest with another uri": edit_rows("manifest", replaced("uri", "/elsewhere.jpg")),
    "manifest with another size": edit_rows("manifest", replaced("size_bytes", 5)),
    "manifest with another etag": edit_rows("manifest", replaced("etag", "e")),
    "run.json removed": removed("run.json"),
    "run.json cut": cut("run.json"),
    "run.json emptied": cut("run.json", 0),
    "run.json that is a list": lambda run: (run / "run.json").write_text("[]") and None,
    "run.json with other rows": edit_json("run.json", rows=7),
    "run.json of another run": edit_json("run.json", run_id="three"),
    "run.json of another number": edit_json("run.json", number=9),
    "run.json with another fingerprint": edit_json("run.json", model_fingerprint="g"),
    "run.json with another preprocessing": edit_json("run.json", preprocess_fingerprint="q"),
    "run.json with other thresholds": edit_json("run.json", thresholds={"cat": 0.5, "dog": 0.5, "猫": 0.9}),
    "run.json with another model": edit_json("run.json", model="n"),
    "run.json with other inputs": edit_json("run.json", config={"inputs": ["/other"]}),
    "run.json with another time": edit_json("run.json", created_at="2020-01-01T00:00:00Z"),
    "_SUCCESS removed": removed("_SUCCESS"),
    "_SUCCESS cut": cut("_SUCCESS"),
    "_SUCCESS emptied": cut("_SUCCESS", 0),
    "_SUCCESS of another run": edit_json("_SUCCESS", run_id="three"),
    "_SUCCESS with other rows": edit_json("_SUCCESS", rows=7),
    "_SUCCESS with other statuses": edit_json("_SUCCESS", statuses={"ok": 6}),
    "_SUCCESS without fragments": edit_json("_SUCCESS", fragments=[]),
    "_SUCCESS without a manifest": edit_json("_SUCCESS", manifest=[{"name": "x", "rows": 6, "sha256": ""}]),
    "_SUCCESS with another checksum": edit_fragment_entry(sha256="0" * 64),
    "_SUCCESS with other rows of a fragment": edit_fragment_entry(rows=1),
    "_SUCCESS with other statuses of a fragment": edit_fragment_entry(statuses={"ok": 1, "missing": 1}),
    "_SUCCESS that names another file": edit_fragment_entry(name="../../two/labels/" + FIRST),
    "_SUCCESS that lists a fragment twice": lambda run: edit_json(
        "_SUCCESS", fragments=2 * json.loads((run / "_SUCCESS").read_text("utf-8"))["fragments"]
    )(run),
}
OUT_EDITS: dict[str, Callable[[Path], None]] = {
    "run copied under another name": lambda out: shutil.copytree(out / "runs/one", out / "runs/three") and None,
    "run renamed": lambda out: (out / "runs/one").rename(out / "runs/three") and None,
    "run copied without its records": lambda out: shutil.copytree(out / "runs/one/labels", out / "runs/3/labels") and None,
    "fragment copied to OUT": lambda out: shutil.copyfile(out / "runs/one" / FRAGMENT, out / "copy.parquet") and None,
    "fragment copied to OUT/runs": lambda out: shutil.copyfile(out / "runs/one" / FRAGMENT, out / "runs/a.parquet") and None,
    "latest.json of a run that is none": edit_json("latest.json", run_id="three"),
    "latest.json of another folder": edit_json("latest.json", labels="runs/one/labels"),
    "latest.json cut": cut("latest.json"),
    "latest.json emptied": cut("latest.json", 0),
}  # fmt: skip


def test_nothing_changed(out: Path) -> None:
    assert verify(Store(str(out))) == []


@pytest.mark.parametrize("edit", RUN_EDITS)
def test_a_change_in_a_run_is_noticed(out: Path, edit: str) -> None:
    RUN_EDITS[edit](out / "runs/one")
    problems = verify(Store(str(out)))
    assert problems
    assert all(problem.startswith("run one: ") for problem in problems), "and the other run is right"


@pytest.mark.parametrize("edit", OUT_EDITS)
def test_a_change_of_the_output_is_noticed(out: Path, edit: str) -> None:
    OUT_EDITS[edit](out)
    assert verify(Store(str(out)))


@pytest.mark.parametrize(
    "edit",
    [
        "rows doubled", "row with another score", "manifest rows doubled", "run.json with another model", "run.json with other rows",
        "run.json of another run", "fragment copied into a sub-folder", "fragment copied under another suffix",
        "run.json with other thresholds",
        "row of another model", "row of another run",
    ],
)  # fmt: skip
def test_a_change_in_a_run_of_version_0_1_is_noticed(out: Path, edit: str) -> None:
    """Its `_SUCCESS` has no checksums of manifest and run.json: what they say is compared."""
    path = out / "runs/one/_SUCCESS"
    success = json.loads(path.read_text("utf-8"))
    del success["manifest"], success["record_sha256"]
    path.write_text(json.dumps(success), "utf-8")
    assert verify(Store(str(out))) == []
    RUN_EDITS[edit](out / "runs/one")
    assert verify(Store(str(out)))


def test_one_run_of_several(out: Path) -> None:
    RUN_EDITS["fragment removed"](out / "runs/two")
    assert verify(Store(str(out)), "one") == []
    assert verify(Store(str(out)), "two") != []
    with pytest.raises(UsageError, match="holds no run 'three'"):
        verify(Store(str(out)), "three")


def test_a_damaged_file_is_named_by_readers(out: Path) -> None:
    from mlcls_ray import open_labels

    RUN_EDITS["_SUCCESS cut"](out / "runs/one")
    with pytest.raises(UsageError, match="runs/one/_SUCCESS is damaged"):
        open_labels(str(out))


def test_the_first_layout_is_right() -> None:
    assert verify(Store(str(ROOT / "tests/fixtures/output_before_redesign/out"))) == []
