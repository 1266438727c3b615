"""The folders and files under OUT: the only module that spells their names."""

from __future__ import annotations

RUNS = "runs"
LATEST = "latest.json"
VANISHED = "vanished.parquet"
CORRECTIONS = "corrections"
"""Folder of what people corrected. The label table is never changed by them."""
THRESHOLDS = "thresholds"
"""Folder of the thresholds that were chosen in `mlcls browse`."""
REMOVED = ".removed-"
"""The beginning of the names of runs that are being removed."""
INCREMENTAL_LEASE = ".lease"
"""Folder of the lease that keeps a second incremental job out."""
TAGS = "tags"
"""Folder of the record of keywords that were written into files."""
TAGS_CSV = "tags.csv"
TAGS_LEASE = ".tags-lease"
"""Folder of the lease that keeps a second writer of keywords out."""


def run_folder(run_id: str) -> str:
    return f"{RUNS}/{run_id}"


def manifest_folder(run_id: str) -> str:
    return f"{run_folder(run_id)}/manifest"


def labels_folder(run_id: str) -> str:
    return f"{run_folder(run_id)}/labels"


def duplicates_folder(run_id: str) -> str:
    return f"{run_folder(run_id)}/duplicates"


def annotated_folder(run_id: str) -> str:
    return f"{run_folder(run_id)}/annotated"


def attempts_folder(run_id: str) -> str:
    return f"{run_folder(run_id)}/attempts"


def lease_folder(run_id: str) -> str:
    return f"{run_folder(run_id)}/lease"


def compacted_folder(run_id: str) -> str:
    """Name the folder in which new fragments of a local run wait until `_SUCCESS` lists them; then it is renamed to `labels`."""
    return f"{run_folder(run_id)}/labels-compacted"


def replaced_folder(run_id: str) -> str:
    """Name the folder that `labels` is renamed to when other fragments take its place; it is removed then."""
    return f"{run_folder(run_id)}/labels-replaced"


def run_folders(run_id: str) -> list[str]:
    """List the folders of a run that files are written to."""
    return [
        manifest_folder(run_id),
        labels_folder(run_id),
        annotated_folder(run_id),
        duplicates_folder(run_id),
        attempts_folder(run_id),
        lease_folder(run_id),
        compacted_folder(run_id),
        replaced_folder(run_id),
    ]


def run_json(run_id: str) -> str:
    return f"{run_folder(run_id)}/run.json"


def success(run_id: str) -> str:
    return f"{run_folder(run_id)}/_SUCCESS"


def progress(run_id: str) -> str:
    """Name the file with the run's progress, for any script to read; it is written every few seconds while the run goes on."""
    return f"{run_folder(run_id)}/progress.json"


def vanished(run_id: str) -> str:
    """Name the list of inputs that earlier runs labeled and this one no longer found."""
    return f"{run_folder(run_id)}/{VANISHED}"


def replaced(run_id: str) -> str:
    """Name the copy of the `_SUCCESS` that a local compaction replaces; it exists until `labels` holds the new fragments."""
    return f"{run_folder(run_id)}/replaced.json"


def compaction(run_id: str) -> str:
    """Name the journal of a compaction by version 0.1: the `_SUCCESS` that it was about to write."""
    return f"{run_folder(run_id)}/compaction.json"


def manifest_parts(run_id: str) -> str:
    """Name the list of the manifest's parts with their checksums; `_SUCCESS` takes it over."""
    return f"{run_folder(run_id)}/manifest.json"


def removed_folder(run_id: str) -> str:
    """Name the folder that a local run is renamed to before it is removed."""
    return f"{REMOVED}{run_id}"


def run_files(run_id: str) -> list[str]:
    """List the files of a run outside its folders."""
    return [
        run_json(run_id),
        success(run_id),
        progress(run_id),
        vanished(run_id),
        manifest_parts(run_id),
        replaced(run_id),
        compaction(run_id),
    ]


def fragment_name(attempt: int, task: int) -> str:
    """Name a fragment. The name carries the attempt, so that a dead driver's late workers cannot pass for the living one's."""
    return f"part-{attempt:04d}-{task:06d}.parquet"


def attempt_of(fragment: str) -> int:
    return int(fragment.split("-")[1])


def task_of(fragment: str) -> int:
    return int(fragment.partition(".")[0].split("-")[2])
