"""jobs/: each file runs its command, with the package that lies beside it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

COMMANDS = {"label_images": "label", "evaluate": "evaluate", "finetune": "finetune", "serve": "serve"}


def run_job(job: str, *words: str, working_dir: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a job's file as Ray does: in the working directory, which is on PYTHONPATH."""
    return subprocess.run(
        [sys.executable, f"jobs/{job}.py", *words],
        cwd=working_dir,
        env={**os.environ, "PYTHONPATH": str(working_dir)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_each_job_is_tested() -> None:
    assert {path.stem for path in (ROOT / "jobs").glob("*.py")} == set(COMMANDS)


@pytest.mark.parametrize("job", COMMANDS)
def test_a_job_takes_the_flags_of_its_command(job: str) -> None:
    done = run_job(job, "--help")
    assert done.returncode == 0, done.stderr
    assert re.match(rf"\s*Usage: mlcls {COMMANDS[job]} ", done.stdout)


def test_exit_codes_and_messages_are_those_of_the_command(tmp_path: Path) -> None:
    done = run_job("label_images", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert done.stderr.startswith("mlcls: ")
    assert "Traceback" not in done.stderr


def test_the_package_of_the_working_directory_is_used(tmp_path: Path) -> None:
    """The directory that `ray job submit` ships need not be installed, and wins over a package that is."""
    (tmp_path / "jobs").symlink_to(ROOT / "jobs")
    (tmp_path / "mlcls_ray" / "cli").mkdir(parents=True)
    (tmp_path / "mlcls_ray" / "__init__.py").write_text("")
    (tmp_path / "mlcls_ray" / "cli" / "__init__.py").write_text("def main(words):\n    print('shipped', words)\n")
    done = run_job("serve", "--port", "1", working_dir=tmp_path)
    assert done.stdout == "shipped ['serve', '--port', '1']\n"
