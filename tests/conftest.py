"""What the tests share: pictures, a tiny real model, the data folder, servers on loopback, and a Ray on loopback."""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

# Before Ray is imported anywhere: loopback only, and quiet.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
os.environ.pop("RAY_ADDRESS", None)
# Ray's workers would yield to the other process of the tests, and wait while it has work for a CPU.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
# Verdicts about engines and converted models of this session only: what was found here before must not decide a test. The processes of
# the tests have them together.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["MLCLS_HOME"] = tempfile.mkdtemp(prefix="mlcls-tests-")
    atexit.register(shutil.rmtree, os.environ["MLCLS_HOME"], ignore_errors=True)

from benchmarks.tiny_network import export_tiny

from mlcls_ray.cli import main
from mlcls_ray.config import LabelJob
from mlcls_ray.models.artifact import Model, load_model
from mlcls_ray.models.convert.onnx import cached_onnx
from tests.s3_servers import CREDENTIALS

# Before Ray is started anywhere: its workers keep the environment that it was started with.
os.environ.update(CREDENTIALS)
pytest_plugins = ["tests.explore.labeled"]
"""A label table with everything in it, and a real browser."""
ROOT = Path(__file__).parent.parent
MLCLS = str(Path(sys.executable).parent / "mlcls")
TINY_VOCABULARY = ("cat", "dog", "猫")


RAY_FOLDERS = {"e2e", "faults", "notebooks"}
QUIET_FOLDERS = {"datasets", "engines", "explore", "predict", "serve", "train"}
"""Their tests use Ray little enough to run beside the others."""
RAY_WORDS = re.compile(
    r"loopback_ray|fresh_ray|LOOPBACK_ONLY|MLCLS, \"label|run_(cli|installed)\(\s*\"(label|demo|nightly|retry)"
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give the test files that start Ray to one process: two Rays on two cores take more than twice as long. The others run beside it.

    Not by marks of `xdist_group`: xdist 3.8 changes a field for them that pytest 9.2 does not read.
    """
    from xdist.scheduler import LoadScopeScheduling

    class RayFilesTogether(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "ray" if starts_ray(ROOT / file) else file

    return RayFilesTogether(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that end the Ray of the others come last: a Ray takes seconds to start."""
    items.sort(key=lambda item: "fresh_ray" in getattr(item, "fixturenames", ()))


@functools.cache
def starts_ray(path: Path) -> bool:
    folder = path.parent.name
    return folder in RAY_FOLDERS or (folder not in QUIET_FOLDERS and bool(RAY_WORDS.search(path.read_text("utf-8"))))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data: real images with labels, which are not part of the project")
    return folder


@pytest.fixture(scope="session")
def demo() -> Path:
    return ROOT / "mlcls_ray" / "demo"


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    export_tiny(folder, TINY_VOCABULARY)
    # Jobs take OpenVINO then, in place of Paddle, which each worker would take seconds to load.
    cached_onnx(load_model(folder))
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_folder: Path) -> Model:
    return load_model(tiny_folder)


