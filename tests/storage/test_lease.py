"""The lease: one process at a time, on local disk and on two S3 servers; a dead one does not keep others out."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlcls_ray.config import S3Options
from mlcls_ray.errors import LeaseError
from mlcls_ray.storage.lease import LIFETIME_S, Lease, held_lease, read_claims
from mlcls_ray.storage.store import Store
from tests.s3_servers import BUCKET

FOLDER = "runs/r/lease"


class FakeClock:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


class LeaseContract:
    def test_the_second_is_refused_and_learns_who_holds_it(self, store: Store) -> None:
        with held_lease(store, FOLDER, "run 'r'"):
            with (
                pytest.raises(LeaseError, match=r"run 'r' is being worked on by process \d+ on") as caught,
                held_lease(store, FOLDER, "run 'r'"),
            ):
                pass
            assert caught.value.exit_code == 4
            with held_lease(store, "runs/another/lease", "run 'another'"):
                pass
        with held_lease(store, FOLDER, "run 'r'"):
            pass
        assert store.names(FOLDER) == []

    def test_of_many_at_once_at_most_one_passes(self, store: Store) -> None:
        for _ in range(5):
            start, end = threading.Barrier(6), threading.Barrier(6)

            def drive(start: threading.Barrier = start, end: threading.Barrier = end) -> bool:
                lease = Lease(store, FOLDER, "run 'r'")
                start.wait()
                try:
                    lease.take()
                    return True
                except LeaseError:
                    lease.leave()
                    return False
                finally:
                    end.wait()  # a winner holds on until all others have tried
                    lease.leave()

            with ThreadPoolExecutor(6) as threads:
                passed = [future.result() for future in [threads.submit(drive) for _ in range(6)]]
            assert sum(passed) <= 1
            with held_lease(store, FOLDER, "run 'r'"):
                pass  # nobody's claim is left

    def test_an_expired_claim_keeps_nobody_out(self, store: Store) -> None:
        clock = FakeClock()
        silent = Lease(store, FOLDER, "run 'r'", clock=clock)
        silent.take()
        clock.now += LIFETIME_S - 1
        newcomer = Lease(store, FOLDER, "run 'r'", clock=clock)
        with pytest.raises(LeaseError, match="or for 1 s if it is dead"):
            newcomer.take()
        newcomer.leave()
        clock.now += 2
        heir = Lease(store, FOLDER, "run 'r'", clock=clock)
        heir.take()
        assert f"{silent.owner}.json" not in store.names(FOLDER), "and it is removed"
        assert not silent.renew()
        heir.check()

    def test_a_renewed_claim_lives_on(self, store: Store) -> None:
        clock = FakeClock()
        lease = Lease(store, FOLDER, "run 'r'", clock=clock)
        lease.take()
        for _ in range(3):
            clock.now += 0.9 * LIFETIME_S
            assert lease.renew()
        newcomer = Lease(store, FOLDER, "run 'r'", clock=clock)
        with pytest.raises(LeaseError):
            newcomer.take()
        newcomer.leave()
        lease.check()

    def test_a_held_lease_renews_itself(self, store: Store) -> None:
        ticks = itertools.count()
        was_renewed = threading.Event()

        def clock() -> float:
            if next(ticks) >= 5:  # four times by `take`, then once per renewal: the first one is complete
                was_renewed.set()
            return time.time()

        with held_lease(store, FOLDER, "run 'r'", lifetime_s=2.0, clock=clock):
            (before,) = read_claims(store, FOLDER)
            assert was_renewed.wait(30)
            (after,) = read_claims(store, FOLDER)
        assert after.owner == before.owner
        assert after.expires_at > before.expires_at

    def test_a_process_that_overslept_does_not_commit(self, store: Store) -> None:
        asleep = Lease(store, FOLDER, "run 'r'")
        asleep.take()
        store.remove(f"{FOLDER}/{asleep.owner}.json")  # as one that finds it expired does
        with held_lease(store, FOLDER, "run 'r'"), pytest.raises(LeaseError, match="being worked on"):
            asleep.check()
        with pytest.raises(LeaseError, match="has taken it over"):
            asleep.check()

    def test_a_newcomer_does_not_disturb_the_holder(self, store: Store) -> None:
        with held_lease(store, FOLDER, "run 'r'") as lease:
            newcomer = Lease(store, FOLDER, "run 'r'")
            newcomer.owner = "0" * 16  # the smallest id there is
            with pytest.raises(LeaseError):
                newcomer.take()
            lease.check()
            newcomer.leave()


class TestLocal(LeaseContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return Store(str(tmp_path))

    def test_a_killed_process_of_this_machine_keeps_nobody_out(self, store: Store) -> None:
        code = f"""
import time
from mlcls_ray.storage.lease import held_lease
from mlcls_ray.storage.store import Store
with held_lease(Store({store.root!r}), {FOLDER!r}, "run 'r'"):
    print("held", flush=True)
    time.sleep(60)
"""
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with (
            pytest.raises(LeaseError, match=f"process {process.pid} "),
            held_lease(store, FOLDER, "run 'r'"),
        ):
            pass
        process.kill()
        assert process.stdout.read() == b"", (
            "closed: the process has ended, and is a zombie until somebody waits for it"
        )
        with held_lease(store, FOLDER, "run 'r'"):
            pass
        process.wait()


class TestS3(LeaseContract):
    @pytest.fixture
    def store(self, s3_endpoint: str) -> Store:
        return Store(f"s3://{BUCKET}/{uuid.uuid4().hex}", S3Options(endpoint_url=s3_endpoint))
