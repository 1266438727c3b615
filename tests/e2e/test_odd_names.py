"""Paths are data: whole jobs whose inputs, model, output, cache and temporary folder have odd names."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlcls_ray.config import S3Options
from mlcls_ray.job.label import label
from mlcls_ray.storage.store import Store
from mlcls_ray.storage.uris import uri_of_path
from mlcls_ray.table import layout
from mlcls_ray.table.label_table import open_labels
from mlcls_ray.table.verify import verify
from tests.conftest import encode, picture, quick_job, run_installed
from tests.odd_names import NOT_UTF8, ODD_NAMES

IMAGES = 3


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A temporary folder that Ray could not use; Ray has one of its own."""
    folder = Path(f"/tmp/m{os.getpid()}'[x]?#")
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def put_images(folder: Path, name: str, first: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + IMAGES):
        (folder / f"{number}{name}.jpg").write_bytes(encode(picture(seed=number)))


def test_every_place_has_odd_names(tmp_path: Path, tiny_folder: Path, temporary: Path) -> None:
    """A run, and a night over copies: it compares with the ledger, and hashes, in the temporary folder."""
    place = tmp_path.joinpath(*ODD_NAMES)
    put_images(place / "in", "")
    model = shutil.copytree(tiny_folder, place / "model")
    surroundings = {"TMPDIR": str(temporary), "RAY_TMPDIR": "/tmp", "MLCLS_HOME": str(place / "home")}
    words = ("--model", model, "--out", place / "out", "--workers", 1, "--engine", "onnxruntime")
    done = run_installed("label", place / "in", *words, "--annotate", "all", env=surroundings)
    assert f"{IMAGES} ok" in done.stdout
    put_images(place / "in", "again")
    again = run_installed("label", place / "in", *words, "--incremental", "--dedupe", env=surroundings)
    assert f"{IMAGES} ok" in again.stdout
    store = Store(str(place / "out"))
    assert verify(store) == []
    assert len(open_labels(store.root).arrow()) == 2 * IMAGES
    assert list((place / "home").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ODD_NAMES, NOT_UTF8])
@pytest.mark.usefixtures("loopback_ray")
def test_a_job_with_an_odd_name(tmp_path: Path, tiny_folder: Path, name: str) -> None:
    put_images(tmp_path / "in" / name, name)
    out = tmp_path / "out" / name
    job = quick_job(
        inputs=(uri_of_path(tmp_path / "in" / name),),
        out=uri_of_path(out),
        model=str(tiny_folder),
        run_id="r",
        annotate="all",
    )
    assert label(job).statuses == {"ok": IMAGES}
    store = Store(job.out, S3Options())
    assert verify(store) == []
    assert len(store.names(layout.annotated_folder("r"))) == IMAGES
    assert open_labels(job.out).ray().count() == IMAGES
