"""The listing of a new run: what its inputs name, or what of it is to be labeled, is frozen into the manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from mlcls_ray.config import LabelJob
from mlcls_ray.errors import UsageError
from mlcls_ray.job.check import CheckedJob
from mlcls_ray.job.placement import preprocess_fingerprint
from mlcls_ray.job.resume import public_config
from mlcls_ray.storage.fetch import Fetcher
from mlcls_ray.storage.inputs.left_out import name_extras, name_left_out
from mlcls_ray.storage.inputs.listing import InputEntry, LeftOut, list_inputs
from mlcls_ray.storage.pages import list_pages
from mlcls_ray.storage.uris import redact_url
from mlcls_ray.table import layout
from mlcls_ray.table.incremental import open_changes, open_failed
from mlcls_ray.table.manifest import to_parquet, write_manifest
from mlcls_ray.table.records import InputChanges
from mlcls_ray.terminal import SILENT, Steps, counted

LISTING = "listing the inputs"


class Listed(NamedTuple):
    """The manifest of a new run."""

    rows: int
    left_out: Mapping[str, int] = {}
    """Files that are no images by their names, by suffix."""
    changes: InputChanges | None = None
    """The finds of an incremental job; None for other jobs."""

    @property
    def is_nothing(self) -> bool:
        """True if an incremental job or a retry has nothing to label and nothing to record."""
        return not self.rows and not (self.changes and self.changes.vanished)


def list_manifest(checked: CheckedJob, steps: Steps = SILENT) -> Listed:
    """List the inputs into the manifest of a new run.

    Raises:
        UsageError: no image was found.
    """
    steps.say(LISTING)
    left_out = LeftOut()
    rows = write_manifest(checked.models[0].store, checked.run_id, _entries(checked.job, left_out, steps))
    if rows == 0:
        raise no_image(checked.job, left_out)
    return Listed(rows, left_out.counts)


def list_pending(checked: CheckedJob, steps: Steps = SILENT) -> Listed:
    """List into the manifest what an incremental job or a retry has to label. An incremental job also records the inputs that vanished.

    Raises:
        UsageError: no image was found at all. A folder that is not mounted must not look like one whose images vanished.
    """
    job, run_id = checked.job, checked.run_id
    (model,) = checked.models
    if job.retry:
        steps.say("looking for inputs that failed")
        with open_failed(model.store, job.retry) as failed:
            return Listed(write_manifest(model.store, run_id, islice(failed, job.limit)))
    steps.say(LISTING)
    left_out = LeftOut()
    fingerprints = (model.model.fingerprint, preprocess_fingerprint(model.job, model.model))
    inputs, entries = public_config(job)["inputs"], _entries(job, left_out, steps)
    with open_changes(model.store, fingerprints, inputs, entries) as changes:
        if changes.listed == 0:
            raise no_image(job, left_out)
        steps.say("comparing them with the rows of earlier runs")
        rows = write_manifest(model.store, run_id, changes.new())
        vanished = changes.vanished() if job.limit is None else None  # what is beyond a limit was not looked at
        if vanished:
            model.store.write(layout.vanished(run_id), to_parquet(vanished))
    found = InputChanges(listed=changes.listed, vanished=len(vanished) if vanished else 0, **changes.reasons)
    return Listed(rows, left_out.counts, found)


def no_image(job: LabelJob, left_out: LeftOut) -> UsageError:
    """Make the error for inputs without images. It names what else is there."""
    rest = f"; left out: {name_left_out(left_out.counts)}" if left_out.counts else ""
    if extras := name_extras(left_out.counts):
        rest += f"; can be read: {extras}"
    return UsageError(f"no image found in {', '.join(redact_url(text) for text in job.inputs)}{rest}")


def _entries(job: LabelJob, left_out: LeftOut, steps: Steps) -> Iterator[InputEntry]:
    return counted(islice(list_images(job, left_out), job.limit), steps, "images")


def list_images(job: LabelJob, left_out: LeftOut) -> Iterator[InputEntry]:
    """Yield what the inputs name, with each page of documents if the job is to label them. `left_out` counts what is no image."""
    entries = list_inputs(job.inputs, job.s3, job.uri_column, left_out)
    if job.pages == "first":
        return entries
    fetcher = Fetcher(job)
    return list_pages(entries, lambda uri: fetcher.fetch(uri).image_bytes, job.fetch_threads)
