"""The cache of a machine: models and what is made from them, each written once under a lock, whole or not at all.

Fetched models are verified on each later load.
"""

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
from mlcls_ray.logs import hide_library_urls
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
from mlcls_ray.models.zoo import MIRROR_VARIABLE, MODEL_NAMES, PUBLISHED, STARTER, STARTER_FOLDER, archive_url
from mlcls_ray.storage.connection import patiently
from mlcls_ray.storage.uris import is_local, open_filesystem, path_of_uri, redact_url, redact_urls, scheme_of

HOME_VARIABLE = "MLCLS_HOME"
TRAINED = Path("best_model/inference")
"""The place where a fine-tuning puts its model, in its output folder."""
RECORD = "source.json"
"""A file beside a cached model's files: their source, and their sha256 when they were fetched."""

CONNECT_TIMEOUT_S = 15.0
READ_TIMEOUT_S = 60.0
MAX_ARCHIVE_BYTES = 4 << 30
MAX_UNPACKED_BYTES = 8 << 30

Progress = Callable[[int, int | None], None]
"""Called with the number of bytes so far, and the total number where it is known."""


def home() -> Path:
    """Return the cache's folder: `MLCLS_HOME`, or `~/.cache/mlcls_ray`.

    Raises:
        UsageError: the variable is not set, and the user has no home folder.
    """
    folder = os.environ.get(HOME_VARIABLE)
    try:
        if folder:  # `~x` is a folder of that name
            return Path(folder).expanduser() if folder.partition("/")[0] == "~" else Path(folder)
        return Path.home() / ".cache" / "mlcls_ray"
    except RuntimeError:
        raise UsageError(f"this user has no home folder: set {HOME_VARIABLE} to a folder for the cache") from None


def once(path: Path, make: Callable[[Path], None], is_valid: Callable[[Path], bool] = Path.exists) -> Path:
    """Return a file or folder of the cache; the first process that needs it makes it, the others wait.

    Args:
        make: write it to the path that it is given, which is then renamed to `path`.
        is_valid: tell whether `path` can be used. If not, it is made again.

    Raises:
        UsageError: the cache cannot be written.
    """
    if is_valid(path):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"the model cache {path.parent} cannot be written ({error.strerror}); set {HOME_VARIABLE}"
        raise UsageError(message) from None
    with FileLock(path.parent / f".{path.name}.lock"):
        if is_valid(path):
            return path
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            temporary = Path(folder) / path.name
            make(temporary)
            if path.is_dir():  # left without what makes it valid; a rename replaces files only
                shutil.rmtree(path)
            os.replace(temporary, path)
    return path


def open_model(source: str, s3: S3Options | None = None) -> Model:
    """Open a model by name, local folder (also the output of a fine-tuning) or fsspec uri of a folder, which is fetched first.

    Raises:
        UsageError: the name is unknown, the folder holds no model or cannot be fetched, or a cached file changed.
    """
    if source == STARTER:
        return load_model(STARTER_FOLDER)
    if source in PUBLISHED:
        return load_model(pull(source))
    if not is_local(source):
        return load_model(_pull_folder(source, s3 or S3Options()))
    folder = Path(path_of_uri(source))
    if folder.is_dir():
        return load_model(model_folder(folder))
    if folder.exists():
        raise UsageError(f"model '{source}' is a file: give the folder that holds inference.yml")
    if os.sep in source or source.startswith("."):
        raise UsageError(f"model folder '{source}' does not exist")
    raise UsageError(f"unknown model '{source}'{suggest(source, MODEL_NAMES)}")


def model_folder(folder: Path) -> Path:
    """Return the folder of the model itself: in the output of a fine-tuning it is a folder below."""
    trained = folder / TRAINED
    return trained if not (folder / CONFIG).is_file() and (trained / CONFIG).is_file() else folder


def ship(model: Model) -> dict[str, np.ndarray]:
    """Read a model's files into uint8 arrays, for `open_shipped` on another machine."""
    paths = [*model_files(model.program, model.parameters), *label_files(model.folder)]
    return {path.name: np.fromfile(path, dtype=np.uint8) for path in paths}


def open_shipped(fingerprint: str, files: Mapping[str, np.ndarray]) -> Model:
    """Open a model that another machine has sent; its files are written into this machine's cache."""

    def fill(folder: Path) -> str:
        for name, data in files.items():
            data.tofile(folder / Path(name).name)
        return ""

    settings = hashlib.sha256(b"".join(files[name].tobytes() for name in (CONFIG, THRESHOLDS) if name in files))
    key = f"shipped-{fingerprint[:16]}-{settings.hexdigest()[:8]}"
    return load_model(_fetch_once(key, "the driver of a run", fill))


