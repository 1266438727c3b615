"""`mlcls gc`: leftovers of dead processes go; runs that can be resumed, or are running, stay."""

from __future__ import annotations

import os
import time
from pathlib import Path

from mlcls_ray.job.commit import commit
from mlcls_ray.job.plan import Run
from mlcls_ray.table import layout
from mlcls_ray.table.gc import find_leftovers, remove_leftovers
from mlcls_ray.table.leases import run_lease
from mlcls_ray.table.ledger import write_fragment
from mlcls_ray.table.verify import verify
from tests.conftest import run_cli
from tests.table.fragments import LABELS, RUN, rows, written


def test_leftovers(run: Run) -> None:
    store = run.store
    root = Path(store.root)
    commit(run.models[0], written(run, (0, 1), (2, 3, 4)), seconds=1)
    write_fragment(store, RUN, layout.fragment_name(1, 9), rows(0))
    old, young = root / LABELS / ".1.tmp", root / LABELS / ".2.tmp"
    for path in (old, young, root / ".3.tmp"):
        path.write_bytes(b"half")
    for path in (old, root / ".3.tmp"):
        os.utime(path, (time.time() - 7200,) * 2)
    store.write(f"{layout.manifest_folder('listing')}/part-00000.parquet", b"")
    store.write(f"{layout.compacted_folder(RUN)}/part-0002-000000.parquet", b"")
    store.write(layout.run_json("unfinished"), store.read(layout.run_json(RUN)) or b"")
    write_fragment(store, "unfinished", layout.fragment_name(1, 0), rows(0))
    with run_lease(store, "busy"):
        leftovers = find_leftovers(store)
        output = run_cli("gc", store.root, "--dry-run").stdout
        assert "runs/listing: a run whose listing did not finish\n" in output
        assert output.endswith("5 leftover(s) found\n")
        remove_leftovers(store, leftovers)
        assert store.names(layout.RUNS) == ["busy", RUN, "unfinished"]
    assert sorted(leftover.name for leftover in leftovers) == [
        ".3.tmp",
        "runs/listing",
        f"runs/{RUN}/labels-compacted",
        f"{LABELS}/.1.tmp",
        f"{LABELS}/{layout.fragment_name(1, 9)}",
    ]
    assert young.exists()
    assert not old.exists()
    assert verify(store, RUN) == []
    assert len(store.names(layout.labels_folder("unfinished"))) == 1, "it can be resumed"
