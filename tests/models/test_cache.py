"""The cache: models are fetched once, whole or not at all, verified, and never written outside its folder. Real HTTP and processes."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from mlcls_ray.config import S3Options
from mlcls_ray.errors import UsageError
from mlcls_ray.models.artifact import Model, load_model
from mlcls_ray.models.cache import cached_folder, once, open_model, open_shipped, pull, ship
from tests.conftest import Handler, reply, run_cli
from tests.s3_servers import BUCKET, filesystem

NAME = "PP-LCNet_x1_0_ML"
Serve = Callable[[Handler], str]


def archive(folder: Path, prefix: str = f"{NAME}_infer/", **extra: tarfile.TarInfo) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for member in extra.values():
            tar.addfile(member, io.BytesIO(b"x" * member.size))
        for path in folder.iterdir():
            tar.add(path, prefix + path.name)
    return stream.getvalue()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLCLS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def mirror(http_server: Serve, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], list[str]]:
    """Serve one body for every path; returns the list of requested paths."""

    def start(body: bytes) -> list[str]:
        paths: list[str] = []

        def answer(request: SimpleHTTPRequestHandler) -> None:
            paths.append(request.path)
            reply(request, body)

        monkeypatch.setenv("MLCLS_MODEL_MIRROR", http_server(answer) + "/models/")
        return paths

    return start


def test_an_official_name_is_fetched_once(home: Path, mirror: Callable[[bytes], list[str]], tiny_folder: Path) -> None:
    paths = mirror(archive(tiny_folder))
    assert cached_folder(NAME) is None
    first = open_model(NAME)
    assert open_model(NAME).fingerprint == first.fingerprint
    assert paths == [f"/models/{NAME}_infer.tar"]
    assert cached_folder(NAME) == home / "models" / NAME
    assert (home / "models" / NAME / "source.json").is_file()


def test_many_processes_fetch_once(home: Path, mirror: Callable[[bytes], list[str]], tiny_folder: Path) -> None:
    paths = mirror(archive(tiny_folder))
    code = f"from mlcls_ray.models.cache import open_model; print(open_model({NAME!r}).fingerprint)"
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(4)]
    assert len({process.communicate()[0] for process in running}) == 1
    assert len(paths) == 1


def test_a_changed_file_is_refused(home: Path, mirror: Callable[[bytes], list[str]], tiny_folder: Path) -> None:
    mirror(archive(tiny_folder))
    parameters = open_model(NAME).parameters
    parameters.write_bytes(parameters.read_bytes()[:-1] + b"!")
    with pytest.raises(UsageError, match="has changed since it was fetched; delete"):
        open_model(NAME)


def test_a_fetch_killed_halfway_leaves_nothing(
    home: Path, http_server: Serve, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = archive(tiny_folder)
    reached = threading.Event()
    release = threading.Event()

    def answer(request: SimpleHTTPRequestHandler) -> None:
        if reached.is_set():
            reply(request, body)
            return
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[:100])
        request.wfile.flush()
        reached.set()
        release.wait(20)

    monkeypatch.setenv("MLCLS_MODEL_MIRROR", http_server(answer))
    process = subprocess.Popen(
        [sys.executable, "-c", f"from mlcls_ray.models.cache import open_model; open_model({NAME!r})"]
    )
    assert reached.wait(20)
    process.kill()
    process.wait()
    release.set()
    assert cached_folder(NAME) is None
    assert open_model(NAME).name == "tiny"


def test_a_conversion_that_dies_leaves_nothing(tmp_path: Path) -> None:
    def die(path: Path) -> None:
        path.write_text("half")
        raise KeyboardInterrupt

    target = tmp_path / "converted" / "model.onnx"
    with pytest.raises(KeyboardInterrupt):
        once(target, die)
    assert [path.name for path in target.parent.iterdir()] == [".model.onnx.lock"]
    assert once(target, lambda path: path.write_text("whole") and None).read_text() == "whole"
    assert once(target, die).read_text() == "whole"


def test_what_is_not_valid_is_made_again(tmp_path: Path) -> None:
    def make(path: Path) -> None:
        path.mkdir()
        (path / "mark").touch()

    target = tmp_path / "folder"
    target.mkdir()
    (target / "leftover").touch()
    once(target, make, lambda path: (path / "mark").exists())
    assert [path.name for path in target.iterdir()] == ["mark"]


def test_a_cache_that_cannot_be_written() -> None:
    with pytest.raises(UsageError, match="the model cache /proc/mlcls cannot be written .*; set MLCLS_HOME"):
        once(Path("/proc/mlcls/file"), Path.touch)


def unsafe_members() -> dict[str, tarfile.TarInfo]:
    outside, absolute = tarfile.TarInfo("m/../../evil.txt"), tarfile.TarInfo("/tmp/evil.txt")
    link = tarfile.TarInfo("m/inference.json")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    hard = tarfile.TarInfo("m/inference.json")
    hard.type, hard.linkname = tarfile.LNKTYPE, "../../x"
    device = tarfile.TarInfo("m/inference.yml")
    device.type = tarfile.CHRTYPE
    return {"parent": outside, "absolute": absolute, "symlink": link, "hard link": hard, "device": device}


@pytest.mark.parametrize("kind", unsafe_members())
def test_unsafe_archives_are_refused(
    home: Path, mirror: Callable[[bytes], list[str]], tiny_folder: Path, kind: str
) -> None:
    mirror(archive(tiny_folder, member=unsafe_members()[kind]))
    with pytest.raises(UsageError, match="could reach outside its folder; refused"):
        open_model(NAME)
    assert cached_folder(NAME) is None
    assert not list(home.rglob("evil.txt"))


def test_what_is_not_a_model_is_not_cached(home: Path, mirror: Callable[[bytes], list[str]]) -> None:
    mirror(b"<html>login</html>")
    with pytest.raises(UsageError, match="cannot be unpacked"):
        open_model(NAME)
    assert cached_folder(NAME) is None


def test_offline_says_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLCLS_MODEL_MIRROR", "http://127.0.0.1:9/models")
    with pytest.raises(UsageError) as caught:
        pull(NAME)
    for hint in ("MLCLS_MODEL_MIRROR", f"mlcls models pull {NAME}", "local model folder"):
        assert hint in str(caught.value)


def test_unknown_names_and_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown model 'PP-LCNet_x1_ML': did you mean 'PP-LCNet_x1_0_ML'"):
        open_model("PP-LCNet_x1_ML")
    with pytest.raises(UsageError, match="does not exist"):
        open_model("./nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        open_model(str(tmp_path / "file"))


def test_a_model_folder_on_s3(home: Path, s3_endpoint: str, tiny_folder: Path) -> None:
    client = filesystem(s3_endpoint)
    for path in tiny_folder.iterdir():
        client.pipe_file(f"{BUCKET}/models/mine/{path.name}", path.read_bytes())
    client.pipe_file(f"{BUCKET}/models/mine/thresholds.yml", b"dog: 0.25")
    s3 = S3Options(endpoint_url=s3_endpoint)
    first = open_model(f"s3://{BUCKET}/models/mine/", s3)
    assert first.folder.parent == home / "models"
    assert first.thresholds == (0.5, 0.25, 0.5)
    assert open_model(f"s3://{BUCKET}/models/mine", s3).fingerprint == first.fingerprint
    with pytest.raises(UsageError, match="holds no inference.yml"):
        open_model(f"s3://{BUCKET}/models/none", s3)


def test_the_command(home: Path, mirror: Callable[[bytes], list[str]], tiny_folder: Path) -> None:
    paths = mirror(archive(tiny_folder))
    assert run_cli("models", "pull", NAME).stdout.strip() == str(home / "models" / NAME)
    assert len(paths) == 1
    assert str(home / "models" / NAME) in run_cli("models", env={"COLUMNS": "300"}).stdout
    assert "did you mean 'ResNet50_ML'" in run_cli("models", "pull", "ResNet5_ML", check=2).stderr
    assert os.listdir(home / "models") != []


def test_a_shipped_model_keeps_its_thresholds(home: Path, tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    plain = load_model(folder)
    assert open_shipped(plain.fingerprint, ship(plain)).thresholds == (0.5, 0.5, 0.5)
    (folder / "thresholds.yml").write_text("dog: 0.25")
    model = load_model(folder)
    assert model.fingerprint == plain.fingerprint, "the scores are the same"
    assert open_shipped(model.fingerprint, ship(model)).thresholds == (0.5, 0.25, 0.5)


def test_a_shipped_model_is_written_once(home: Path, tiny_model: Model) -> None:
    files = ship(tiny_model)
    first = open_shipped(tiny_model.fingerprint, files)
    written = first.program.stat().st_mtime_ns
    assert first.fingerprint == tiny_model.fingerprint
    assert first.folder.parent == home / "models"
    assert open_shipped(tiny_model.fingerprint, files).program.stat().st_mtime_ns == written
    first.parameters.write_bytes(b"changed")
    with pytest.raises(UsageError, match="has changed since it was fetched"):
        open_shipped(tiny_model.fingerprint, files)
