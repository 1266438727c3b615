"""Find the images that a job's inputs name. What each kind of input does is in its own file, see `base`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from mlcls_ray.config import S3Options
from mlcls_ray.errors import MlclsError, UsageError
from mlcls_ray.registry import INPUT_KINDS, load
from mlcls_ray.storage.inputs.base import InputEntry, InputKind, cannot_list, has_suffix
from mlcls_ray.storage.inputs.containers import Container
from mlcls_ray.storage.inputs.left_out import LeftOut
from mlcls_ray.storage.uris import (
    HTTP,
    LOCAL,
    MemberUri,
    is_local,
    looks_like_glob,
    open_filesystem,
    path_of_uri,
    redact_url,
    scheme_of,
    without_query,
)

__all__ = ["InputEntry", "LeftOut", "check_inputs", "find_container", "input_kinds", "list_inputs"]

LISTS = (".txt", ".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
ARCHIVES = (".tar", ".zip")
COMPRESSED_LISTS = tuple(f"{name}{packed}" for name in LISTS for packed in (".gz", ".bz2", ".xz", ".zst", ".zip"))
OTHER_LISTS = (
    ".json", ".lst", ".list", ".xlsx", ".xls", ".ods", ".xml", ".yaml", ".yml", ".arrow", ".feather", ".orc", ".avro",
    ".tfrecord", ".rec", ".lmdb", ".db", ".sqlite", ".duckdb", ".7z", ".rar",
)  # fmt: skip
"""Endings of lists and archives that are not read, and are never images."""


def input_kinds() -> list[InputKind]:
    """Make one object of each kind of input, in the order of `registry.INPUT_KINDS`."""
    return [load(target)() for target in INPUT_KINDS.values()]


def check_inputs(inputs: Sequence[str], s3: S3Options) -> None:
    """Check cheaply, before a run is made, that schemes are known and that local inputs exist and can be read.

    Raises:
        UsageError: with the input and what to do.
    """
    if not inputs:
        raise UsageError("no input: give a folder, a file, a glob, a list of uris, or an s3:// or http(s):// uri")
    for text in inputs:
        scheme = scheme_of(text)
        if (
            scheme == LOCAL and not path_of_uri(text).strip()
        ):  # it would be this process's folder, perhaps for an unset variable
            raise UsageError(f"input '{text}' is empty; the folder that you are in is '.'")
        _check_name(text, scheme, s3)
        if scheme in HTTP:
            continue
        filesystem, path = open_filesystem(text, s3)
        if not path.strip("/") or (scheme != LOCAL and path.startswith("/")):
            raise UsageError(f"input '{text}' names no bucket")
        if scheme != LOCAL or looks_like_glob(text, filesystem, path):
            continue
        if not os.path.exists(path):
            raise UsageError(f"input '{text}' does not exist")
        if not os.access(path, os.R_OK | (os.X_OK if os.path.isdir(path) else 0)):
            raise UsageError(f"input '{text}' cannot be read: permission denied")


def _check_name(text: str, scheme: str, s3: S3Options) -> None:
    """Refuse an input that could only become one row without sense: a list or an archive of a kind that is not read, or no URL.

    Raises:
        UsageError: with what is read instead.
    """
    name = redact_url(text)
    if scheme in HTTP:
        try:
            parts = urlsplit(text)
            is_valid = bool(parts.hostname) and parts.port != 0  # a port that is none raises
        except ValueError:
            is_valid = False
        if not is_valid:
            raise UsageError(f"input '{name}' is not a valid URL")
    path = without_query(text)
    if scheme in HTTP and has_suffix(path, ARCHIVES, s3):
        raise UsageError(f"input '{name}': archives are read from disks and object stores, not over http; download it")
    if has_suffix(path, COMPRESSED_LISTS, s3):
        raise UsageError(f"input '{name}': a compressed list cannot be read; unpack it")
    if has_suffix(path, OTHER_LISTS, s3):
        raise UsageError(f"input '{name}' cannot be read; lists are {', '.join(LISTS)}, archives are .tar and .zip")


def list_inputs(
    inputs: Sequence[str], s3: S3Options, uri_column: str | None = None, left_out: LeftOut | None = None
) -> Iterator[InputEntry]:
    """Yield the images that the inputs name, in an order that is the same each time, without holding them all in memory.

    `left_out` counts the files of folders and archives that are no images by their names.

    Raises:
        UsageError: an input does not exist or cannot be listed.
    """
    kinds, counts = input_kinds(), LeftOut() if left_out is None else left_out
    for text in inputs:
        try:
            kind = next(
                kind for kind in kinds if kind.takes(text, s3, uri_column)
            )  # local, http and remote take any uri
            yield from kind.list_entries(text, s3, uri_column, counts)
        except MlclsError:
            raise
        except (
            Exception
        ) as error:  # the package of each object store has a family of its own: no credentials, for example
            if is_local(text):
                raise
            raise cannot_list(text, error) from error


def find_container(member: MemberUri, kinds: Sequence[InputKind]) -> Container | None:
    """Find the kind of input that can read a member; None where its container is of no kind: then it is a file's name."""
    return next((kind for kind in kinds if isinstance(kind, Container) and kind.can_read(member)), None)
