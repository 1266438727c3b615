"""The service over real HTTP: PaddleX's responses, a 4xx with a reason for bad requests, limits, private addresses, token, shutdown."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import grpc
import httpx
import psutil
import pytest
from PIL import Image

from mlcls_ray import create_pipeline
from mlcls_ray.serve.wire import PATH
from tests.conftest import ROOT, TINY_VOCABULARY, Handler, encode, picture, reply
from tests.pages import console_commands
from tests.serve.service import Service, serving

MAX_BODY = 300_000
TOKEN = "let me in"
SLOW = 40
"""Requests with URLs that wait for their images' server at once."""


def text_of(image_bytes: bytes) -> str:
    return base64.b64encode(image_bytes).decode()


GOOD = text_of(encode(picture()))


@pytest.fixture(scope="module")
def service(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    config = folder / "serve.yaml"
    config.write_text(
        f"engine: paddle\nprecision: fp32\nmax_body_bytes: {MAX_BODY}\nbatch_wait_ms: 20\nmax_pixels: 1000000\n"
    )
    with serving(folder / "log", "--model", tiny_folder, "--config", config) as started:
        yield started


@pytest.fixture(scope="module")
def guarded(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a token, which may fetch from loopback."""
    folder = tmp_path_factory.mktemp("guarded")
    with serving(
        folder / "log",
        "--model",
        tiny_folder,
        "--allow-private-urls",
        "--max-fetches",
        SLOW // 2,
        "--engine",
        "openvino",
        "--precision",
        "fp32",
        token=TOKEN,
    ) as started:
        started.client.headers["Authorization"] = f"Bearer {TOKEN}"
        yield started


def test_health_and_openapi(service: Service) -> None:
    answer = service.client.get("/health")
    assert answer.json() | {"logId": ""} == {"logId": "", "errorCode": 0, "errorMsg": "Healthy"}
    openapi = service.client.get("/openapi.json").json()
    assert set(openapi["paths"]) == {"/health", PATH}
    assert "threshold" in json.dumps(openapi["paths"][PATH]["post"]["requestBody"])


def test_the_page_of_docs_loads_nothing(service: Service) -> None:
    page = service.client.get("/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    assert re.findall(r"""(?:src|href)=["']([^"']*)""", page.text) == ["openapi.json"]
    assert "<script" not in page.text
    for shown in (PATH, "/health", "threshold", "topK", "inferenceParams", "413", "base64 -w0 photo.jpg"):
        assert shown in page.text


def test_the_commands_of_the_page_label_a_real_photograph(service: Service, demo: Path, tmp_path: Path) -> None:
    shutil.copy(demo / "boats.jpg", tmp_path / "photo.jpg")  # its base64 is longer than an argument of a program may be
    commands = [command for command in console_commands(ROOT / "docs/serve.md") if "curl" in command]
    answers = []
    for command in commands:
        done = subprocess.run(
            ["bash", "-c", command.replace("http://127.0.0.1:8080", service.url)],
            capture_output=True, text=True, cwd=tmp_path, timeout=60,
        )  # fmt: skip
        answers.append(json.loads(done.stdout))
        assert (done.stderr, answers[-1]["errorMsg"]) == ("", "Success")
    assert len(answers) == 2
    assert answers[0]["result"] == answers[1]["result"]


def test_the_response_equals_predict_in_paddlex_form(service: Service, tiny_folder: Path, demo: Path) -> None:
    (expected,) = create_pipeline(model=tiny_folder).predict(demo / "cat.jpg", threshold=0.3)
    answer = service.post(image=text_of((demo / "cat.jpg").read_bytes()), threshold=0.3, logId="mine")
    assert answer.status_code == 200
    body = answer.json()
    assert list(body) == ["logId", "errorCode", "errorMsg", "result"]
    assert (body["logId"], body["errorCode"], body["errorMsg"]) == ("mine", 0, "Success")
    categories = body["result"]["categories"]
    assert [category["id"] for category in categories] == expected["class_ids"]
    assert [category["name"] for category in categories] == expected["label_names"]
    assert [category["score"] for category in categories] == pytest.approx(expected["scores"], abs=2e-5)
    with Image.open(io.BytesIO(base64.b64decode(body["result"]["image"]))) as annotated:
        assert annotated.format == "JPEG"


def test_options_of_a_request(service: Service) -> None:
    assert "image" not in service.post(image=GOOD, visualize=False).json()["result"]
    assert service.post(image=f"data:image/jpeg;base64,{GOOD}", visualize=None, other=1).status_code == 200
    everything = {"threshold": 0.0, "image": GOOD, "visualize": False}
    assert len(service.post(**everything).json()["result"]["categories"]) == 3
    assert len(service.post(**everything, inferenceParams={"topK": 2}).json()["result"]["categories"]) == 2
    nested = service.post(image=GOOD, visualize=False, inferenceParams={"threshold": 1.0}).json()
    assert nested["result"]["categories"] == []
    for threshold in ({"default": 1, "cat": 0}, {"default": 1, "0": 0}, [0, 1, 1.0]):
        (only,) = service.post(image=GOOD, visualize=False, threshold=threshold).json()["result"]["categories"]
        assert only["name"] == TINY_VOCABULARY[0]


def test_the_file_itself_with_options_in_the_url(service: Service) -> None:
    def post(content_type: str = "image/jpeg", **options: object) -> httpx.Response:
        return service.client.post(
            PATH,
            content=encode(picture()),
            headers={"Content-Type": content_type},
            params={"visualize": "no", **options},
        )

    expected = service.post(image=GOOD, visualize=False, threshold=0.0).json()["result"]
    for content_type in ("image/jpeg", "IMAGE/PNG; x=y", "application/octet-stream"):
        assert post(content_type, threshold=0).json()["result"] == expected
    answer = post(threshold=0, topK=1, logId="mine", visualize="yes", other=1).json()
    assert (answer["logId"], len(answer["result"]["categories"]), "image" in answer["result"]) == ("mine", 1, True)
    for wrong, reason in (
        ({"threshold": 2}, "less than"),
        ({"topK": 0}, "greater than"),
        ({"visualize": "?"}, "boolean"),
    ):
        answer = post(**wrong)
        assert (answer.status_code, answer.json()["errorCode"]) == (422, 422)
        assert reason in answer.json()["errorMsg"]
    empty = service.client.post(PATH, content=b"", headers={"Content-Type": "image/jpeg"})
    assert (empty.status_code, empty.json()["errorMsg"]) == (422, "empty: 0 bytes")


def test_base64_may_have_line_breaks(service: Service) -> None:
    assert service.post(image=base64.encodebytes(encode(picture())).decode(), visualize=False).status_code == 200


BAD_REQUESTS = {
    "no image": ({}, 422, "Field required"),
    "number": ({"image": 3}, 422, "valid string"),
    "empty": ({"image": ""}, 422, "at least 1 character"),
    "not base64": ({"image": "photo.jpg"}, 422, "neither an http"),
    "local file": ({"image": "file:///etc/passwd"}, 422, "neither an http"),
    "not an image": ({"image": text_of(b"<html>")}, 422, "not_an_image"),
    "cut": ({"image": text_of(encode(picture(300, 200), quality=95)[:2000])}, 422, "corrupt"),
    "too many pixels": ({"image": text_of(encode(picture(1200, 1000), quality=5))}, 413, "too_large: 1200x1000"),
    "threshold": ({"image": GOOD, "threshold": 2}, 422, "less than or equal to 1"),
    "class": ({"image": GOOD, "threshold": {"default": 0.5, "unicorn": 0.1}}, 422, "unicorn"),
    "length": ({"image": GOOD, "threshold": [0.5]}, 422, "1 numbers for 3 classes"),
    "loopback": ({"image": "http://127.0.0.1:1/a.jpg"}, 403, "not a public address"),
    "loopback by name": ({"image": "http://localhost:1/a.jpg"}, 403, "not a public address"),
    "loopback in IPv6": ({"image": "http://[::1]:1/a.jpg"}, 403, "not a public address"),
    "private": ({"image": "http://10.0.0.1/a.jpg"}, 403, "not a public address"),
    "metadata": ({"image": "http://169.254.169.254/latest"}, 403, "refused"),
    "decimal loopback": ({"image": "http://2130706433/"}, 403, "not a public address"),
    "unknown host": ({"image": "https://nowhere.invalid/a.jpg"}, 424, "missing"),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_bad_requests_get_a_4xx_with_the_reason(service: Service, case: str) -> None:
    body, code, reason = BAD_REQUESTS[case]
    answer = service.post(**body)
    assert (answer.status_code, answer.json()["errorCode"]) == (code, code)
    assert reason in answer.json()["errorMsg"]
    assert "result" not in answer.json()


def test_every_error_is_in_the_envelope(service: Service) -> None:
    large = service.post(image="A" * (MAX_BODY + 1))
    chunked = service.client.post(PATH, content=(b"x" * 100_000 for _ in range(20)))  # no Content-Length
    answers = {
        "broken JSON": (service.client.post(PATH, content=b"{"), 422, "Invalid JSON"),
        "no text": (service.client.post(PATH, content=b"\xff\xfe"), 422, "Invalid JSON"),
        "wrong method": (service.client.get(PATH), 405, f"Method Not Allowed: GET {PATH}"),
        "wrong method of health": (service.client.post("/health"), 405, "Method Not Allowed"),
        "root": (service.client.get("/"), 404, f"Not Found: GET /; POST {PATH} labels an image"),
        "unknown path": (service.client.post("/multilabel", json={"image": GOOD}), 404, "Not Found: POST /multilabel"),
        "too large": (large, 413, f"the body is larger than {MAX_BODY} bytes"),
        "too large, in chunks": (chunked, 413, f"the body is larger than {MAX_BODY} bytes"),
    }
    for answer, code, message in answers.values():
        assert (answer.status_code, answer.json()["errorCode"]) == (code, code)
        assert message in answer.json()["errorMsg"]
        assert set(answer.json()) == {"logId", "errorCode", "errorMsg"}
    assert answers["wrong method"][0].headers["Allow"] == "POST"


def test_concurrent_requests_get_their_own_scores(service: Service, tiny_folder: Path) -> None:
    images = [encode(picture(seed=number)) for number in range(40)]
    expected = list(create_pipeline(model=tiny_folder).predict(images, threshold=0.0))

    def request_scores(image_bytes: bytes) -> list[float]:
        body = {"image": text_of(image_bytes), "threshold": 0.0, "visualize": False}
        answer = httpx.post(service.url + PATH, json=body, timeout=60)
        return [category["score"] for category in answer.json()["result"]["categories"]]

    with ThreadPoolExecutor(16) as clients:
        for scores, result in zip(clients.map(request_scores, images), expected, strict=True):
            assert scores == pytest.approx(result["scores"], abs=2e-5)


def test_ports_beyond_loopback_need_rays_token(service: Service) -> None:
    """Ray Serve binds each replica's gRPC port to every address, without an option to change that; Ray's own token protects it."""
    parent = psutil.Process(service.process.pid)
    listening = [
        (process.name(), connection.laddr)
        for process in (parent, *parent.children(recursive=True))
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    beyond = [
        (name, address) for name, address in listening if address.ip not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")
    ]
    assert len(listening) > 3
    assert [name.partition(":mlcls")[0] for name, _ in beyond] in ([], ["ray::ServeReplica"])
    for _, address in beyond:
        with grpc.insecure_channel(f"127.0.0.1:{address.port}") as channel:
            for method in ("HandleRequest", "HandleRequestStreaming"):
                with pytest.raises(grpc.RpcError) as refused:
                    channel.unary_unary(f"/ray.serve.ASGIService/{method}")(b"", timeout=20)
                assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_schemathesis_finds_no_server_error(service: Service) -> None:
    """A few hundred requests, some that the schema allows and some that it does not."""
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "st"),
            "run",
            service.url + "/openapi.json",
            "--checks=not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
            "--max-examples=40",
            "--seed=1",
            "--no-color",
        ],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert re.search(r"[1-9]\d* (generated|passed)", done.stdout), done.stdout[-2000:]


def test_the_token_is_required(guarded: Service) -> None:
    for header in ({}, {"Authorization": "Bearer no"}, {"Authorization": f"Basic {TOKEN}"}):
        answer = httpx.post(guarded.url + PATH, json={"image": GOOD}, headers=header, timeout=60)
        assert (answer.status_code, answer.json()["errorCode"]) == (401, 401)
    assert httpx.get(guarded.url + "/health", timeout=60).status_code == 200
    assert guarded.post(image=GOOD).status_code == 200


def test_images_by_url(guarded: Service, http_server: Callable[[Handler], str]) -> None:
    def answer(request: SimpleHTTPRequestHandler) -> None:
        good = request.path == "/a.jpg?signature=x%2Fy"
        content = encode(picture()) if good else b"<html>"
        request.send_response(404 if request.path == "/gone" else 200)
        request.end_headers()
        request.wfile.write(content)

    server = http_server(answer)
    assert guarded.post(image=f"{server}/a.jpg?signature=x%2Fy").status_code == 200
    assert guarded.post(image=f"{server}/page").status_code == 422
    gone = guarded.post(image=f"{server}/gone")
    assert (gone.status_code, gone.json()["errorMsg"]) == (424, "missing: HTTP 404")


def test_urls_that_answer_slowly_keep_nobody_else_waiting(
    guarded: Service, http_server: Callable[[Handler], str]
) -> None:
    asked, go_on = threading.Semaphore(0), threading.Event()

    def answer(request: SimpleHTTPRequestHandler) -> None:
        asked.release()
        assert go_on.wait(60)
        reply(request, encode(picture()))

    def post(image: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return httpx.post(guarded.url + PATH, json={"image": image, "visualize": False}, headers=headers, timeout=90)

    url = f"{http_server(answer)}/slow.jpg"
    with ThreadPoolExecutor(SLOW + 1) as clients:
        slow = [clients.submit(post, url) for _ in range(SLOW + 1)]
        refused = next(as_completed(slow)).result()  # one too many; the others wait
        assert (refused.status_code, refused.json()["errorCode"], refused.headers["Retry-After"]) == (503, 503, "1")
        assert "max_fetches" in refused.json()["errorMsg"]
        for _ in range(SLOW // 2):
            assert asked.acquire(timeout=60)
        began = time.monotonic()
        assert post(GOOD).status_code == 200
        assert guarded.client.get("/health").status_code == 200
        assert time.monotonic() - began < 10, "a plain request waited for others' images"
        go_on.set()
        assert sorted(future.result().status_code for future in slow) == [200] * SLOW + [503]


def wait_until_closed(service: Service, timeout_s: float = 15.0) -> None:
    """Wait until the service takes no new requests."""
    deadline = time.monotonic() + timeout_s
    with contextlib.suppress(httpx.TransportError):
        while httpx.get(service.url + "/health", timeout=5).status_code == 200:
            assert time.monotonic() < deadline, "the service still takes requests"
            time.sleep(0.1)


def test_running_requests_are_answered_before_the_service_ends(
    guarded: Service, http_server: Callable[[Handler], str]
) -> None:
    """The last test of `guarded`: it stops the service."""
    is_fetching, is_closed = threading.Event(), threading.Event()

    def answer(request: SimpleHTTPRequestHandler) -> None:
        is_fetching.set()
        assert is_closed.wait(30)
        request.send_response(200)
        request.end_headers()
        request.wfile.write(encode(picture()))

    url = f"{http_server(answer)}/slow.jpg"
    with ThreadPoolExecutor(1) as client:
        slow = client.submit(guarded.post, image=url)
        assert is_fetching.wait(30)
        guarded.process.send_signal(signal.SIGTERM)
        wait_until_closed(guarded)
        is_closed.set()
        assert slow.result().status_code == 200
    assert guarded.process.wait(60) == 0
