"""A job over documents and the formats of extras: a row for each page, which incremental runs, retries, `predict` and thumbnails know."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hostile_formats import document, format_files

from mlcls_ray.config import S3Options
from mlcls_ray.job.label import label
from mlcls_ray.predict.inputs import read_inputs
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.label_table import open_labels
from mlcls_ray.table.thumbnails import make_thumbnails
from mlcls_ray.table.verify import verify
from tests.conftest import quick_job

FILES = {os.path.basename(name.decode()): data for name, (data, status) in format_files().items() if status == "ok"}


@pytest.mark.usefixtures("loopback_ray")
def test_pages_are_rows(tiny_folder: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "papers", tmp_path / "out"
    folder.mkdir()
    for name in ("phone.heic", "lossy.jxl", "scan.jp2", "camera.dng"):
        (folder / name).write_bytes(FILES[name])
    (folder / "a.pdf").write_bytes(document("PDF", pages=2))
    (folder / "b.tif").write_bytes(document("TIFF", pages=3))
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7 ")
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("c.tif", document("TIFF", pages=2))
    inputs = (str(folder), str(tmp_path / "c.zip"))
    fields = {"inputs": inputs, "out": str(out), "model": str(tiny_folder), "batch_size": 4}

    def rows(run_id: str) -> dict[str, str]:
        table = pq.read_table(out / layout.labels_folder(run_id), columns=["uri", "status", "format"]).to_pylist()
        return {os.path.relpath(row["uri"], tmp_path): row["format"] or row["status"] for row in table}

    label(quick_job(**fields, run_id="first"))
    first = {
        "papers/phone.heic": "heif", "papers/lossy.jxl": "jxl", "papers/scan.jp2": "jpeg2000", "papers/camera.dng": "raw",
        "papers/a.pdf": "pdf", "papers/b.tif": "tiff", "papers/broken.pdf": "corrupt", "c.zip#c.tif": "tiff",
    }  # fmt: skip
    assert rows("first") == first

    label(quick_job(**fields, run_id="all", incremental=True, pages="all", annotate="all", dedupe=True))
    later = {
        "papers/a.pdf#page=2": "pdf",
        "papers/b.tif#page=2": "tiff",
        "papers/b.tif#page=3": "tiff",
        "c.zip#c.tif#page=2": "tiff",
    }
    assert rows("all") == later, "first pages are labeled already"
    assert len(os.listdir(out / layout.annotated_folder("all"))) == 3, "page 2 of c.tif is a copy of page 2 of b.tif"
    assert verify(Store(str(out))) == []

    assert not label(quick_job(**fields, run_id="again", incremental=True, pages="all")).rows
    (folder / "a.pdf").write_bytes(document("PDF", pages=3))
    label(quick_job(**fields, run_id="changed", incremental=True, pages="all"))
    assert rows("changed") == {f"papers/a.pdf{page}": "pdf" for page in ("", "#page=2", "#page=3")}

    (folder / "broken.pdf").write_bytes(document("PDF", pages=1))
    label(quick_job(**fields, run_id="retried", retry=("corrupt",)))
    assert rows("retried") == {"papers/broken.pdf": "pdf"}

    uris = open_labels(str(out)).arrow().column("uri").to_pylist()
    assert len(uris) == len(set(uris)) == len(first) + len(later) + 1
    pages = {page.path: page for page in read_inputs(uris)}
    assert all(page.error is None for page in pages.values())
    images = make_thumbnails(S3Options(), uris, len(uris))
    assert set(images) == set(uris)
