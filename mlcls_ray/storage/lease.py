"""The lease: one process works on a folder of the output store at a time, on any store.

Object stores differ in what they can write conditionally (some send empty ETags), so the lease needs only what all of them have: a file
that was written is in the next listing. Each process writes a claim of its own and looks at the other claims twice:

1. write `claiming`, list; give up if another living claim is `holding`, or is `claiming` with a smaller id;
2. write `holding`, list again; give up for the same reasons.

Of two processes, the one that lists last sees the other, so they never both pass; both may give up. A claim lives until it expires,
unless its process is known to be dead. Its owner renews it from a thread.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from mlcls_ray.background import Wait, in_background
from mlcls_ray.errors import LeaseError
from mlcls_ray.storage.store import Store

Clock = Callable[[], float]
LIFETIME_S = 60.0
"""Seconds after which a silent process on another machine no longer keeps others out. The machines' clocks must agree to half of it."""
RENEWALS = 4
"""Renewals of a claim within its lifetime."""


class Claim(BaseModel):
    """The content of a claim's file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    owner: str
    state: Literal["claiming", "holding"]
    host: str
    boot: str
    pid: int
    started: float
    """Start of the process in clock ticks since boot: tells it from a later one with the same pid."""
    expires_at: float


@contextlib.contextmanager
def held_lease(
    store: Store, folder: str, what: str, lifetime_s: float = LIFETIME_S, clock: Clock = time.time
) -> Iterator[Lease]:
    """Hold the lease of `folder` while the body runs; `what` names it in messages.

    Raises:
        LeaseError: another process holds it, or claims it at the same moment.
    """
    lease = Lease(store, folder, what, lifetime_s, clock)
    try:
        lease.take()
        with lease.renewed():
            yield lease
    finally:
        lease.leave()


class Lease:
    """One process's claim on a folder, kept as a file in that folder. `clock` returns Unix time in seconds."""

    def __init__(
        self, store: Store, folder: str, what: str, lifetime_s: float = LIFETIME_S, clock: Clock = time.time
    ) -> None:
        self.store = store
        self.folder = folder
        self.what = what
        self.lifetime_s = lifetime_s
        self.clock = clock
        self.owner = secrets.token_hex(8)

    def take(self) -> None:
        """Claim the folder in two steps (see the module's text).

        Raises:
            LeaseError: another process holds it, or claims it at the same moment.
        """
        for state in ("claiming", "holding"):
            self._write(state)
            for other in self._other_claims():
                if other.state == "holding" or other.owner < self.owner:
                    raise self._held_by(other)

    def check(self) -> None:
        """Make sure, before a commit, that the lease is still held. A process that slept for longer than its lifetime may have lost it.

        Raises:
            LeaseError: the lease was lost.
        """
        for other in self._other_claims():
            if other.state == "holding":
                raise self._held_by(other)
        if not self._is_written():
            raise LeaseError(f"{self.what}: the lease expired and another process has taken it over")

    def renew(self) -> bool:
        """Extend the claim by another lifetime; return False if it was taken over."""
        if not self._is_written():
            return False
        self._write("holding")
        return True

    def leave(self) -> None:
        """Remove the claim. If the store cannot be reached, the claim expires by itself."""
        with contextlib.suppress(Exception):
            self.store.remove(f"{self.folder}/{self.owner}.json")

    @contextlib.contextmanager
    def renewed(self) -> Iterator[None]:
        """Renew the claim from a thread while the body runs."""

        def keep_renewing(wait: Wait) -> None:
            while not wait(self.lifetime_s / RENEWALS):
                with contextlib.suppress(Exception):  # the next renewal may reach the store again
                    if not self.renew():
                        return  # `check` will report it

        with in_background(keep_renewing, "lease"):
            yield

    def _held_by(self, other: Claim) -> LeaseError:
        return LeaseError(
            f"{self.what} is being worked on by process {other.pid} on {other.host}; wait for it to end, "
            f"or for {max(other.expires_at - self.clock(), 0):.0f} s if it is dead"
        )

    def _write(self, state: Literal["claiming", "holding"]) -> None:
        claim = Claim(
            owner=self.owner,
            state=state,
            host=socket.gethostname(),
            boot=_boot_id(),
            pid=os.getpid(),
            started=_start_ticks(os.getpid()) or 0.0,
            expires_at=self.clock() + self.lifetime_s,
        )
        self.store.write_json(f"{self.folder}/{self.owner}.json", claim.model_dump())

    def _is_written(self) -> bool:
        return f"{self.owner}.json" in self.store.names(self.folder)

    def _other_claims(self) -> list[Claim]:
        """Return the living claims of other processes; remove dead ones."""
        claims = read_claims(self.store, self.folder)
        now = self.clock()
        for claim in claims:
            if not is_alive(claim, now):
                self.store.remove(f"{self.folder}/{claim.owner}.json")
        return [claim for claim in claims if is_alive(claim, now) and claim.owner != self.owner]


def read_claims(store: Store, folder: str) -> list[Claim]:
    """Read all claims in a folder, dead ones too. A claim of another version of this program, whose fields differ, is left out."""
    claims = []
    for name in store.names(folder):
        loaded = store.read_json(f"{folder}/{name}")
        with contextlib.suppress(ValidationError):
            claims += [Claim.model_validate(loaded)] if loaded is not None else []
    return claims


def living_claims(store: Store, folder: str) -> list[Claim]:
    """Return the claims of processes that may be working in the folder."""
    return [claim for claim in read_claims(store, folder) if is_alive(claim, time.time())]


def is_alive(claim: Claim, now: float) -> bool:
    """Return whether the claim's process may still be working: it has not expired, and is no process of this machine that has ended."""
    if claim.expires_at < now:
        return False
    is_here = claim.host == socket.gethostname() and claim.boot == _boot_id()
    return not is_here or _start_ticks(claim.pid) == claim.started


def _boot_id() -> str:
    """Identify this boot and container: two machines, or two containers on one, may share a host name."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            boot = stream.read().strip()
        return f"{boot}-{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _start_ticks(pid: int) -> float | None:
    """Return when a process of this machine started, in clock ticks since boot; None if it does not run."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            after_name = stream.read().rpartition(")")[2].split()
    except OSError:
        return None
    is_zombie = after_name[0] == "Z"
    return None if is_zombie else float(after_name[19])