def encode(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def picture(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    """Smooth colours, so that JPEG keeps them."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def quick_job(**fields: Any) -> LabelJob:
    """A job for tests that ask nothing of the engine: one worker, with the engine that loads fastest."""
    return LabelJob(**{"workers": 1, "engine": "openvino", "precision": "fp32", **fields})


def hard_links(folder: Path, count: int) -> Path:
    """A new folder of `count` names for one small image."""
    folder.mkdir()
    original = folder / "00000.jpg"
    original.write_bytes(encode(picture()))
    for number in range(1, count):
        os.link(original, folder / f"{number:05d}.jpg")
    return folder


@pytest.fixture(scope="session")
def folder_of_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """25 good images in nested folders, and five files that are bad in five ways."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(25):
        path = folder / ("a" if number % 2 else "b c") / f"{number:02d}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(picture(seed=number), quality=90))
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("<html>not found</html>")
    (folder / "cut.jpg").write_bytes(encode(picture(300, 200), quality=95)[:2000])
    (folder / "dangling.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "layers.psd.jpg").write_bytes(b"8BPS\0\1" + b"\0" * 64)
    (folder / "notes.txt").write_text("not an image, not taken\n")
    return folder


BAD_IN_FOLDER = {
    "empty.jpg": "empty",
    "text.jpg": "not_an_image",
    "cut.jpg": "corrupt",
    "dangling.jpg": "missing",
    "layers.psd.jpg": "unsupported",
}


def run_cli(
    *words: object, check: int | None = 0, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The command, in this process: its packages are loaded already, and it uses the Ray that this process is connected to."""
    stdout, stderr = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    code = 0
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (env or {}).items():
            patch.setenv(name, value)
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            try:
                main([*map(str, words)])
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
    printed = [stream.buffer.getvalue().decode() for stream in (stdout, stderr)]  # type: ignore[attr-defined]
    return checked(subprocess.CompletedProcess([*map(str, words)], code, *printed), check)


def run_installed(
    *words: object,
    check: int | None = 0,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 240,
) -> subprocess.CompletedProcess[str]:
    """The installed command in a process of its own, as a user runs it; a job starts its own Ray, which takes seconds."""
    done = subprocess.run(
        [MLCLS, *map(str, words)],
        capture_output=True, text=True, timeout=timeout, cwd=cwd, env={**os.environ, **(env or {})},
    )  # fmt: skip
    return checked(done, check)


def checked(done: subprocess.CompletedProcess[str], code: int | None) -> subprocess.CompletedProcess[str]:
    if code is not None:
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def loopback_ray() -> None:
    """A Ray for the tests that run in this process. The next module takes it over."""
    start_ray()


def start_ray() -> None:
    """Start Ray for the tests of this process, if none runs yet: two CPUs, two faked GPUs, two faked NPUs."""
    import ray

    from mlcls_ray.job.cluster import connect
    from mlcls_ray.job.own_ray import own_node

    if not ray.is_initialized():
        options = {"num_cpus": 2, "num_gpus": 2, "resources": {"NPU": 2}}
        with own_node():
            ray.init(address="local", include_dashboard=False, log_to_driver=False, **options)
    assert [node["NodeManagerAddress"] for node in ray.nodes()] == ["127.0.0.1"]
    connect(None)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(disk)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a small disk")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


Handler = Callable[[SimpleHTTPRequestHandler], None]


@pytest.fixture
def http_server() -> Iterator[Callable[[Handler], str]]:
    """Start a real HTTP server around a function that answers GET and POST; returns its base URL."""
    servers = []

    def start(answer: Handler) -> str:
        class Requests(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                answer(self)

            do_HEAD = do_POST = do_GET

            def log_message(self, *words: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Requests)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def reply(request: SimpleHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    request.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)


def serve_s3(start: Callable[[Path], tuple[subprocess.Popen[bytes], str]], folder: Path) -> Iterator[str]:
    """The endpoint of a real S3 server with an empty bucket; credentials in the environment, the usual way."""
    from tests import s3_servers

    process, endpoint = start(folder)
    try:
        s3_servers.wait_until_ready(process, endpoint)
        yield endpoint
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from tests.s3_servers import start_moto

    yield from serve_s3(start_moto, tmp_path_factory.mktemp("moto"))


@pytest.fixture(scope="session")
def juicefs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from tests.s3_servers import start_juicefs

    yield from serve_s3(start_juicefs, tmp_path_factory.mktemp("juicefs"))


@pytest.fixture(params=["moto", "juicefs"])
def s3_endpoint(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture(params=["moto", pytest.param("juicefs", marks=pytest.mark.slow)])
def s3_slowly(request: pytest.FixtureRequest) -> str:
    """For the longer tests: one server in the default tier, both in the slow one."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def fresh_ray() -> Iterator[None]:
    """For a test whose workers need the environment of now: Ray is started by the job itself, and ended after it."""
    import ray

    if ray.is_initialized():
        ray.shutdown()
    yield
    ray.shutdown()
