"""Where things are under OUT: the only module that spells its folders and files."""

from __future__ import annotations

RUNS = "runs"
LATEST = "latest.json"
VANISHED = "vanished.parquet"
INCREMENTAL_LEASE = ".lease"
"""Held while an incremental job works on the output: two of them would both find the same inputs new."""
LABELS_GLOB = f"{RUNS}/*/labels/*.parquet"


def run_folder(run_id: str) -> str:
    return f"{RUNS}/{run_id}"


def compaction(run_id: str) -> str:
    """What a compaction of a local run is about to commit."""
    return f"{run_folder(run_id)}/compaction.json"


def compacted_folder(run_id: str) -> str:
    """Where a compaction of a local run writes, before the folder takes the place of `labels`."""
    return f"{run_folder(run_id)}/labels-compacted"


def manifest_folder(run_id: str) -> str:
    return f"{run_folder(run_id)}/manifest"


def labels_folder(run_id: str) -> str:
    return f"{run_folder(run_id)}/labels"


def duplicates_folder(run_id: str) -> str:
    return f"{run_folder(run_id)}/duplicates"


def annotated_folder(run_id: str) -> str:
    return f"{run_folder(run_id)}/annotated"


def run_folders(run_id: str) -> list[str]:
    """The folders of a run that files are written to."""
    return [
        manifest_folder(run_id),
        labels_folder(run_id),
        annotated_folder(run_id),
        duplicates_folder(run_id),
        attempts_folder(run_id),
        lease_folder(run_id),
        compacted_folder(run_id),
    ]


def run_json(run_id: str) -> str:
    return f"{run_folder(run_id)}/run.json"


def attempts_folder(run_id: str) -> str:
    return f"{run_folder(run_id)}/attempts"


def lease_folder(run_id: str) -> str:
    return f"{run_folder(run_id)}/lease"


def progress(run_id: str) -> str:
    """How a run stands, for any script to read; written every few seconds while it goes on."""
    return f"{run_folder(run_id)}/progress.json"


def vanished(run_id: str) -> str:
    return f"{run_folder(run_id)}/{VANISHED}"


def success(run_id: str) -> str:
    return f"{run_folder(run_id)}/_SUCCESS"


def fragment_name(attempt: int, task: int) -> str:
    """A fragment's name carries its attempt, so that a dead driver's late workers are told from the living one's."""
    return f"part-{attempt:04d}-{task:06d}.parquet"


def attempt_of(fragment: str) -> int:
    return int(fragment.split("-")[1])


def task_of(fragment: str) -> int:
    return int(fragment.partition(".")[0].split("-")[2])
