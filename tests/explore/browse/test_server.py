"""Who may ask the browser's server, and for what."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlcls_ray import open_labels
from mlcls_ray.errors import UsageError
from mlcls_ray.explore.browse.guard import own_hosts
from mlcls_ray.explore.browse.index import Index
from mlcls_ray.explore.browse.pictures import Pictures
from mlcls_ray.explore.browse.server import serve
from mlcls_ray.explore.browse.session import Subject
from mlcls_ray.storage.uris import path_of_uri
from tests.explore.browse.served import HOSTILE, PRIVATE, Server, serving, write_output


@pytest.fixture(scope="module")
def server(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(write_output(tmp_path_factory.mktemp("served"), demo)) as started:
        yield started


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.base) as opened:
        answer = opened.get(server.url)
        assert answer.status_code == 200
        yield opened


def uri_of(client: httpx.Client, text: str) -> dict[str, Any]:
    (item,) = client.get("/api/page", params={"filter": json.dumps({"text": text})}).json()["items"]
    return dict(item)


def version(client: httpx.Client) -> str:
    return str(client.get("/api/state").json()["version"])


def test_the_first_address_gives_a_cookie_that_no_script_reads(server: Server) -> None:
    answer = httpx.get(server.url)
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert server.url.partition("token=")[2] not in cookie + answer.text


def test_nothing_without_the_cookie(server: Server) -> None:
    for path in ("/", "/?token=wrong", "/static/main.js", "/api/page", "/thumbnail/0", "/api/correct"):
        answer = httpx.get(f"{server.base}{path}")
        assert (answer.status_code, "token" in answer.json()["error"]) == (403, True), path
    wrong = httpx.get(f"{server.base}/", cookies={f"mlcls_browse_{server.port}": "x" * 43})
    assert wrong.status_code == 403


def test_every_answer_has_the_headers_that_keep_others_out(client: httpx.Client, server: Server) -> None:
    for answer in (client.get("/"), client.get("/thumbnail/0"), client.get("/nothing"), httpx.get(server.base)):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "server" not in answer.headers


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "", "127.0.0.1.nip.io:{port}"]
)
def test_another_name_for_this_server_is_refused(client: httpx.Client, server: Server, host: str) -> None:
    assert client.get("/", headers={"Host": host.format(port=server.port)}).status_code == 421


def test_the_machine_s_own_names_are_ours() -> None:
    assert own_hosts("127.0.0.1") == {"127.0.0.1", "localhost", "::1"}
    assert {"*", socket.gethostname().lower()} <= own_hosts("0.0.0.0")


def test_another_page_cannot_change_anything(client: httpx.Client, server: Server) -> None:
    body = {"version": version(client), "operation": {"kind": "accept"}, "ids": [0]}
    for headers, status in (
        ({}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": f"http://127.0.0.1:{server.port + 1}"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": server.base, "Content-Type": "text/plain"}, 415),
        ({"Origin": server.base, "Sec-Fetch-Site": "same-site"}, 403),
    ):
        answer = client.post(
            "/api/correct", content=json.dumps(body), headers={"Content-Type": "application/json", **headers}
        )
        assert answer.status_code == status, headers
    assert client.get("/thumbnail/0", headers={"Sec-Fetch-Site": "same-site"}).status_code == 403, "nor embed a picture"
    large = client.post(
        "/api/correct", content=b" " * 2_000_001, headers={"Origin": server.base, "Content-Type": "application/json"}
    )
    assert large.status_code == 413
    chunked = client.post(
        "/api/correct", content=iter([b"{}"]), headers={"Origin": server.base, "Content-Type": "application/json"}
    )
    assert chunked.status_code == 411
    assert client.put("/api/correct").status_code == 405
    assert not (server.out / "corrections").exists()


def test_only_images_of_the_table(client: httpx.Client, server: Server) -> None:
    for path in (
        "/thumbnail/99999", "/picture/-1", "/thumbnail/..%2f..%2fetc%2fpasswd", "/static/..%2fapp.py", "/static/../app.py",
        "/static/%2fetc%2fpasswd", "/picture/file:///etc/passwd", "/static/", "/api/nothing", "/picture/1e9",
    ):  # fmt: skip
        assert client.get(path).status_code in (404, 400), path
    picture = client.get(f"/picture/{uri_of(client, HOSTILE)['id']}")
    assert picture.headers["content-type"] == "image/jpeg"
    assert picture.content.startswith(b"\xff\xd8")


def test_what_cannot_be_shown_says_why(client: httpx.Client) -> None:
    for text, reason in (
        ("gone.jpg", "missing: No such file"),
        ("secret.jpg", "denied: 127.0.0.1 is not a public address"),
    ):
        number = uri_of(client, text)["id"]
        assert client.get(f"/thumbnail/{number}").headers["content-type"] == "image/gif"
        assert client.get(f"/api/picture/{number}").json()["problem"].startswith(reason)


def test_a_file_that_is_no_image_is_never_sent(client: httpx.Client, server: Server) -> None:
    """A table from elsewhere may name any file: it is decoded, and only pixels leave."""
    item = uri_of(client, "029.jpg")
    path = Path(path_of_uri(item["uri"]))
    kept = path.read_bytes()
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert client.get(f"/picture/{item['id']}").headers["content-type"] == "image/gif"
    assert client.get(f"/api/picture/{item['id']}?large").json()["problem"].startswith("not_an_image")
    path.unlink()
    path.write_bytes(kept)


def test_a_file_that_has_changed_since_says_so(client: httpx.Client, demo: Path) -> None:
    item = uri_of(client, "028.jpg")
    path = Path(item["uri"])
    path.unlink()
    path.write_bytes((demo / "rocket.jpg").read_bytes())
    other = (demo / "rocket.jpg").read_bytes() != (demo / "cat.jpg").read_bytes()
    assert other
    assert client.get(f"/api/picture/{item['id']}?large").json() == {"problem": "", "is_changed": True}


def test_what_makes_no_sense_is_refused_in_words(client: httpx.Client, server: Server) -> None:
    for path, parameters, message in (
        ("/api/page", {"filter": "{"}, "Invalid JSON"),
        ("/api/page", {"filter": '{"sort": "x"}'}, "sort"),
        ("/api/page", {"filter": '{"what": 1}'}, "what: Extra inputs are not permitted"),
        ("/api/page", {"filter": json.dumps({"any": ["x"] * 300})}, "any"),
        ("/api/page", {"after": "x"}, "valid integer"),
        ("/api/threshold", {"label": "cat", "value": "nan"}, "less than or equal to 1"),
        ("/api/threshold", {"label": "x'; DROP TABLE images", "value": "0.5"}, "no run knows the class"),
        ("/api/image", {"id": "99999"}, "there is no such image"),
    ):
        answer = client.get(path, params=parameters)
        assert answer.status_code == 400
        assert message in answer.json()["error"]
    headers = {"Origin": server.base}
    stale = client.post(
        "/api/correct",
        json={"version": "of another server", "operation": {"kind": "accept"}, "ids": [0]},
        headers=headers,
    )
    assert "the page is older than the index" in stale.json()["error"]
    both = client.post(
        "/api/correct", json={"version": version(client), "operation": {"kind": "accept"}}, headers=headers
    )
    assert "by ids, or by a filter" in both.json()["error"]


def test_read_only_and_nothing_stays_in_the_temporary_folder(server: Server, tmp_path: Path) -> None:
    with (
        serving(server.out, "--read-only", temporary=tmp_path) as started,
        httpx.Client(base_url=started.base, headers={"Origin": started.base}) as client,
    ):
        client.get(started.url)
        body = {"version": version(client), "operation": {"kind": "accept"}, "ids": [0]}
        assert "read-only" in client.post("/api/correct", json=body).json()["error"]
        save = {"version": version(client), "classes": {"cat": 0.3}, "save": True}
        assert "read-only" in client.post("/api/thresholds", json=save).json()["error"]
        assert "cat: 0.3" in client.post("/api/thresholds", json={**save, "save": False}).json()["text"]
        assert any(tmp_path.iterdir())
    assert not any(tmp_path.iterdir())


def test_what_cannot_be_served(server: Server, tmp_path: Path) -> None:
    for out, host, port, message in (
        (server.out, "127.0.0.1", server.port, "--port 0 takes any free port"),
        (tmp_path, "127.0.0.1", 0, "holds no committed run"),
        (server.out, "192.0.2.1", 0, "--host 192.0.2.1"),
    ):
        with pytest.raises(UsageError, match=message):
            serve(Subject(out=str(out)), host, port)


@pytest.mark.parametrize("allowed", [False, True])
def test_private_addresses_only_where_they_are_allowed(server: Server, allowed: bool) -> None:
    index = Index(open_labels(str(server.out)), {})
    pictures = Pictures(index, allow_private_urls=allowed)
    picture = pictures._picture(PRIVATE, None, 100)
    assert str(picture.problem).startswith("denied: 127.0.0.1 is not a public address") != allowed
    pictures.close()
    index.close()
