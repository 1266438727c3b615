"""Read: good files become bytes, bad ones a status, and what the listing said is kept."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa

from mlcls_ray import schema
from mlcls_ray.stages.read import Read, hash_content
from tests.conftest import BAD_IN_FOLDER
from tests.stages.specs import run_spec

TIME = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)


def manifest(uris: list[str], **columns: list[object]) -> pa.Table:
    rows = len(uris)
    values = {
        "row_id": range(rows),
        "uri": uris,
        "size_bytes": [None] * rows,
        "mtime": [None] * rows,
        "etag": [None] * rows,
        "attempts": [0] * rows,
    }
    return pa.table({**values, **columns}, schema=schema.MANIFEST)


def test_good_and_bad_files(folder_of_images: Path) -> None:
    uris = [str(folder_of_images / name) for name in (*BAD_IN_FOLDER, "a/01.jpg")]
    stage = Read(run_spec())
    batch = stage(manifest(uris))
    unreadable = {"empty", "missing"}
    assert batch["status"].tolist() == [
        *(status if status in unreadable else "ok" for status in BAD_IN_FOLDER.values()),
        "ok",
    ]
    assert [bool(message) for message in batch["error_message"]] == [status != "ok" for status in batch["status"]]
    data = (folder_of_images / "a/01.jpg").read_bytes()
    assert batch["image_bytes"][-1] == data
    assert batch["size_bytes"].tolist()[-1] == len(data)
    assert batch["content_hash"][-1] == hash_content(data)
    assert len(batch["content_hash"][-1]) == 32
    assert {len(column) for column in batch.values()} == {6}
    assert batch["attempts"].tolist() == [1] * 6
    assert stage.seconds["fetch"] > 0


def test_the_listing_is_kept_where_reading_says_nothing() -> None:
    stage = Read(run_spec())
    batch = stage(manifest(["/none.jpg"], size_bytes=[7], mtime=[TIME], etag=["e"]))
    assert (batch["size_bytes"][0], batch["etag"][0]) == (7, "e")
    assert batch["mtime"][0] == np.datetime64(TIME.replace(tzinfo=None), "us")
    unknown = stage(manifest(["/none.jpg"]))
    assert unknown["size_bytes"][0] == -1
    assert np.isnat(unknown["mtime"][0])


def test_the_limit_of_bytes(folder_of_images: Path) -> None:
    uris = [str(folder_of_images / "a/01.jpg")]
    assert Read(run_spec(max_bytes=10))(manifest(uris))["status"][0] == "too_large"
