"""Progress: a live bar on a terminal, plain lines elsewhere, Ray's own noise in neither."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import MLCLS, run_cli


@pytest.mark.slow
def test_a_bar_on_a_terminal(tiny_folder: Path, demo: Path, tmp_path: Path) -> None:
    """A real pseudo-terminal."""
    leader, follower = pty.openpty()
    command = [MLCLS, "label", demo, "--out", tmp_path, "--model", tiny_folder]
    process = subprocess.Popen(
        command, stdout=follower, stderr=follower, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(leader)
    assert process.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert "labeling" in text
    assert "starting workers" in text
    assert "12/12" in text
    for noise in ("ray::", "WARNING", "INFO", "logging.cc", "OneDNN", "ccache"):
        assert noise not in text


def test_plain_lines_elsewhere(tiny_folder: Path, demo: Path, tmp_path: Path) -> None:
    done = run_cli("label", demo, "--out", tmp_path, "--model", tiny_folder)
    lines = done.stderr.splitlines()
    assert all(re.fullmatch(r"[\d,]+ of 12 images, \d+/s, \d+ errors(, \d+ s left)?", line) for line in lines), lines
    assert "\x1b" not in done.stdout + done.stderr
