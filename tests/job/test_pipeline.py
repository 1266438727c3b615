"""The job on a real Ray: placements agree, runs resume, every kind of input."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import ray.util

from mlcls_ray.config import LabelJob
from mlcls_ray.errors import FailureLimitError, UsageError
from mlcls_ray.job.label import LabelResult, label
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from mlcls_ray.table.verify import verify
from tests.conftest import BAD_IN_FOLDER, MLCLS, Handler, encode, hard_links, picture, quick_job, reply, run_cli

pytestmark = pytest.mark.usefixtures("loopback_ray")


def labels_of(out: Path, run_id: str) -> pa.Table:
    return pq.read_table(out / layout.labels_folder(run_id)).sort_by("row_id")


def make_job(tiny_folder: Path, out: Path, *inputs: object, **values: object) -> LabelJob:
    return quick_job(
        inputs=tuple(map(str, inputs)), out=str(out), model=str(tiny_folder), run_id="r", batch_size=4, **values
    )


@pytest.fixture(scope="module")
def fused_job(tiny_folder: Path, folder_of_images: Path, tmp_path_factory: pytest.TempPathFactory) -> LabelJob:
    return make_job(tiny_folder, tmp_path_factory.mktemp("fused"), folder_of_images)


@pytest.fixture(scope="module")
def fused_result(loopback_ray: None, fused_job: LabelJob) -> LabelResult:
    before = ray.util.list_named_actors(all_namespaces=True)
    result = label(fused_job)
    # Those of Ray Data would take seconds to start.
    assert ray.util.list_named_actors(all_namespaces=True) == before
    return result


@pytest.fixture(scope="module")
def fused(fused_job: LabelJob, fused_result: LabelResult) -> pa.Table:
    assert fused_result.statuses == {"ok": 25, **dict.fromkeys(BAD_IN_FOLDER.values(), 1)}
    assert verify(Store(fused_job.out)) == []
    return labels_of(Path(fused_job.out), "r")


def test_bad_images_are_rows_with_a_reason(fused: pa.Table, folder_of_images: Path) -> None:
    bad = {
        os.path.relpath(row["uri"], folder_of_images): row["status"]
        for row in fused.to_pylist()
        if row["status"] != "ok"
    }
    assert bad == BAD_IN_FOLDER


def test_split_gives_the_same_rows(fused: pa.Table, tiny_folder: Path, folder_of_images: Path, tmp_path: Path) -> None:
    label(make_job(tiny_folder, tmp_path, folder_of_images, placement="split"))
    assert labels_of(tmp_path, "r").drop_columns(["labeled_at"]).equals(fused.drop_columns(["labeled_at"]))


def test_a_missing_card_is_a_clear_error_not_a_fall_back(
    tiny_folder: Path, folder_of_images: Path, tmp_path: Path
) -> None:
    """The faked GPU schedules the worker, which then finds no such card."""
    with pytest.raises(UsageError, match="no NVIDIA driver on this machine.* \\(on the Ray worker that has the GPU\\)"):
        label(make_job(tiny_folder, tmp_path, folder_of_images, device="gpu"))


def test_a_folder_with_only_bad_images(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    for number in range(3):
        (tmp_path / "bad" / f"{number}.jpg").write_bytes(b"<html>")
    success = label(make_job(tiny_folder, tmp_path / "out", tmp_path / "bad", annotate="all"))
    assert success.statuses == {"not_an_image": 3}
    assert verify(Store(str(tmp_path / "out"))) == []


def test_annotated_sample(tiny_folder: Path, folder_of_images: Path, tmp_path: Path) -> None:
    label(make_job(tiny_folder, tmp_path, folder_of_images / "a", annotate=5, threshold=0.0))
    assert len(os.listdir(tmp_path / layout.annotated_folder("r"))) == 5


def test_lists_globs_and_urls(
    tiny_folder: Path, folder_of_images: Path, tmp_path: Path, http_server: Callable[[Handler], str]
) -> None:
    data = encode(picture())

    def answer(request: SimpleHTTPRequestHandler) -> None:
        reply(
            request,
            data if request.path.startswith("/good") else b"gone",
            200 if request.path.startswith("/good") else 404,
        )

    base = http_server(answer)
    (tmp_path / "list.txt").write_text(f"{base}/good.jpg?token=1\n{base}/gone.jpg\n{folder_of_images}/a/01.jpg\n")
    out = tmp_path / "out"
    success = label(
        make_job(tiny_folder, out, tmp_path / "list.txt", folder_of_images / "b c" / "*.jpg", f"{base}/good2.jpg")
    )
    assert success.statuses == {"ok": 16, "missing": 1}
    rows = labels_of(out, "r").to_pylist()
    assert [row["status"] for row in rows[:3]] == ["ok", "missing", "ok"]
    assert rows[-1]["uri"] == f"{base}/good2.jpg"


def test_a_committed_run_is_left_alone(fused_job: LabelJob, fused_result: LabelResult) -> None:
    assert label(fused_job) == fused_result.model_copy(update={"is_new": False})


@pytest.mark.slow
def test_rows_in_fragments_are_not_scored_again(tiny_folder: Path, tmp_path: Path) -> None:
    """A driver killed with SIGKILL after its first fragments; the next one scores the rest only."""
    images = hard_links(tmp_path / "images", 4000)
    job = make_job(tiny_folder, tmp_path / "out", images, rows_per_fragment=200, block_rows=100)
    code = f"""
