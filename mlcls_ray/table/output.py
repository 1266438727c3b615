"""Open an output with the S3 options that its runs were made with."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from mlcls_ray.config import S3Options
from mlcls_ray.errors import MlclsError, UsageError, short_message
from mlcls_ray.storage.store import Store
from mlcls_ray.storage.uris import redact_url
from mlcls_ray.table import layout

ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
VARIABLES = {
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "profile": ("AWS_PROFILE", "AWS_ACCESS_KEY_ID"),
    "anonymous": ("AWS_PROFILE", "AWS_ACCESS_KEY_ID"),
}
"""The environment variables that decide a field; where one of them is set, `run.json` does not."""


def open_output(out: str, s3: S3Options | None = None) -> Store:
    """Open an output folder, local or `s3://`, so that it and the images of its runs can be read.

    Each S3 option is the first of these that is set: the field of `s3` (the flags), the environment (AWS_ENDPOINT_URL …), the field in
    the output's newest `run.json`. `run.json` never holds credentials; these come from the environment or ~/.aws. What it says of a
    server is not used for another server: an output that was copied is opened where it lies now.

    Raises:
        UsageError: the object store cannot be reached, or does not let us in.
    """
    options = s3 or S3Options()
    store = Store(out, options)
    try:
        recorded = _recorded_options(store)
    except MlclsError:
        raise
    except Exception as error:  # each filesystem has its own errors
        raise UsageError(
            f"output '{redact_url(out)}' cannot be read: {short_message(error)}. "
            "For another server than AWS give --s3.endpoint-url URL, or set AWS_ENDPOINT_URL"
        ) from None
    filled = fill_options(options, recorded, store.is_local, os.environ)
    return store if filled == options else Store(out, filled)


def fill_options(options: S3Options, recorded: S3Options, is_local: bool, environment: Mapping[str, str]) -> S3Options:
    """Fill the fields that neither `options` nor the environment sets with those that a run recorded.

    Args:
        is_local: the output is a local folder. One on S3 was reached already, so its endpoint is not in question.
    """
    endpoint_url = options.endpoint_url or _first_set(environment, ENDPOINT_VARIABLES)
    changes: dict[str, Any] = {}
    if is_local and endpoint_url is None:
        changes["endpoint_url"] = endpoint_url = recorded.endpoint_url
    if recorded.endpoint_url in (None, endpoint_url):
        for field, variables in VARIABLES.items():
            if not getattr(options, field) and not _first_set(environment, variables):
                changes[field] = getattr(recorded, field)
        if changes.get("profile") and not _is_known_profile(changes["profile"]):
            del changes["profile"]
    if "timeout_s" not in options.model_fields_set:
        changes["timeout_s"] = recorded.timeout_s
    return options.model_copy(update=changes)


def _recorded_options(store: Store) -> S3Options:
    """Read the S3 options in the newest run's `run.json`. One that is damaged counts as empty: `mlcls verify` reports it."""
    record = _newest_record(store)
    config = record.get("config")
    s3 = config.get("s3") if isinstance(config, Mapping) else None
    try:
        return S3Options.model_validate(s3 if isinstance(s3, Mapping) else {})
    except ValidationError:
        return S3Options()


def _newest_record(store: Store) -> Mapping[str, Any]:
    """Read the `run.json` of the newest committed run, else of the newest run; empty where there is none."""
    latest = _read_mapping(store, layout.LATEST)
    names = [str(latest["run_id"])] if "run_id" in latest else store.names(layout.RUNS)
    records = (_read_mapping(store, layout.run_json(name)) for name in names)
    return max(records, key=lambda record: str(record.get("created_at", "")), default={})


def _read_mapping(store: Store, name: str) -> Mapping[str, Any]:
    try:
        value = json.loads(store.read(name) or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, Mapping) else {}


def _is_known_profile(name: str) -> bool:
    """Look for a profile in ~/.aws: a run of another person or machine may have used one that is not here."""
    from botocore.session import Session

    return name in Session().available_profiles


def _first_set(environment: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((environment[name] for name in names if environment.get(name)), None)
