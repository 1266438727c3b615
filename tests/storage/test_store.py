"""The output store's contract, on local disk and on two S3 servers."""

from __future__ import annotations

import itertools
import os
import pickle
import uuid
from pathlib import Path

import pytest

from mlcls_ray.config import S3Options
from mlcls_ray.errors import UsageError
from mlcls_ray.storage.inputs.listing import list_inputs
from mlcls_ray.storage.store import Store
from tests.s3_servers import BUCKET


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "out"))


@pytest.fixture
def remote(s3_endpoint: str) -> Store:
    return Store(f"s3://{BUCKET}/{uuid.uuid4().hex}", S3Options(endpoint_url=s3_endpoint))


class StoreContract:
    def test_read_what_was_written(self, store: Store) -> None:
        assert store.read("a/b.bin") is None
        store.write("a/b.bin", b"one")
        store.write("a/b.bin", b"two")
        assert store.read("a/b.bin") == b"two"
        with store.open("a/b.bin") as stream:
            stream.seek(1)
            assert stream.read() == b"wo"

    def test_names(self, store: Store) -> None:
        assert store.names("") == []
        for name in ("x/2.parquet", "x/1.parquet", "x/sub/3.parquet", "y.json"):
            store.write(name, b"-")
        assert store.names("x") == ["1.parquet", "2.parquet", "sub"]
        assert store.names("") == ["x", "y.json"]
        store.remove("x/1.parquet")
        store.remove("x/1.parquet")
        assert store.names("x") == ["2.parquet", "sub"]

    def test_a_folder_goes_with_all_in_it(self, store: Store) -> None:
        """Also where the server wants an MD5 of a request to delete many, as JuiceFS's does."""
        for name in ("x/1.parquet", "x/sub/2.parquet", "xy.json"):
            store.write(name, b"-")
        store.remove_folder("x")
        store.remove_folder("x")
        assert store.names("x") == []
        assert store.names("") == ["xy.json"]

    def test_json_and_odd_names(self, store: Store) -> None:
        store.write_json("ü 100% #?.json", {"ключ": [1, None]})
        assert store.read_json("ü 100% #?.json") == {"ключ": [1, None]}
        assert store.read_json("none.json") is None

    def test_pickles(self, store: Store) -> None:
        pickle.loads(pickle.dumps(store)).write("p", b"1")
        assert store.read("p") == b"1"

    def test_writable(self, store: Store) -> None:
        store.check_writable()
        assert store.names("") == []


class TestLocal(StoreContract):
    @pytest.fixture
    def store(self, local: Store) -> Store:
        return local

    def test_a_write_that_fails_leaves_nothing(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        store.write("a", b"old")

        def full(source: str, target: str) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space"):
            store.write("a", b"new")
        assert store.read("a") == b"old"
        assert os.listdir(store.root) == ["a"]

    @pytest.mark.skipif(not os.path.exists("/proc/version"), reason="needs /proc, where nobody can write")
    def test_not_writable(self) -> None:
        with pytest.raises(UsageError, match="output '/proc/mlcls' cannot be written"):
            Store("/proc/mlcls").check_writable()


class TestS3(StoreContract):
    @pytest.fixture
    def store(self, remote: Store) -> Store:
        return remote

    def test_no_such_bucket(self, remote: Store) -> None:
        with pytest.raises(UsageError, match="cannot be written"):
            Store("s3://no-such-bucket-here/x", remote.s3).check_writable()

    def test_listing_goes_past_a_page(self, remote: Store) -> None:
        for number in range(1005):
            remote.write(f"many/{number:04d}.jpg", b"")
        remote.write("many/odd name %41 #1?.jpg", b"123")
        for folder in ("b", "a", "c/d"):
            remote.write(f"many/{folder}/x.jpg", b"1")
        found = list(list_inputs([f"{remote.root}/many"], remote.s3))
        assert len(found) == 1009
        assert [one.uri.removeprefix(f"{remote.root}/many/") for one in found[-3:]] == [
            "a/x.jpg",
            "b/x.jpg",
            "c/d/x.jpg",
        ]
        assert found[-1].mtime is not None
        assert list(list_inputs([f"{remote.root}/many/a/x.jpg"], remote.s3)) == [found[-3]]
        assert len(list(itertools.islice(list_inputs([f"{remote.root}/many/"], remote.s3), 5))) == 5
        odd = next(one for one in found if "odd" in one.uri)
        assert odd.uri == f"{remote.root}/many/odd name %41 #1?.jpg"
        assert odd.size_bytes == 3
        assert odd.mtime is not None
        assert odd.etag is None or '"' not in odd.etag
