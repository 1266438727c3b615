"""The model cache of a machine: fetched once under a lock, whole or not at all, verified on each later load."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import fsspec
import httpx
import numpy as np
from filelock import FileLock

from mlcls_ray.config import S3Options
from mlcls_ray.errors import UsageError, suggest
from mlcls_ray.models.artifact import (
    CONFIG,
    FILES,
    PARAMETERS,
    THRESHOLDS,
    Model,
    file_sha256,
    label_files,
    load_model,
    model_files,
)
from mlcls_ray.models.zoo import MIRROR_VARIABLE, OFFICIAL, STARTER, STARTER_FOLDER, Spec
from mlcls_ray.storage.uris import is_local, open_filesystem, path_of_uri, redact_url, scheme_of

HOME_VARIABLE = "MLCLS_HOME"
RECORD = "source.json"
"""Beside a cached model's files: where they came from, and their sha256 at the first fetch."""

CONNECT_TIMEOUT_S = 15.0
READ_TIMEOUT_S = 60.0
MAX_ARCHIVE_BYTES = 4 << 30
MAX_UNPACKED_BYTES = 8 << 30

Progress = Callable[[int, int | None], None]
"""Called with the bytes so far and the bytes in all, where known."""


def home() -> Path:
    """`MLCLS_HOME`, or `~/.cache/mlcls_ray`."""
    chosen = os.environ.get(HOME_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "mlcls_ray"


def open_model(source: str, s3: S3Options | None = None) -> Model:
    """A model by name, local folder or fsspec uri of a folder; what is remote is fetched into the cache first.

    Raises:
        UsageError: unknown name, not a model folder, cannot be fetched, or a cached file that changed.
    """
    if source == STARTER:
        return load_model(STARTER_FOLDER)
    if source in OFFICIAL:
        return load_model(pull(OFFICIAL[source]))
    if not is_local(source):
        return load_model(_pull_folder(source, s3 or S3Options()))
    folder = Path(path_of_uri(source))
    if folder.is_dir():
        return load_model(folder)
    if folder.exists():
        raise UsageError(f"model '{source}' is a file: give the folder that holds inference.yml")
    if os.sep in source or source.startswith("."):
        raise UsageError(f"model folder '{source}' does not exist")
    raise UsageError(f"unknown model '{source}'{suggest(source, [STARTER, *OFFICIAL])}")


def ship(model: Model) -> dict[str, np.ndarray]:
    """A model's files as uint8 arrays, for `open_shipped` on another machine."""
    paths = [*model_files(model.program, model.parameters), *label_files(model.folder)]
    return {path.name: np.fromfile(path, dtype=np.uint8) for path in paths}


def open_shipped(fingerprint: str, files: Mapping[str, np.ndarray]) -> Model:
    """A model that came from another machine: written into this one's cache, once."""

    def fill(folder: Path) -> str:
        for name, data in files.items():
            data.tofile(folder / Path(name).name)
        return ""

    told = hashlib.sha256(b"".join(files[name].tobytes() for name in (CONFIG, THRESHOLDS) if name in files))
    key = f"shipped-{fingerprint[:16]}-{told.hexdigest()[:8]}"
    return load_model(_fetch_once(key, "the driver of a run", fill))


def cached_folder(name: str) -> Path | None:
    """The cache folder of an official model, where it has been fetched."""
    folder = home() / "models" / name
    return folder if (folder / RECORD).is_file() else None


def pull(spec: Spec, progress: Progress | None = None) -> Path:
    """Fetch an official model unless the cache has it; returns its verified folder.

    Raises:
        UsageError: it cannot be fetched (says how to go on without the network), or its cached files changed.
    """

    def fill(folder: Path) -> str:
        archive = folder / "archive.tar"
        try:
            digest = _download(spec.url, archive, progress)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UsageError(
                f"model '{spec.name}' cannot be fetched from {redact_url(spec.url)}: {error}. Set {MIRROR_VARIABLE} to a mirror, or run "
                f"`mlcls models pull {spec.name}` on a machine with network and copy {home() / 'models' / spec.name} here, "
                f"or give a local model folder"
            ) from None
        _unpack(archive, folder)
        archive.unlink()
        return digest

    return _fetch_once(spec.name, redact_url(spec.url), fill)


def _pull_folder(uri: str, s3: S3Options) -> Path:
    """Copy a remote model folder; the cache key holds what the store says of its files, so a changed model is fetched again."""
    filesystem, path = open_filesystem(uri, s3)
    path = path.rstrip("/")
    try:
        present = [name for name in FILES if filesystem.exists(f"{path}/{name}")]
        details = [filesystem.info(f"{path}/{name}") for name in present]
    except Exception as error:  # each filesystem has its own errors
        raise UsageError(f"model '{redact_url(uri)}' cannot be reached: {type(error).__name__}: {error}") from None
    if CONFIG not in present or PARAMETERS not in present:
        raise UsageError(
            f"model '{redact_url(uri)}' holds no {CONFIG} and {PARAMETERS}: it is not a Paddle inference folder"
        )
    told = [[uri, *(str(detail.get(key)) for key in ("size", "ETag", "LastModified"))] for detail in details]
    key = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
    base = path.rpartition("/")[2] or scheme_of(uri)

    def fill(folder: Path) -> str:
        for name in present:
            _copy(filesystem, f"{path}/{name}", folder / name)
        return ""

    return _fetch_once(f"{base}-{key}", redact_url(uri), fill)


def _copy(filesystem: fsspec.AbstractFileSystem, source: str, destination: Path) -> None:
    try:
        filesystem.get_file(source, str(destination))
    except Exception as error:  # each filesystem has its own errors
        raise UsageError(f"'{source}' cannot be fetched: {type(error).__name__}: {error}") from None


def _fetch_once(key: str, source: str, fill: Callable[[Path], str]) -> Path:
    """The cache entry `key`, made by `fill` in a temporary folder and renamed into place under the entry's lock."""
    models = home() / "models"
    try:
        models.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"the model cache {models} cannot be written ({error.strerror}); set {HOME_VARIABLE}"
        ) from None
    target = models / key
    with FileLock(models / f".{key}.lock"):
        if (target / RECORD).is_file():
            _verify(target)
            return target
        shutil.rmtree(target, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=models, prefix=f".{key}.") as temporary:
            folder = Path(temporary) / key
            folder.mkdir()
            digest = fill(folder)
            load_model(folder)  # what cannot be read must not be cached
            hashes = {path.name: file_sha256(path) for path in sorted(folder.iterdir())}
            record = {"source": source, "archive_sha256": digest, "files": hashes}
            (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            os.replace(folder, target)
    return target


def _verify(folder: Path) -> None:
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    for name, digest in record["files"].items():
        path = folder / name
        if not path.is_file() or file_sha256(path) != digest:
            raise UsageError(
                f"cached model file {path} has changed since it was fetched; delete {folder} to fetch it again"
            )


def _download(url: str, destination: Path, progress: Progress | None) -> str:
    """Stream a URL into a file; returns its sha256."""
    digest = hashlib.sha256()
    timeout = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    received = 0
    with httpx.stream("GET", url, follow_redirects=True, timeout=timeout) as response, destination.open("wb") as out:
        response.raise_for_status()
        announced = response.headers.get("Content-Length", "")
        total = int(announced) if announced.isdecimal() else None
        for chunk in response.iter_bytes(1 << 20):
            received += len(chunk)
            if received > MAX_ARCHIVE_BYTES:
                raise UsageError(f"{redact_url(url)} is larger than {MAX_ARCHIVE_BYTES} bytes")
            digest.update(chunk)
            out.write(chunk)
            if progress:
                progress(received, total)
    if total is not None and received != total:
        raise UsageError(f"{redact_url(url)} ended after {received} of {total} bytes; try again")
    return digest.hexdigest()


def _unpack(archive: Path, folder: Path) -> None:
    """Take the model's files out of a tar, wherever in it they are; nothing is written outside `folder`."""
    unpacked = 0
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                parts = Path(member.name).parts
                if member.name.startswith("/") or ".." in parts or not (member.isfile() or member.isdir()):
                    raise UsageError(
                        f"the archive holds '{member.name}', which could reach outside its folder; refused"
                    )
                unpacked += member.size
                if unpacked > MAX_UNPACKED_BYTES:
                    raise UsageError(f"the archive unpacks to more than {MAX_UNPACKED_BYTES} bytes; refused")
                source = tar.extractfile(member) if member.isfile() and parts[-1] in FILES else None
                if source is not None:
                    with source, (folder / parts[-1]).open("wb") as out:
                        shutil.copyfileobj(source, out)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UsageError(f"the archive cannot be unpacked: {error}") from None
