"""What a Ray on this machine needs, and what it says where that is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlcls_ray.errors import UsageError
from mlcls_ray.job.surroundings import MAX_SOCKET_BYTES, SOCKET, can_write, check_surroundings, needs_own_token
from tests.conftest import run_installed

READ_ONLY = "/proc"
"""A folder in which nobody makes files, root neither."""


def test_a_usual_machine_passes(tmp_path: Path) -> None:
    check_surroundings({}, str(tmp_path))
    check_surroundings({"TMPDIR": "/tmp"}, None)
    check_surroundings({"TMPDIR": READ_ONLY, "RAY_TMPDIR": "/tmp"}, None)


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_long_temporary_folder(variable: str) -> None:
    """Counted in bytes; the longest one that fits passes."""
    most = MAX_SOCKET_BYTES - len(SOCKET.format(pid=os.getpid()))
    check_surroundings({variable: "/tmp/" + "x" * (most - 5)}, None)
    for folder in ("/tmp/" + "x" * (most - 4), "/tmp/" + "é" * (most // 2)):
        with pytest.raises(
            UsageError, match=rf"^{variable}={folder} is too long .* set RAY_TMPDIR to a shorter folder"
        ):
            check_surroundings({variable: folder}, None)


def test_a_temporary_folder_that_cannot_be_used(small_disk: Path) -> None:
    with pytest.raises(UsageError, match="TMPDIR=/proc cannot be written.*set RAY_TMPDIR"):
        check_surroundings({"TMPDIR": READ_ONLY}, None)
    with pytest.raises(UsageError, match="cannot be written"):
        check_surroundings({"TMPDIR": "/dev/null"}, None)
    short = Path("/tmp") / f"mlcls-{os.getpid()}"
    short.symlink_to(small_disk)
    try:
        with pytest.raises(UsageError, match=f"TMPDIR={short} has 2 MB left"):
            check_surroundings({"TMPDIR": str(short)}, None)
    finally:
        short.unlink()


@pytest.mark.parametrize("name", ["a'b", "a\\b", "a\nb"])
def test_a_temporary_folder_that_ray_cannot_name(tmp_path: Path, name: str) -> None:
    folder = f"/tmp/{name}"
    with pytest.raises(UsageError, match="(?s)^TMPDIR=/tmp/a.b has quotes.*set RAY_TMPDIR"):
        check_surroundings({"TMPDIR": folder}, None)
    check_surroundings({"TMPDIR": folder, "RAY_TMPDIR": "/tmp"}, None)


def test_shared_memory(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="/proc/shm is missing.*--shm-size"):
        check_surroundings({}, "/proc/shm")
    with pytest.raises(UsageError, match="/proc cannot be written.*--shm-size"):
        check_surroundings({}, READ_ONLY)


def test_where_ray_can_keep_its_token(tmp_path: Path) -> None:
    assert not needs_own_token({"HOME": str(tmp_path / "new")})
    for home in ("/proc/nobody", "/dev/null", ""):
        assert needs_own_token({"HOME": home})
        for variable in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
            assert not needs_own_token({"HOME": home, variable: "x"})
        assert not needs_own_token({"HOME": home, "RAY_AUTH_MODE": "disabled"})
    assert needs_own_token({})


def test_can_write(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert can_write(tmp_path / "a" / "b")
    assert not can_write(tmp_path / "file" / "b")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"TMPDIR": "/tmp/" + "x" * 100}, "is too long for Ray's sockets"),
        pytest.param(
            {"MLCLS_HOME": "", "HOME": "/proc"},
            "the cache /proc/.cache/mlcls_ray cannot be written: set MLCLS_HOME",
            marks=pytest.mark.slow,
        ),
        pytest.param({"MLCLS_HOME": "/proc/cache"}, "the cache /proc/cache cannot be written", marks=pytest.mark.slow),
    ],
)
def test_a_job_is_refused_before_anything_is_written(
    demo: Path, tmp_path: Path, variables: dict[str, str], message: str
) -> None:
    done = run_installed("label", demo, "--out", tmp_path / "out", check=2, env=variables)
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_home_that_cannot_be_written(demo: Path, tmp_path: Path) -> None:
    """The cache is elsewhere; Ray's token is made for this process."""
    variables = {"HOME": "/proc", "MLCLS_HOME": str(tmp_path / "cache")}
    done = run_installed("label", demo, "--out", tmp_path / "out", env=variables)
    assert (tmp_path / "out" / "latest.json").exists(), done.stderr