from mlcls_ray.config import LabelJob
from mlcls_ray.job.label import label
label(LabelJob.model_validate_json({job.model_dump_json()!r}))
"""
    driver = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stderr=subprocess.DEVNULL)
    labels = tmp_path / "out" / layout.labels_folder("r")
    for _ in range(1200):
        if labels.is_dir() and len([name for name in os.listdir(labels) if name.endswith(".parquet")]) >= 2:
            break
        assert driver.poll() is None
        time.sleep(0.05)
    os.killpg(driver.pid, signal.SIGKILL)  # its Ray goes with it
    driver.wait()
    time.sleep(2)
    survived = {path.name: path.stat().st_mtime_ns for path in labels.glob("*.parquet")}
    done = pq.read_table(labels, columns=["row_id", "labeled_at"]) if survived else None
    assert done is not None
    assert 0 < done.num_rows < 4000
    label(job)
    assert verify(Store(job.out)) == []
    query = f"SELECT count(*), count(DISTINCT row_id) FROM read_parquet('{labels}/*.parquet')"
    total, unique = duckdb.sql(query).fetchall()[0]
    assert (total, unique) == (4000, 4000)
    kept = (
        labels_of(tmp_path / "out", "r")
        .to_pandas()
        .set_index("row_id")
        .loc[done.column("row_id").to_pylist(), "labeled_at"]
    )
    assert kept.tolist() == done.to_pandas()["labeled_at"].tolist(), "their rows are those of the first driver"


def test_too_many_failures_stop_the_run_early(tiny_folder: Path, folder_of_images: Path, tmp_path: Path) -> None:
    job = make_job(tiny_folder, tmp_path, folder_of_images, max_failures=2, block_rows=4, rows_per_fragment=4)
    with pytest.raises(FailureLimitError, match="run 'r' (stopped|is committed)") as caught:
        label(job)
    assert caught.value.exit_code == 3
    assert label(make_job(tiny_folder, tmp_path, folder_of_images)).rows == 30
    assert verify(Store(str(tmp_path))) == []


def test_a_committed_run_with_too_many_failures_says_so(
    tiny_folder: Path, folder_of_images: Path, tmp_path: Path
) -> None:
    """All rows were done before the limit was seen: nothing is thrown away, and the exit code tells."""
    with pytest.raises(FailureLimitError, match=r"committed, but 5 of 30 inputs failed; max_failures is 10%"):
        label(make_job(tiny_folder, tmp_path, folder_of_images, max_failures="10%", workers=1, block_rows=30))
    assert verify(Store(str(tmp_path))) == []


@pytest.mark.slow
def test_ctrl_c_writes_what_is_in_hand(tiny_folder: Path, tmp_path: Path) -> None:
    images = hard_links(tmp_path / "images", 20_000)
    words = ["label", str(images), "--out", str(tmp_path / "out"), "--model", str(tiny_folder), "--engine", "paddle"]
    words += ["--precision", "fp32"]  # nothing to be tried first
    process = subprocess.Popen([MLCLS, *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:  # the first line that tells of rows
        if line[0].isdigit() and not line.startswith("0 of"):
            break
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "Ctrl-C again leaves at once" in told
    written = re.search(r"stopped after ([\d,]+) of 20,000 rows. What is written is kept; the same command", told)
    assert written, told
    assert 0 < int(written[1].replace(",", "")) < 20_000
    (run,) = (tmp_path / "out" / "runs").iterdir()
    assert pq.read_table(run / "labels").num_rows == int(written[1].replace(",", ""))
    run_cli(*words)
    assert [path.name for path in (tmp_path / "out" / "runs").iterdir()] == [run.name], "the same run went on"
    assert verify(Store(str(tmp_path / "out"))) == []


STARTS = {
    "1 CPU": "ray.init(address='local', num_cpus=1, include_dashboard=False, log_to_driver=False)",
    "4 CPUs": "ray.init(address='local', num_cpus=4, include_dashboard=False, log_to_driver=False)",
    "nodes of 1, 1 and 2 CPUs": """
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, connect=True, head_node_args={"num_cpus": 1})
for count in (1, 2):
    cluster.add_node(num_cpus=count)
cluster.wait_for_nodes()
""",
}


@pytest.mark.parametrize(
    ("start", "placement"),
    [
        pytest.param("1 CPU", "fused", marks=pytest.mark.slow),
        pytest.param("1 CPU", "split", marks=pytest.mark.slow),
        pytest.param("4 CPUs", "fused", marks=pytest.mark.slow),
        pytest.param("4 CPUs", "split", marks=pytest.mark.slow),
        pytest.param("nodes of 1, 1 and 2 CPUs", "split", marks=pytest.mark.slow),
        pytest.param("nodes of 1, 1 and 2 CPUs", "fused", marks=pytest.mark.slow),
    ],
)
def test_other_sizes_of_cluster(
    tiny_folder: Path, folder_of_images: Path, tmp_path: Path, start: str, placement: str
) -> None:
    """It must not hang where a pool could take every CPU."""
    job = make_job(tiny_folder, tmp_path, folder_of_images, placement=placement)
    code = f"""
import ray
from mlcls_ray.config import LabelJob
from mlcls_ray.job.label import label
{STARTS[start]}
assert label(LabelJob.model_validate_json({job.model_dump_json()!r})).rows == 30
ray.shutdown()  # before the cluster's own clean-up takes the raylet from under this process
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=180, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert verify(Store(str(tmp_path))) == []
