"""The queries of the browser, against the same question asked in Python of every row."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import yaml

from mlcls_ray import open_labels
from mlcls_ray.config import S3Options
from mlcls_ray.errors import UsageError
from mlcls_ray.explore.browse.corrector import Corrector, Operation
from mlcls_ray.explore.browse.filters import Filter, ScoreRange
from mlcls_ray.explore.browse.index import Index
from mlcls_ray.explore.browse.queries import Queries
from mlcls_ray.explore.browse.session import Session, Subject
from mlcls_ray.explore.browse.shapes import thresholds_file
from mlcls_ray.labels.label_map import parse_label_map
from mlcls_ray.labels.thresholds import parse_thresholds
from mlcls_ray.storage.store import Store
from mlcls_ray.table.relabel import relabel
from tests.explore.browse.many import random_scores, write_run
from tests.s3_servers import BUCKET

CLASSES = ("boat", "cat", "dog", "otter")
COUNT = 2500
URIS = [f"/photos/{number * 7919 % COUNT:05d}.jpg" for number in range(COUNT)]
SCORES = random_scores(COUNT, 4, 3) ** 0.1
"""High enough that labels are frequent."""
OTHER_SCORES = random_scores(500, 4, 4) ** 0.1
VECTORS = np.random.default_rng(0).normal(size=(COUNT, 6)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("browse") / "out")
    write_run(folder, "one", URIS, classes=CLASSES, scores=SCORES, embeddings=VECTORS)
    write_run(folder, "two", URIS[:500], classes=CLASSES, scores=OTHER_SCORES, embeddings=VECTORS[:500])
    return folder


@pytest.fixture(scope="module")
def index(out: str) -> Iterator[Index]:
    built = Index(open_labels(out), {})
    yield built
    built.close()


@pytest.fixture(scope="module")
def rows(out: str) -> list[dict[str, Any]]:
    found = open_labels(out).sql("SELECT uri, status, run_id, labels, scores, all_scores FROM labels")
    return found.to_arrow_table().to_pylist()


def score(row: dict[str, Any], label: str) -> float:
    """As `mlcls relabel` takes it."""
    if row["all_scores"] is None:
        return float("nan")
    if label in row["labels"]:
        return float(row["scores"][row["labels"].index(label)])
    return min(row["all_scores"][CLASSES.index(label)], 0.5)


def labels(row: dict[str, Any]) -> set[str]:
    return set(row["labels"] or [])


CASES: dict[str, tuple[Filter, Callable[[dict[str, Any]], bool]]] = {
    "everything": (Filter(), lambda row: True),
    "any": (Filter(any=("cat", "dog")), lambda row: bool(labels(row) & {"cat", "dog"})),
    "all": (Filter(all=("cat", "dog")), lambda row: labels(row) >= {"cat", "dog"}),
    "none": (Filter(none=("cat",)), lambda row: row["status"] == "ok" and "cat" not in labels(row)),
    "any, none": (Filter(any=("boat",), none=("cat",)), lambda row: "boat" in labels(row) and "cat" not in labels(row)),
    "range": (
        Filter(scores=(ScoreRange(label="otter", low=0.25, high=0.75),)),
        lambda row: np.float32(0.25) <= score(row, "otter") <= np.float32(0.75),
    ),
    "status": (Filter(status="missing"), lambda row: row["status"] == "missing"),
    "not ok": (Filter(status="not ok"), lambda row: row["status"] != "ok"),
    "run": (Filter(run="two"), lambda row: row["run_id"] == "two"),
    "text": (Filter(text="0042"), lambda row: "0042" in row["uri"]),
    "a text that is no pattern": (Filter(text="%_'"), lambda row: False),
    "near": (Filter(near=0.01, label="dog"), lambda row: abs(score(row, "dog") - 0.5) <= 0.01),
    "near any": (
        Filter(near=0.01),
        lambda row: (
            row["all_scores"] is not None and min(abs(np.float32(one) - 0.5) for one in row["all_scores"]) <= 0.01
        ),
    ),
    "not looked at": (Filter(reviewed="none"), lambda row: row["status"] == "ok"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_filter_shows_the_images_that_match(index: Index, rows: list[dict[str, Any]], name: str) -> None:
    chosen, matches = CASES[name]
    queries = Queries(index)
    shown = paged(queries, chosen)
    expected = sorted(row["uri"] for row in rows if matches(row))
    assert [row["uri"] for row in shown] == expected
    counts = queries.counts(chosen)
    assert counts.images == len(expected)
    per_label = {label: sum(label in labels(row) for row in rows if matches(row)) for label in CLASSES}
    assert counts.labels == {label: number for label, number in per_label.items() if number}


def paged(queries: Queries, chosen: Filter, size: int = 199) -> list[dict[str, Any]]:
    """All pages, one after the other."""
    shown: list[dict[str, Any]] = []
    while page := queries.page(chosen, shown[-1]["id"] if shown else None, size):
        shown += page
    return shown


@pytest.mark.parametrize(
    "chosen",
    [
        Filter(sort="newest"),
        Filter(sort="score"),
        Filter(sort="score", label="cat"),
        Filter(sort="low score", label="cat"),
        Filter(sort="unsure"),
        Filter(sort="unsure", label="dog", any=("cat",)),
        Filter(sort="corrected"),
    ],
    ids=str,
)
def test_pages_hold_each_image_once_in_each_order(index: Index, chosen: Filter) -> None:
    queries = Queries(index)
    shown = paged(queries, chosen)
    assert len({row["id"] for row in shown}) == len(shown) == queries.counts(chosen).images


def test_the_order_by_a_score(index: Index, rows: list[dict[str, Any]]) -> None:
    by_uri = {row["uri"]: row for row in rows}
    for chosen, sign in ((Filter(sort="score", label="dog"), -1), (Filter(sort="low score", label="dog"), 1)):
        values = [
            sign * score(by_uri[row["uri"]], "dog") for row in paged(Queries(index), chosen) if row["status"] == "ok"
        ]
        assert values == sorted(values)


def test_two_runs_that_disagree(index: Index, out: str) -> None:
    one, two = (
        dict(open_labels(out, run_id=run).sql("SELECT uri, labels FROM labels").fetchall()) for run in ("one", "two")
    )
    expected = sorted(uri for uri in two if set(one[uri] or []) != set(two[uri] or []))
    assert [row["uri"] for row in paged(Queries(index), Filter(differ=("one", "two")))] == expected


def test_another_output_that_disagrees(out: str, tmp_path: Path) -> None:
    other = str(tmp_path / "other")
    write_run(other, "x", URIS, classes=CLASSES, scores=SCORES)
    index = Index(open_labels(out), {other: open_labels(other)})
    shown = paged(Queries(index), Filter(differ=("two", other)))
    assert 0 < len(shown) <= 500
    assert {row["run_id"] for row in shown} == {"two"}
    index.close()


def test_similar_images_come_in_the_order_of_their_likeness(index: Index) -> None:
    queries = Queries(index)
    (first,) = queries.page(Filter(text="00007.jpg"))
    shown = paged(queries, Filter(alike=first["id"], sort="alike"))
    place = URIS.index(first["uri"])
    cosines = VECTORS.astype(np.float16).astype(np.float32) @ VECTORS[place].astype(np.float16).astype(np.float32)
    nearest = [URIS[one] for one in np.argsort(-cosines) if one % 1000 != 999][:5]
    assert [row["uri"] for row in shown[:5]] == nearest
    assert len(shown) == 501


@pytest.mark.parametrize("threshold", [0.2, 0.63])
def test_the_preview_of_a_threshold_is_what_relabel_does(
    index: Index, out: str, tmp_path: Path, threshold: float
) -> None:
    preview = Queries(index).preview("cat", threshold)
    copy = tmp_path / "out"
    write_run(str(copy), "one", URIS, classes=CLASSES, scores=SCORES)
    write_run(str(copy), "two", URIS[:500], classes=CLASSES, scores=OTHER_SCORES)
    relabel(Store(str(copy)), parse_thresholds({"cat": threshold}), run_id="three")
    before, after = (
        dict(
            open_labels(str(place))
            .sql("SELECT uri, coalesce(list_contains(labels, 'cat'), false) FROM labels")
            .fetchall()
        )
        for place in (out, copy)
    )
    assert (preview.before, preview.after) == (sum(before.values()), sum(after.values()))
    assert preview.gained_count == sum(after[uri] and not before[uri] for uri in after)
    assert preview.lost_count == sum(before[uri] and not after[uri] for uri in after)
    uris = {row["id"]: row["uri"] for row in Queries(index).items([*preview.gained, *preview.lost])}
    assert all(after[uris[one]] and not before[uris[one]] for one in preview.gained)
    assert all(before[uris[one]] and not after[uris[one]] for one in preview.lost)


def test_a_label_map(tmp_path: Path) -> None:
    """The page knows the new labels: their scores and thresholds are those of their classes, and dropped ones are not there."""
    out = str(tmp_path / "out")
    write_run(out, "one", URIS, classes=CLASSES, scores=SCORES)
    label_map = parse_label_map({"cat": "animal", "dog": "animal", "boat": None})
    relabel(Store(out), parse_thresholds({"cat": 0.7}), run_id="two", label_map=label_map)
    session = Session(Subject(out=out))
    index, queries = session.view.index, session.view.queries
    assert index.labels == ["animal", "otter"], "no image has its labels from the first run any more"
    found = (
        open_labels(out)
        .sql("SELECT uri, labels, all_scores FROM labels WHERE status = 'ok'")
        .to_arrow_table()
        .to_pylist()
    )
    expected = {row["uri"] for row in found if max(row["all_scores"][1:3]) >= 0.8}
    chosen = Filter(scores=(ScoreRange(label="animal", low=0.8),))
    assert {row["uri"] for row in paged(queries, chosen)} == expected
    (first,) = queries.page(Filter(text=found[0]["uri"].rpartition("/")[2]))
    image = queries.image(first["id"])
    assert image is not None
    assert {entry["label"]: entry["threshold"] for entry in image["classes"]} == {"animal": 0.5, "otter": 0.5}
    preview = queries.preview("animal", 0.9)
    assert preview.before == sum("animal" in row["labels"] for row in found)
    assert preview.after == sum(max(row["all_scores"][1:3]) > 0.9 for row in found)
    assert yaml.safe_load(thresholds_file(session.view, {"animal": 0.9}))["classes"] == {"cat": 0.9, "dog": 0.9}
    done = session.view.corrector.apply([first["id"]], Operation(kind="add", label="animal"))
    assert done.ids == [first["id"]]
    session.close()


def test_a_class_that_no_run_knows(index: Index) -> None:
    for chosen in (Filter(scores=(ScoreRange(label="caat"),)), Filter(sort="score", label="caat")):
        with pytest.raises(UsageError, match="no run knows the class 'caat': did you mean 'cat'"):
            Queries(index).page(chosen)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[tuple[Index, Corrector]]:
    write_run(str(tmp_path / "out"), "one", URIS[:20], classes=CLASSES, scores=np.full((20, 4), 0.1, np.float32))
    index = Index(open_labels(str(tmp_path / "out")), {})
    yield index, Corrector(index, "ada")
    index.close()


def state(index: Index, number: int) -> tuple[list[str], str | None]:
    (row,) = Queries(index).items([number])
    return sorted(row["labels"]), row["verdict"]


def test_correct_and_undo(small: tuple[Index, Corrector]) -> None:
    index, corrector = small
    first = corrector.apply([1, 2], Operation(kind="add", label="cat"))
    assert first.ids == [1, 2]
    corrector.apply([2], Operation(kind="add", label="dog"))
    corrector.apply([3], Operation(kind="accept"))
    corrector.apply([3], Operation(kind="unsure"))
    assert [state(index, one) for one in (1, 2, 3)] == [
        (["cat"], "labeled"),
        (["cat", "dog"], "labeled"),
        ([], "unsure"),
    ]
    counts = {
        name: Queries(index).counts(Filter(reviewed=name)).images for name in ("any", "accepted", "changed", "unsure")
    }
    assert counts == {"any": 3, "accepted": 0, "changed": 2, "unsure": 1}
    corrector.undo()
    assert state(index, 3) == ([], "labeled"), "as it was accepted before"
    corrector.undo()
    assert state(index, 3) == ([], None)
    corrector.undo(first.correction_id)
    assert [state(index, one) for one in (1, 2)] == [([], None), (["dog"], "labeled")], "what was added since stays"
    with pytest.raises(UsageError, match="nothing to undo"):
        corrector.undo(first.correction_id)
    corrector.undo()
    with pytest.raises(UsageError, match="nothing to undo"):
        corrector.undo()


def test_two_servers_over_one_output(small: tuple[Index, Corrector]) -> None:
    index, corrector = small
    other_index = Index(open_labels(index.table.store.root), {})
    clock = [0.0]
    other = Corrector(other_index, "ben", clock=lambda: clock[0])
    ids = {row["uri"]: row["id"] for row in Queries(other_index).page(Filter())}
    (row,) = Queries(index).items([5])
    corrector.apply([5], Operation(kind="add", label="cat"))
    assert other.changed_since(0) == (0, []), "it looks every two seconds"
    other.apply([ids[row["uri"]]], Operation(kind="add", label="dog"))
    assert state(other_index, ids[row["uri"]]) == (["cat", "dog"], "labeled"), "and before each action"
    corrector.apply([6], Operation(kind="accept"))
    clock[0] = 3.0
    place, changed = other.changed_since(2)
    (accepted,) = Queries(index).items([6])
    assert (place, changed) == (3, [ids[accepted["uri"]]])
    assert state(index, 5) == (["cat", "dog"], "labeled")
    assert state(other_index, changed[0]) == ([], "labeled")
    other_index.close()


def test_what_cannot_be_corrected(small: tuple[Index, Corrector], tmp_path: Path) -> None:
    index, corrector = small
    with pytest.raises(UsageError, match="the vocabulary lacks the label 'caat': did you mean 'cat'"):
        corrector.apply([1], Operation(kind="add", label="caat"))
    with pytest.raises(UsageError, match="none of the images is labeled"):
        corrector.apply([99], Operation(kind="accept"))
    with pytest.raises(UsageError, match="read-only"):
        Corrector(index, "ada", is_read_only=True).apply([1], Operation(kind="accept"))
    with pytest.raises(ValueError, match="add and remove need a label"):
        Operation(kind="add")
    (Path(index.table.store.root) / "corrections").write_text("in the way")
    with pytest.raises(UsageError, match="the correction was not saved: .* cannot be written"):
        corrector.apply([1], Operation(kind="accept"))
    assert state(index, 1) == ([], None), "the page shows what is kept, and nothing else"


def test_an_output_in_a_bucket(moto: str) -> None:
    out, s3 = f"s3://{BUCKET}/{uuid4().hex}", S3Options(endpoint_url=moto)
    write_run(out, "one", [f"s3://{BUCKET}/{number}.jpg" for number in range(5)], classes=CLASSES, s3=s3)
    clock = [0.0]
    session = Session(Subject(out=out, s3=s3, corrected_by="ada"), clock=lambda: clock[0])
    session.view.corrector.apply([0, 1], Operation(kind="add", label="cat"))
    rows = open_labels(out, s3, corrected=True).sql("SELECT uri FROM labels WHERE verdict = 'labeled'").fetchall()
    assert len(rows) == 2
    picture = session.view.pictures._picture(f"s3://{BUCKET}/0.jpg", None, 100)
    assert picture.problem == "missing: no such object"
    write_run(out, "two", [f"s3://{BUCKET}/{number}.jpg" for number in range(6)], classes=CLASSES, s3=s3)
    assert not session.is_outdated(), "it looks every ten seconds"
    clock[0] = 11.0
    assert session.is_outdated()
    version = session.view.version
    session.rebuild()
    assert (session.view.index.rows, session.is_outdated()) == (6, False)
    assert session.view.version != version
    assert Queries(session.view.index).counts(Filter(reviewed="later")).images in (0, 1, 2)
    session.close()


@pytest.mark.slow
def test_a_million_rows(tmp_path: Path) -> None:
    """Each question takes less than a second on two cores."""
    out = str(tmp_path / "out")
    write_run(out, "one", [f"/photos/{number % 1000:03d}/IMG_{number:08d}.jpg" for number in range(1_000_000)])
    table = open_labels(out)
    table.database.execute("SET threads = 2")
    started = time.monotonic()
    index = Index(table, {})
    built_s = time.monotonic() - started
    queries = Queries(index)
    seconds = {}
    for chosen in (
        Filter(),
        Filter(any=("class 03", "class 04")),
        Filter(all=("class 03",), none=("class 04",)),
        Filter(scores=(ScoreRange(label="class 07", low=0.2, high=0.6),)),
        Filter(text="0099"),
        Filter(near=0.001),
        Filter(near=0.01, label="class 09", sort="unsure"),
        Filter(sort="score", label="class 09"),
        Filter(sort="newest"),
    ):
        started = time.monotonic()
        page = queries.page(chosen)
        first = time.monotonic()
        queries.page(chosen, page[-1]["id"])
        second = time.monotonic()
        queries.counts(chosen)
        seconds[str(chosen.model_dump(exclude_defaults=True))] = (
            first - started,
            second - first,
            time.monotonic() - second,
        )
    started = time.monotonic()
    queries.preview("class 05", 0.4)
    seconds["preview"] = (time.monotonic() - started,)
    print(
        f"index in {built_s:.1f} s",
        *(f"{name}: {[round(one, 2) for one in each]}" for name, each in seconds.items()),
        sep="\n",
    )
    assert max(max(each) for each in seconds.values()) < 1.0
    assert len(paged_ids(queries, 20_000)) == 20_000
    index.close()


def paged_ids(queries: Queries, count: int) -> set[int]:
    ids: list[int] = []
    while len(ids) < count:
        ids += [row["id"] for row in queries.page(Filter(), ids[-1] if ids else None, 200)]
    return set(ids)