def cached_folder(name: str) -> Path | None:
    """Return the cache's folder of a published model, or None if it has not been fetched."""
    folder = home() / "models" / name
    return folder if _is_fetched(folder) else None


def pull(name: str, progress: Progress | None = None) -> Path:
    """Fetch a published model unless the cache has it; returns its verified folder.

    Raises:
        UsageError: it cannot be fetched (the message says how to go on without the network), or its cached files changed.
    """
    url = archive_url(name)

    def fill(folder: Path) -> str:
        archive = folder / "archive.tar"
        try:
            digest = patiently(lambda: _download(url, archive, progress))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UsageError(
                f"model '{name}' cannot be fetched from {redact_url(url)}: {redact_urls(error)}. Set {MIRROR_VARIABLE} to a mirror, or run "
                f"`mlcls models pull {name}` on a machine with network and copy {home() / 'models' / name} here, "
                f"or give a local model folder"
            ) from None
        _unpack(archive, folder)
        archive.unlink()
        return digest

    return _fetch_once(name, redact_url(url), fill)


def _pull_folder(uri: str, s3: S3Options) -> Path:
    """Copy a remote model folder. The cache's key holds sizes, ETags and times of its files, so a changed model is fetched again."""
    filesystem, path = open_filesystem(uri, s3)
    path = path.rstrip("/")
    try:
        present = [name for name in FILES if filesystem.exists(f"{path}/{name}")]
        details = [filesystem.info(f"{path}/{name}") for name in present]
    except Exception as error:  # each filesystem has its own errors
        raise UsageError(
            f"model '{redact_url(uri)}' cannot be reached: {type(error).__name__}: {redact_urls(error)}"
        ) from None
    if CONFIG not in present or PARAMETERS not in present:
        raise UsageError(
            f"model '{redact_url(uri)}' holds no {CONFIG} and {PARAMETERS}: it is not a Paddle inference folder"
        )
    versions = [[uri, *(str(detail.get(key)) for key in ("size", "ETag", "LastModified"))] for detail in details]
    key = hashlib.sha256(json.dumps(versions).encode()).hexdigest()[:16]
    base = path.rpartition("/")[2] or scheme_of(uri)

    def fill(folder: Path) -> str:
        for name in present:
            _copy(filesystem, f"{path}/{name}", folder / name)
        return ""

    return _fetch_once(f"{base}-{key}", redact_url(uri), fill)


def _copy(filesystem: fsspec.AbstractFileSystem, source: str, destination: Path) -> None:
    try:
        patiently(lambda: filesystem.get_file(source, str(destination)))
    except Exception as error:  # each filesystem has its own errors
        raise UsageError(
            f"'{redact_url(source)}' cannot be fetched: {type(error).__name__}: {redact_urls(error)}"
        ) from None


def _fetch_once(key: str, source: str, fill: Callable[[Path], str]) -> Path:
    """Return the cached model `key`; `fill` fetches it into a folder and returns the sha256 of the archive, or nothing."""
    target = home() / "models" / key
    was_cached = _is_fetched(target)

    def make(folder: Path) -> None:
        folder.mkdir()
        digest = fill(folder)
        load_model(folder)  # raises: what cannot be read must not be cached
        hashes = {path.name: file_sha256(path) for path in sorted(folder.iterdir())}
        record = {"source": source, "archive_sha256": digest, "files": hashes}
        (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    once(target, make, _is_fetched)
    if was_cached:
        _verify(target)
    return target


def _is_fetched(folder: Path) -> bool:
    return (folder / RECORD).is_file()


def _verify(folder: Path) -> None:
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    for name, digest in record["files"].items():
        path = folder / name
        if not path.is_file() or file_sha256(path) != digest:
            raise UsageError(
                f"cached model file {path} has changed since it was fetched; delete {folder} to fetch it again"
            )


def _download(url: str, destination: Path, progress: Progress | None) -> str:
    """Stream a URL into a file; returns the file's sha256."""
    digest = hashlib.sha256()
    hide_library_urls()
    timeout = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    received = 0
    with httpx.stream("GET", url, follow_redirects=True, timeout=timeout) as response, destination.open("wb") as out:
        response.raise_for_status()
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
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
    """Extract a model's files from a tar, whatever folder of it they are in. Nothing is written outside `folder`."""
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
