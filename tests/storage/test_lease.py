"""The lease: one driver at a time, on local disk and on two S3 servers; a dead one does not keep others out."""

from __future__ import annotations

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
from mlcls_ray.storage.lease import Lease, held_lease
from mlcls_ray.storage.store import Store
from mlcls_ray.table import layout
from tests.s3_servers import BUCKET


class LeaseContract:
    def test_the_second_is_refused_and_told_who_has_it(self, store: Store) -> None:
        with held_lease(store, "r"):
            with (
                pytest.raises(LeaseError, match=r"run 'r' is being worked on by process \d+ on") as caught,
                held_lease(store, "r"),
            ):
                pass
            assert caught.value.exit_code == 4
            with held_lease(store, "another run"):
                pass
        with held_lease(store, "r"):
            pass
        assert store.names(layout.lease_folder("r")) == []

    def test_of_many_at_once_at_most_one_passes(self, store: Store) -> None:
        for _ in range(5):
            start = threading.Barrier(6)
            holding = threading.Lock()

            def drive(start: threading.Barrier = start, holding: threading.Lock = holding) -> bool:
                start.wait()
                try:
                    with held_lease(store, "r"):
                        assert holding.acquire(blocking=False), "two drivers hold the lease"
                        time.sleep(0.05)
                        holding.release()
                        return True
                except LeaseError:
                    return False

            with ThreadPoolExecutor(6) as threads:
                passed = [one.result() for one in [threads.submit(drive) for _ in range(6)]]
            assert len(passed) == 6

    def test_an_expired_claim_is_nobodys(self, store: Store) -> None:
        silent = Lease(store, layout.lease_folder("r"), "run 'r'", lifetime_s=-1)
        silent._write("holding")
        with held_lease(store, "r"):
            pass

    def test_it_is_renewed_while_it_is_held(self, store: Store) -> None:
        with held_lease(store, "r", lifetime_s=3.0):
            time.sleep(4.5)
            with pytest.raises(LeaseError), held_lease(store, "r", lifetime_s=3.0):
                pass

    def test_a_driver_that_overslept_does_not_commit(self, store: Store) -> None:
        asleep = Lease(store, layout.lease_folder("r"), "run 'r'", lifetime_s=60)
        asleep.take()
        store.remove(f"{asleep.folder}/{asleep.owner}.json")  # as one that finds it expired does
        with held_lease(store, "r"), pytest.raises(LeaseError, match="being worked on"):
            asleep.check()
        with pytest.raises(LeaseError, match="has taken it over"):
            asleep.check()

    def test_a_newcomer_does_not_disturb_the_holder(self, store: Store) -> None:
        with held_lease(store, "r") as lease:
            newcomer = Lease(store, layout.lease_folder("r"), "run 'r'", lifetime_s=60)
            newcomer.owner = "0" * 16  # the smallest id there is
            with pytest.raises(LeaseError):
                newcomer.take()
            lease.check()
            newcomer.leave()


class TestLocal(LeaseContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return Store(str(tmp_path))

    def test_a_killed_driver_of_this_machine_keeps_nobody_out(self, store: Store) -> None:
        code = f"""
import time
from mlcls_ray.storage.lease import held_lease
from mlcls_ray.storage.store import Store
with held_lease(Store({store.root!r}), "r"):
    print("held", flush=True)
    time.sleep(60)
"""
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(LeaseError, match=f"process {process.pid} "), held_lease(store, "r"):
            pass
        process.kill()
        time.sleep(0.2)
        with held_lease(store, "r"):
            pass  # even before anybody has waited for the process: it is a zombie
        process.wait()


class TestS3(LeaseContract):
    @pytest.fixture
    def store(self, s3_endpoint: str) -> Store:
        return Store(f"s3://{BUCKET}/{uuid.uuid4().hex}", S3Options(endpoint_url=s3_endpoint))
