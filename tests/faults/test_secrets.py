"""Nothing that is logged carries a password, a key or the signature of a URL, whatever the loggers of the process take."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from mlcls_ray.job.label import label
from mlcls_ray.job.nightly import LOG, Summary, open_log, post
from mlcls_ray.logs import LIBRARY_LEVELS
from tests.conftest import Handler, encode, picture, quick_job, reply, run_installed
from tests.s3_servers import BUCKET, CREDENTIALS, filesystem

SECRET = f"secret{uuid.uuid4().hex}"


@pytest.fixture
def everything(tmp_path: Path) -> Iterator[Path]:
    """A file with all that is logged in this process, at every level."""
    root = logging.getLogger()
    level, handler = root.level, logging.FileHandler(tmp_path / "driver.log")
    root.setLevel(logging.DEBUG)
    root.addHandler(handler)
    logging.getLogger("another").debug("the log takes everything")
    yield tmp_path / "driver.log"
    root.removeHandler(handler)
    root.setLevel(level)
    handler.close()


@pytest.fixture
def signed_urls(http_server: Callable[[Handler], str]) -> list[str]:
    """One that is an image, one that is none, one that is not there, and one behind a redirect."""

    def answer(request: SimpleHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        if path == "/moved.jpg":
            reply(request, b"", 302, Location=f"/good.jpg?X-Amz-Signature={SECRET}")
        else:
            body = {"/good.jpg": encode(picture()), "/text.jpg": b"no image"}.get(path)
            reply(request, body or b"", 200 if body else 404)

    host = http_server(answer).removeprefix("http://")
    names = ("good", "text", "none", "moved")
    return [f"http://user:{SECRET}@{host}/{name}.jpg?X-Amz-Signature={SECRET}&token={SECRET}" for name in names]


def files_with(secrets: tuple[str, ...], folder: Path) -> list[str]:
    contents = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert contents
    return [str(path) for path, content in contents.items() if any(secret.encode() in content for secret in secrets)]


@pytest.mark.usefixtures("loopback_ray")
def test_a_run_over_signed_urls(signed_urls: list[str], everything: Path, tiny_folder: Path, tmp_path: Path) -> None:
    import ray

    (tmp_path / "list.txt").write_text("\n".join(signed_urls))
    out = tmp_path / "out"
    result = label(quick_job(inputs=(str(tmp_path / "list.txt"),), out=str(out), model=str(tiny_folder), run_id="r"))
    assert result.statuses == {"ok": 2, "not_an_image": 1, "missing": 1}
    assert everything.stat().st_size > 0
    assert SECRET not in everything.read_text()
    session = Path(ray._private.worker._global_node.get_session_dir_path())  # type: ignore[attr-defined]
    assert files_with((SECRET,), session / "logs") == []
    with_secret = files_with((SECRET,), out)
    assert all("/manifest/" in name for name in with_secret), "the manifest has to know how to read them again"


@pytest.fixture
def s3_photos(moto: str) -> str:
    """Made before anything is logged: this client is the test's own."""
    base = f"{BUCKET}/{uuid.uuid4().hex}"
    filesystem(moto).pipe_file(f"{base}/photos/a.jpg", encode(picture()))
    return base


@pytest.mark.usefixtures("loopback_ray")
def test_a_run_over_s3(moto: str, s3_photos: str, everything: Path, tiny_folder: Path) -> None:
    import ray

    out = f"s3://{s3_photos}/out"
    s3 = {"endpoint_url": moto}
    label(quick_job(inputs=(f"s3://{s3_photos}/photos",), out=out, model=str(tiny_folder), run_id="r", s3=s3))
    keys = (CREDENTIALS["AWS_SECRET_ACCESS_KEY"], "X-Amz-Signature", "Signature=")
    logged = everything.read_text()
    assert not any(key in logged for key in keys)
    session = Path(ray._private.worker._global_node.get_session_dir_path())  # type: ignore[attr-defined]
    assert files_with(keys, session / "logs") == []
    record = filesystem(moto).cat_file(f"{s3_photos}/out/runs/r/run.json")
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"].encode() not in record


def test_predict_logs_no_url(signed_urls: list[str], tiny_folder: Path, tmp_path: Path) -> None:
    done = run_installed("predict", "--input", signed_urls[0], "--model", tiny_folder, cwd=tmp_path)
    assert "good.jpg" in done.stdout
    assert SECRET not in done.stderr, "the result names its input as it was written; nothing else does"


def test_a_webhook_that_fails(everything: Path, tmp_path: Path) -> None:
    summary = Summary(started_at=datetime.now(timezone.utc), seconds=1.0, exit_code=2, out="out")
    post(f"http://user:{SECRET}@127.0.0.1:9/{SECRET}?key={SECRET}", summary, open_log(tmp_path / "logs"))
    assert files_with((SECRET,), tmp_path) == []
    assert "could not be reached" in (tmp_path / "logs" / LOG).read_text()


def test_every_library_is_named_once() -> None:
    assert list(LIBRARY_LEVELS) == sorted(LIBRARY_LEVELS)
    assert min(LIBRARY_LEVELS.values()) >= logging.WARNING
