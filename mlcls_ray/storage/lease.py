"""The lease: one driver works on a run at a time, on any store.

Object stores differ in what they can write conditionally (some send empty ETags), so the lease needs only what all have: a file that was
written is seen by the next listing. Each driver writes a claim of its own and looks at the others' twice:

1. write `claiming`, list; give up if another lives that holds, or claims with a smaller id;
2. write `holding`, list again; give up if another lives that holds, or claims with a smaller id.

Of two drivers, the one that lists last sees the other, so that they never both pass; it can happen that both give up. A claim lives until
it expires, unless its process is known to be dead; its driver renews it from a thread.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from mlcls_ray.errors import LeaseError
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout

LIFETIME_S = 60.0
"""How long a driver that fell silent (on another machine) keeps others out. Clocks that differ by more than half of it break the lease."""
RENEWALS = 4
"""How often a claim is renewed within its lifetime."""


class Claim(BaseModel):
    """One driver's claim, as its file says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    owner: str
    state: Literal["claiming", "holding"]
    host: str
    boot: str
    pid: int
    started: float
    """The process's start in clock ticks since boot: a pid is used again."""
    expires_at: float


@contextlib.contextmanager
def held_lease(store: Store, run_id: str, lifetime_s: float = LIFETIME_S) -> Iterator[Lease]:
    """Hold the run's lease while the body runs.

    Raises:
        LeaseError: another driver holds it, or claims it at the same moment.
    """
    with held(Lease(store, layout.lease_folder(run_id), f"run '{run_id}'", lifetime_s)) as lease:
        yield lease


@contextlib.contextmanager
def held_incremental_lease(store: Store) -> Iterator[Lease]:
    """Hold the output against other incremental jobs while the body runs. Raises as `held_lease`."""
    with held(Lease(store, layout.INCREMENTAL_LEASE, f"'{store.root}' (incremental)", LIFETIME_S)) as lease:
        yield lease


@contextlib.contextmanager
def held(lease: Lease) -> Iterator[Lease]:
    """Hold a lease while the body runs."""
    try:
        lease.take()
        with lease.renewed():
            yield lease
    finally:
        lease.leave()


class Lease:
    """A driver's claim, as a file in `folder`; `what` it is on, for messages."""

    def __init__(self, store: Store, folder: str, what: str, lifetime_s: float) -> None:
        self.store = store
        self.folder = folder
        self.what = what
        self.lifetime_s = lifetime_s
        self.owner = secrets.token_hex(8)

    def take(self) -> None:
        """Claim the run in two steps (see the module's text).

        Raises:
            LeaseError: another driver has it, or claims it at the same moment.
        """
        for state in ("claiming", "holding"):
            self._write(state)
            for other in self._others():
                if other.state == "holding" or other.owner < self.owner:
                    raise self._taken_by(other)

    def check(self) -> None:
        """Before a commit: that this driver still holds the run. One that was asleep for longer than its lease may have lost it.

        Raises:
            LeaseError: it has.
        """
        for other in self._others():
            if other.state == "holding":
                raise self._taken_by(other)
        if not self._is_written():
            raise LeaseError(f"{self.what}: the lease expired and another process has taken it over")

    def _taken_by(self, other: Claim) -> LeaseError:
        return LeaseError(
            f"{self.what} is being worked on by process {other.pid} on {other.host}; wait for it to end, "
            f"or for {max(other.expires_at - time.time(), 0):.0f} s if it is dead"
        )

    def leave(self) -> None:
        """Remove the claim; a store that cannot be reached lets it expire."""
        with contextlib.suppress(Exception):
            self.store.remove(f"{self.folder}/{self.owner}.json")

    @contextlib.contextmanager
    def renewed(self) -> Iterator[None]:
        """Renew the claim from a thread while the body runs."""
        stop = threading.Event()

        def renew() -> None:
            while not stop.wait(self.lifetime_s / RENEWALS):
                with contextlib.suppress(Exception):  # the next renewal may reach the store again
                    if not self._is_written():
                        return  # taken over; `check` will say so
                    self._write("holding")

        thread = threading.Thread(target=renew, daemon=True, name="lease")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _write(self, state: Literal["claiming", "holding"]) -> None:
        claim = Claim(
            owner=self.owner,
            state=state,
            host=socket.gethostname(),
            boot=_boot_id(),
            pid=os.getpid(),
            started=_started(os.getpid()) or 0.0,
            expires_at=time.time() + self.lifetime_s,
        )
        self.store.write_json(f"{self.folder}/{self.owner}.json", claim.model_dump())

    def _is_written(self) -> bool:
        return f"{self.owner}.json" in self.store.names(self.folder)

    def _others(self) -> list[Claim]:
        """The living claims of other drivers; what is left of dead ones is removed."""
        claims = read_claims(self.store, self.folder)
        for claim in claims:
            if not is_alive(claim):
                self.store.remove(f"{self.folder}/{claim.owner}.json")
        return [claim for claim in claims if is_alive(claim) and claim.owner != self.owner]


def read_claims(store: Store, folder: str) -> list[Claim]:
    """The claims in a folder, dead ones too; one of another version of this program, whose expiry cannot be read, is left out."""
    claims = []
    for name in store.names(folder):
        loaded = store.read_json(f"{folder}/{name}")
        with contextlib.suppress(ValidationError):
            claims += [Claim.model_validate(loaded)] if loaded is not None else []
    return claims


def living_claims(store: Store, run_id: str) -> list[Claim]:
    """The claims of drivers that may be working on a run."""
    return [claim for claim in read_claims(store, layout.lease_folder(run_id)) if is_alive(claim)]


def is_alive(claim: Claim) -> bool:
    """Whether its driver may still be working: not expired, and not a process of this machine that is gone."""
    if claim.expires_at < time.time():
        return False
    is_here = claim.host == socket.gethostname() and claim.boot == _boot_id()
    return not is_here or _started(claim.pid) == claim.started


def _boot_id() -> str:
    """Tells two boots, and two containers with one host name on different machines, apart."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            boot = stream.read().strip()
        return f"{boot}-{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> float | None:
    """When a process of this machine started, in clock ticks since boot; None where there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            after_name = stream.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if after_name[0] == "Z" else float(after_name[19])
