"""The hash stage: rows that cannot be read are left to the job, whatever their uri is."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from mlcls_ray.config import FetchOptions
from mlcls_ray.errors import ImageError, Status
from mlcls_ray.stages.hash import Hash
from mlcls_ray.stages.read import hash_content
from mlcls_ray.storage.fetch import Fetcher

OPTIONS = FetchOptions(fetch_attempts=1)
ODD_URIS = [
    "http://a..b/x.jpg", "http://[::1", "http://xn--a/b.jpg", f"http://{'a' * 70}.com/x.jpg", "http://h:port/x.jpg", "http://",
    "http://127.0.0.1:99999/x.jpg", "ftp://h/x.jpg", "gs://b/x.jpg", "s3:///x", "a\0b.jpg", "x" * 5000,
]  # fmt: skip


def test_odd_uris_do_not_end_the_search_for_copies(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    uris = [*ODD_URIS, str(tmp_path / "a.jpg")]
    hashed = Hash(OPTIONS)(pa.table({"row_id": range(len(uris)), "uri": uris}))
    assert hashed.to_pylist() == [{"row_id": len(ODD_URIS), "content_hash": hash_content(b"x")}]


@pytest.mark.parametrize("uri", ODD_URIS)
def test_a_fetcher_raises_image_errors_only(uri: str) -> None:
    with pytest.raises(ImageError) as caught:
        Fetcher(OPTIONS).fetch(uri)
    assert caught.value.status in (Status.UNSUPPORTED, Status.MISSING)
