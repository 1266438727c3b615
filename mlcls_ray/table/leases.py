"""The leases of an output: one driver per run, and one incremental job per output. See `storage.lease`."""

from __future__ import annotations

from contextlib import AbstractContextManager

from mlcls_ray.storage.lease import Lease, held_lease, living_claims
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout


def run_lease(store: Store, run_id: str) -> AbstractContextManager[Lease]:
    """Hold a run's lease while the body runs.

    Raises:
        LeaseError: another driver holds it, or claims it at the same moment.
    """
    return held_lease(store, layout.lease_folder(run_id), f"run '{run_id}'")


def incremental_lease(store: Store) -> AbstractContextManager[Lease]:
    """Keep other incremental jobs out of an output while the body runs: two of them would both label the same new inputs.

    Raises:
        LeaseError: another incremental job holds it, or claims it at the same moment.
    """
    return held_lease(store, layout.INCREMENTAL_LEASE, f"'{store.root}' (incremental)")


def is_being_worked_on(store: Store, run_id: str) -> bool:
    """Return whether a driver that may be alive has claimed the run."""
    return bool(living_claims(store, layout.lease_folder(run_id)))
