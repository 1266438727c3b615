"""Checks of processor, memory, packages and the model cache, over machines that a test describes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mlcls_ray.engines.checks.check import Check, Outcome, Probes, run_probe
from mlcls_ray.engines.checks.host import (
    check_cache,
    check_memory,
    check_packages,
    check_processor,
    check_shared_memory,
    check_version,
)
from mlcls_ray.engines.host import Host, read_host
from mlcls_ray.engines.nvidia import GIB


def host(**facts: Any) -> Host:
    return Host(**{"processor": "Xeon", "architecture": "x86_64", "cores": 4, **facts})


def test_this_machine_is_read() -> None:
    actual = read_host()
    assert actual.cores >= 1
    assert actual.total_bytes is not None
    assert actual.available_bytes is not None
    assert 0 < actual.available_bytes <= actual.total_bytes
    assert check_processor(actual).state == check_memory(actual).state == "ok"


@pytest.mark.parametrize(
    ("facts", "state", "expected"),
    [
        ({"features": {"avx", "avx2", "avx512f", "avx512_bf16", "amx_bf16"}}, "ok", "4 core(s): AVX2, AVX-512, AVX512_BF16, AMX; bf16"),
        ({"features": {"avx", "avx2"}}, "ok", "Xeon, 4 core(s): AVX2"),
        ({"architecture": "aarch64", "features": {"asimd", "bf16"}}, "ok", "NEON, BF16; bf16 is fast here"),
        ({"features": {"sse4_2"}}, "broken", "no AVX"),
        ({}, "ok", "Xeon, 4 core(s)"),
    ],
    ids=["AMX", "AVX2", "ARM", "too old", "unknown"],
)  # fmt: skip
def test_processors(facts: Mapping[str, Any], state: str, expected: str) -> None:
    check = check_processor(host(**facts))
    assert check.state == state
    assert expected in check.text


def test_memory() -> None:
    assert check_memory(host()).state == "ok", "a system that does not say is no reason to refuse"
    assert "14.0 of 16.0 GiB" in check_memory(host(total_bytes=16 * GIB, available_bytes=14 * GIB)).message
    small = check_memory(host(total_bytes=16 * GIB, available_bytes=GIB // 2))
    assert (small.state, small.is_required) == ("broken", True)
    assert "give the container more" in small.way_out


def test_shared_memory_is_no_condition() -> None:
    """A container of Docker's has 64 MiB of it."""
    small = check_shared_memory(host(shared_bytes=64 << 20))
    assert (small.state, small.is_required) == ("broken", False)
    assert "docker run --shm-size" in small.way_out
    assert check_shared_memory(host(shared_bytes=8 * GIB)).state == check_shared_memory(host()).state == "ok"


VERSIONS = {"good": "1.2", "other": "2.0"}


def packages_check(*packages: str, code: int = 0, errors: str = "") -> Check:
    return check_packages(
        "thing", packages, lambda name: VERSIONS.get(name, ""), lambda: Outcome(code, "", errors), "pip install thing"
    )


def test_packages() -> None:
    assert packages_check("good").message == "good 1.2"
    assert packages_check("absent", "other").message == "other 2.0"
    missing = packages_check("absent")
    assert (missing.state, missing.way_out) == ("missing", "pip install thing")
    broken = packages_check(
        "good", code=1, errors="Traceback\nImportError: libGL.so.1: cannot open shared object file\n"
    )
    assert broken.state == "broken"
    assert "good 1.2 does not load: ImportError: libGL.so.1" in broken.message
    assert broken.way_out == "pip install --force-reinstall --no-deps good"
    incomplete = packages_check("good", code=1, errors="ModuleNotFoundError: No module named 'flatbuffers'\n")
    assert incomplete.way_out == "pip install thing"


def test_another_version_of_ray_is_refused() -> None:
    loaded = Check(name="Ray", state="ok", message="ray 2.61.0")
    assert check_version(loaded, "ray", lambda name: "2.60.1", "2.60.") is loaded
    refused = check_version(loaded, "ray", lambda name: "2.61.0", "2.60.")
    assert (refused.state, refused.way_out) == ("broken", "pip install 'ray==2.60.*'")


def test_the_model_cache(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "home"
    assert "0 fetched model(s), 0 converted" in check_cache(folder).message
    (folder / "models" / "PP-LCNet_x1_0_ML").mkdir(parents=True)
    (folder / "converted").mkdir()
    for name in ("a.onnx", ".a.onnx.lock"):
        (folder / "converted" / name).touch()
    assert "1 fetched model(s), 1 converted" in check_cache(folder).message
    (tmp_path / "file").touch()
    refused = check_cache(tmp_path / "file" / "home")
    assert (refused.state, refused.is_required) == ("broken", True)
    assert "MLCLS_HOME" in refused.way_out


def test_a_probe_says_why_it_failed() -> None:
    assert run_probe(["import", "json"], Probes().environ).code == 0
    failed = run_probe(["import", "mlcls_ray.no_such_module"], Probes().environ)
    assert failed.code == 1
    assert failed.reason == "ModuleNotFoundError: No module named 'mlcls_ray.no_such_module'"
    assert Outcome(-11).reason == "the process ended with signal 11"
