"""Corrections: whole or not at all, an order that two writers cannot break, and the commands that take them."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlcls_ray import open_labels, schema
from mlcls_ray.cli import main
from mlcls_ray.config import S3Options
from mlcls_ray.datasets.annotations import correction_notes, dataset_of_table
from mlcls_ray.datasets.formats import read_dataset
from mlcls_ray.errors import UsageError
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.corrections import (
    Change,
    Verdict,
    as_rows,
    correction_files,
    merge_corrections,
    new_action,
    read_corrections,
    write_action,
)
from mlcls_ray.train.evaluate import compare, evaluate
from tests.explore.browse.many import write_run
from tests.s3_servers import BUCKET

CLASSES = ("boat", "cat", "dog")
URIS = [f"/photos/{number}.jpg" for number in range(4)]
SCORES = np.array([[0.9, 0.1, 0.1], [0.1, 0.8, 0.7], [0.2, 0.3, 0.25], [0.6, 0.1, 0.9]], np.float32)


@pytest.fixture
def out(tmp_path: Path) -> str:
    folder = str(tmp_path / "out")
    write_run(folder, "one", URIS, classes=CLASSES, scores=SCORES)
    return folder


def run(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> tuple[str, str]:
    """Run a command in this process; returns what it printed on standard output, and as errors."""
    try:
        main([str(word) for word in words])
    except SystemExit as end:
        assert (end.code or 0) == code
    printed = capsys.readouterr()
    return printed.out, printed.err


def shown(out: str, **options: object) -> dict[str, tuple[list[str], str | None]]:
    rows = open_labels(out, corrected=True, **options).sql("SELECT uri, labels, verdict FROM labels").fetchall()
    return {uri: (labels, verdict) for uri, labels, verdict in rows}


def correct(
    out: str,
    place: int,
    before: Sequence[str],
    after: Sequence[str],
    number: int = 1,
    verdict: Verdict = Verdict.LABELED,
    content_hash: str | None = None,
) -> str:
    table = open_labels(out)
    query = f"SELECT uri, content_hash, run_id FROM labels WHERE uri = '{URIS[place]}'"
    ((uri, actual_hash, run_id),) = table.sql(query).fetchall()
    action = new_action(number, "ada")
    change = Change(uri, content_hash or actual_hash, run_id, verdict, before, after)
    write_action(table.store, action, as_rows(action, [change]))
    return action.correction_id


def test_labels_scores_and_class_ids_are_those_that_people_gave(out: str) -> None:
    correct(out, 1, ["cat", "dog"], ["cat", "otter"])
    table = open_labels(out, corrected=True)
    ((labels, scores, class_ids, model_labels, verdict, by),) = table.sql(
        f"SELECT labels, scores, class_ids, model_labels, verdict, corrected_by FROM labels WHERE uri = '{URIS[1]}'"
    ).fetchall()
    assert (labels, class_ids, model_labels) == (["cat", "otter"], [1, None], ["cat", "dog"])
    assert scores == [pytest.approx(0.8), None]
    assert (verdict, by) == ("labeled", "ada")
    assert open_labels(out).sql("SELECT * FROM labels").columns == schema.LABEL_TABLE.names, "only where they are asked"
    assert shown(out)[URIS[0]] == (["boat"], None)
    assert table.sql("SELECT count(*) FROM scores").fetchall() == [(12,)]


def test_two_writers_that_do_not_see_each_other_lose_nothing(out: str) -> None:
    """Both have seen number 1: one adds a label, the other one takes one away."""
    correct(out, 1, ["cat", "dog"], ["cat", "dog"], 1)
    correct(out, 1, ["cat", "dog"], ["cat", "dog", "boat"], 2)
    correct(out, 1, ["cat", "dog"], ["cat"], 2)
    labels, _ = shown(out)[URIS[1]]
    assert set(labels) == {"cat", "boat"}


def test_of_two_writers_about_one_label_the_last_one_counts_whatever_the_clock(out: str) -> None:
    correct(out, 0, ["boat"], [], 7)
    correct(out, 0, [], ["boat"], 8)
    rows = read_corrections(Store(out))
    clock = rows.schema.get_field_index(schema.CORRECTED_AT)
    turned = rows.set_column(clock, rows.schema.field(clock), rows.column(clock).take(pa.array([1, 0])))
    folder = Path(out) / layout.CORRECTIONS
    for name in os.listdir(folder):
        (folder / name).unlink()
    pq.write_table(turned, folder / "turned.parquet")
    assert shown(out)[URIS[0]] == (["boat"], "labeled")


def test_withdrawn_unsure_and_content_that_has_changed(out: str) -> None:
    correct(out, 0, ["boat"], ["cat"], 1)
    correct(out, 0, ["cat"], ["boat"], 2, Verdict.WITHDRAWN)
    correct(out, 1, ["cat", "dog"], ["cat", "dog"], 3, Verdict.UNSURE)
    correct(out, 3, ["dog", "boat"], [], 4, content_hash="another picture")
    assert shown(out) == {
        URIS[0]: (["boat"], None),
        URIS[1]: (["cat", "dog"], "unsure"),
        URIS[2]: ([], None),
        URIS[3]: (["dog", "boat"], None),
    }


def test_a_later_run_shows_where_the_model_still_disagrees(capsys: pytest.CaptureFixture[str], out: str) -> None:
    correct(out, 0, ["boat"], ["cat"])
    correct(out, 1, ["cat", "dog"], ["cat"], 2)
    correct(out, 2, [], [], 3)
    scores = SCORES.copy()
    scores[0] = [0.1, 0.9, 0.1]  # learned; image 1 is not
    write_run(out, "two", URIS, classes=CLASSES, scores=scores)
    run(capsys, "report", out, "--corrected", "--thumbnails", 0)
    page = (Path(out) / "report.html").read_text()
    assert "<dt>accepted as they were</dt><dd>2</dd>" in page
    assert '<dt>a later run still disagrees</dt><dd class="bad">1</dd>' in page
    assert "<td>cat, dog</td><td>cat</td>" in page
    result = evaluate(compare(open_labels(out, corrected=True), None))
    assert result.images == 3
    assert {one.name: (one.positives, one.precision) for one in result.classes}["dog"] == (0, 0.0)


def test_the_commands_that_take_corrections(capsys: pytest.CaptureFixture[str], out: str, tmp_path: Path) -> None:
    correct(out, 1, ["cat", "dog"], ["cat", "otter"])
    correct(out, 2, [], [], 2, Verdict.UNSURE)
    printed, _ = run(
        capsys, "query", out, "SELECT labels FROM labels WHERE verdict = 'labeled'", "--format", "json", "--corrected"
    )
    assert json.loads(printed)["labels"] == ["cat", "otter"]
    assert "verdict" in run(capsys, "query", out, "SELECT verdict FROM labels", code=2)[1]
    for kind in ("csv", "coco", "paddleclas", "labelstudio", "fiftyone"):
        run(capsys, "export-labels", out, "--format", kind, "--save", tmp_path / kind, "--corrected")
    with (tmp_path / "csv").open(newline="") as stream:
        assert {row["uri"]: (row["labels"], row["scores"]) for row in csv.DictReader(stream)}[URIS[1]] == (
            "cat;otter",
            "0.80000;",
        )
    coco = json.loads((tmp_path / "coco").read_text())
    assert coco["categories"][-1] == {"id": 4, "name": "otter"}
    assert [entry["category_id"] for entry in coco["annotations"] if entry["image_id"] == 2] == [2, 4]
    assert (tmp_path / "paddleclas/label.txt").read_text().splitlines()[-1].endswith("otter")
    _, errors = run(capsys, "dataset", "from-table", out, "--save", tmp_path / "data", "--corrected")
    assert "labels that the model does not know, left out: otter" in errors
    assert "1 images that people are unsure of are left out" in errors
    data = read_dataset(tmp_path / "data/train.txt", 3)
    assert {str(path): list(row) for path, row in zip(data.paths, data.targets, strict=True)} == {
        URIS[0]: [1, 0, 0],
        URIS[1]: [0, 1, 0],
        URIS[3]: [1, 0, 1],
    }
    printed, _ = run(capsys, "evaluate", out, "--corrected", "--save", tmp_path / "evaluation")
    assert printed.startswith("1 images, 0 without scores")


def test_soft_labels_of_corrected_images_are_hard(out: str, tmp_path: Path) -> None:
    correct(out, 1, ["cat", "dog"], ["boat"])
    table = open_labels(out, corrected=True)
    assert dataset_of_table(table, None, True, tmp_path / "data") == 4
    targets = read_dataset(tmp_path / "data/train.txt", 3).targets
    np.testing.assert_allclose(targets, [SCORES[0], [1, 0, 0], *SCORES[2:]], atol=1e-3)
    assert correction_notes(table) == []


def test_evaluate_needs_one_truth(capsys: pytest.CaptureFixture[str], out: str, tmp_path: Path) -> None:
    assert "--data FILE or --corrected" in run(capsys, "evaluate", out, "--save", tmp_path, code=2)[1]
    assert "nobody has accepted" in run(capsys, "evaluate", out, "--corrected", "--save", tmp_path, code=2)[1]


def test_a_full_disk_leaves_nothing(small_disk: Path) -> None:
    store = Store(str(small_disk))
    (small_disk / "filler").write_bytes(b"x" * (small_disk.stat().st_blksize and 2_000_000))
    action = new_action(1, "ada")
    change = Change("/x.jpg", "h", "one", Verdict.LABELED, [], [os.urandom(200_000).hex()])
    with pytest.raises(UsageError, match="was not saved: .*No space left"):
        write_action(store, action, as_rows(action, [change]))
    assert list((small_disk / layout.CORRECTIONS).iterdir()) == []


def test_merging_and_a_merge_that_died(out: str) -> None:
    for number in range(5):
        correct(out, number % 3, ["boat"] if number else [], ["cat"], number)
    store = Store(out)
    before, names = shown(out), correction_files(store)
    kept = {name: (Path(out) / layout.CORRECTIONS / name).read_bytes() for name in names}
    assert merge_corrections(store, at_least=6) == 0
    assert merge_corrections(store, at_least=2) == 5
    assert len(correction_files(store)) == 1
    assert shown(out) == before
    (Path(out) / layout.CORRECTIONS / names[0]).write_bytes(kept[names[0]])
    assert len(read_corrections(store)) == 5, "each row once"


def test_files_of_another_version_and_files_that_are_none(out: str) -> None:
    folder = Path(out) / layout.CORRECTIONS
    correct(out, 0, ["boat"], ["cat"])
    rows = read_corrections(Store(out))
    (folder / correction_files(Store(out))[0]).unlink()
    kept = [schema.URI, schema.CONTENT_HASH, schema.BEFORE, schema.AFTER, schema.CORRECTED_AT]
    pq.write_table(rows.select(kept).append_column("later", pa.array(["column"])), folder / "old.parquet")
    assert shown(out)[URIS[0]] == (["cat"], "labeled")
    (folder / "notes.txt").write_text("not mine")
    (folder / "cut.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match=r"cut\.parquet' is not a file of corrections: .* Move it elsewhere"):
        open_labels(out, corrected=True)
    pq.write_table(pa.table({"uri": ["/a.jpg"]}), folder / "cut.parquet")
    with pytest.raises(UsageError, match="it has no column 'before'"):
        open_labels(out, corrected=True)


def test_on_s3(moto: str) -> None:
    out, s3 = f"s3://{BUCKET}/{uuid4().hex}", S3Options(endpoint_url=moto)
    write_run(out, "one", URIS, classes=CLASSES, scores=SCORES, s3=s3)
    ((content_hash,),) = open_labels(out, s3).sql(f"SELECT content_hash FROM labels WHERE uri = '{URIS[0]}'").fetchall()
    action = new_action(1, "ada")
    change = Change(URIS[0], content_hash, "one", Verdict.LABELED, ["boat"], ["cat"])
    write_action(Store(out, s3), action, as_rows(action, [change]))
    assert shown(out, s3=s3)[URIS[0]] == (["cat"], "labeled")
