"""A whole job over the hostile corpus: it finishes, and each file has the expected status and a reason."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hostile_corpus import write_corpus
from hostile_inputs import GLOBS, write_inputs

from mlcls_ray.job.label import label
from mlcls_ray.storage.store import Store
from mlcls_ray.storage.uris import path_of_uri
from mlcls_ray.table import layout
from mlcls_ray.table.verify import verify
from tests.conftest import ROOT, quick_job


@pytest.mark.usefixtures("loopback_ray")
@pytest.mark.parametrize("placement", ["fused", pytest.param("split", marks=pytest.mark.slow)])
def test_each_file_gets_its_status(tmp_path: Path, tiny_folder: Path, placement: str) -> None:
    corpus = tmp_path / "corpus"
    expected = write_corpus(corpus)
    listed = write_inputs(tmp_path / "inputs")
    out = tmp_path / "out"
    job = quick_job(
        inputs=(str(corpus), *(f"{tmp_path}/inputs/{pattern}" for pattern in GLOBS)),
        out=str(out),
        model=str(tiny_folder),
        run_id="r",
        annotate="all",
        placement=placement,
        batch_size=4,
    )
    label(job)
    assert verify(Store(str(out))) == []
    rows = pq.read_table(out / layout.labels_folder("r"), columns=["uri", "status", "error_message"]).to_pylist()
    by_name = {_name(row["uri"]).removeprefix(f"{tmp_path}/"): row["status"] for row in rows}
    assert len(by_name) == len(rows)
    assert by_name == {
        **{f"corpus/{os.fsdecode(name)}": status for name, status in expected.items() if status is not None},
        **{name if "://" in name else f"inputs/{name}": status for name, status in listed.items()},
    }
    assert all(row["error_message"] for row in rows if row["status"] != "ok")
    annotated = os.listdir(out / layout.annotated_folder("r"))
    assert len(annotated) == sum(status == "ok" for status in (*expected.values(), *listed.values()))


def _name(uri: str) -> str:
    """Return a local path, also of a name that is not UTF-8; other uris as they are."""
    return path_of_uri(uri) if uri.startswith("file://") else uri


def test_bombs_do_not_fill_memory(tmp_path: Path) -> None:
    """Decode them in a process that may use only 1 GiB of address space more than it starts with."""
    write_corpus(tmp_path / "corpus")
    code = f"""
import resource, pathlib
from mlcls_ray.errors import ImageError
from mlcls_ray.images.decode import decode
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), used + (1 << 30)))
for path in sorted(pathlib.Path({str(tmp_path / "corpus" / "bomb")!r}).iterdir()):
    try:
        decode(path.read_bytes())
    except ImageError as error:
        print(path.name, error.status)
"""
    done = subprocess.run(
        [ROOT / ".venv/bin/python", "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert dict(line.split() for line in done.stdout.splitlines()) == {
        "box.jp2": "too_large", "gif.gif": "too_large", "heic.heic": "too_large", "jp2.jp2": "too_large", "jpeg.jpg": "too_large",
        "jxl.jxl": "too_large", "png.png": "too_large", "tiff.tiff": "too_large", "webp.webp": "too_large",
    }  # fmt: skip


def test_the_script_writes_the_corpus(tmp_path: Path) -> None:
    script = [ROOT / "scripts" / "hostile_corpus", tmp_path / "corpus"]
    assert "entries" in subprocess.run(script, capture_output=True, text=True, check=True).stdout
    assert len((tmp_path / "corpus.expected.tsv").read_text().splitlines()) > 60
    assert subprocess.run(script, capture_output=True, text=True).returncode != 0
