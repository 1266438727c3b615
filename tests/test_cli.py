"""The command as a user meets it: help, config, and one clear line with exit code 2 for all that is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from mlcls_ray.cli import app
from tests.conftest import ROOT, run_cli

COMMANDS = [
    (), *((name,) for name in app if not name.startswith("-")), ("models", "pull"),
    ("dataset", "check"), ("dataset", "split"), ("dataset", "from-labelstudio"),
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_describes_every_option(command: tuple[str, ...]) -> None:
    text = run_cli(*command, "--help", env={"COLUMNS": "120"}).stdout
    assert "Usage: mlcls" in text
    for line in text.splitlines():
        if line.startswith("│ --"):
            assert len(line.strip("│ ").split("  ")) > 1 or "--" in line


def test_print_config_is_a_config(tmp_path: Path) -> None:
    printed = run_cli(
        "label", "photos", "--out", "o", "--threshold", "0.5,person=0.7", "--annotate", "3", "--print-config"
    ).stdout
    (tmp_path / "job.yaml").write_text(printed)
    loaded = yaml.safe_load(printed)
    assert (loaded["inputs"], loaded["annotate"]) == (["photos"], 3)
    assert loaded["threshold"] == {"default": 0.5, "classes": {"person": 0.7}}
    assert run_cli("label", "--config", tmp_path / "job.yaml", "--print-config").stdout == printed


def test_flags_override_the_file() -> None:
    config = ROOT / "configs" / "label_s3.yaml"
    loaded = yaml.safe_load(run_cli("label", "--config", config, "--batch-size", 3, "--print-config").stdout)
    assert (loaded["batch_size"], loaded["device"]) == (3, "gpu")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["label", "nowhere", "--out", "o"], "input 'nowhere' does not exist"),
        (["label", "--out", "o"], "no input"),
        (["label", "{images}"], "no output"),
        (["label", "{images}", "--out", "o", "--model", "PP-LCNet"], "did you mean 'PP-LCNet_x1_0_ML'"),
        (["label", "{images}", "--out", "o", "--model", "{images}"], "not a Paddle inference folder"),
        (["label", "{images}", "--out", "o", "--threshold", "persn=0.5"], "did you mean 'person'"),
        (["label", "{images}", "--out", "o", "--threshold", "2"], "between 0 and 1"),
        (["label", "{images}", "--out", "o", "--device", "tpu"], "unknown device 'tpu'"),
        (["label", "{images}", "--out", "o", "--batch-size", "0"], "greater than 0"),
        (["label", "{images}", "--out", "o", "--annotate", "few"], "annotate"),
        (["label", "{images}", "--out", "o", "--config", "none.yaml"], "cannot be read"),
        (["label", "{images}", "--out", "o", "--run-id", "a/b"], "run_id"),
        (["label", "{images}", "--out", "/proc/x"], "cannot be written"),
        (["label", "{images}", "--out", "{images}"], "holds something else"),
        (["label", "{images}", "--out", "ftp://x/y"], "unknown scheme 'ftp'"),
        (["label", "{images}", "--out", "o", "--speed", "11"], "speed"),
        (["verify", "nowhere"], "holds no runs"),
        (["retry", "nowhere"], "holds no committed run"),
        (["retry", "nowhere", "--status", "timeouts"], "unknown status 'timeouts': did you mean 'timeout'"),
        (["compact", "nowhere", "--run-id", "r"], "run 'r' is not committed"),
        (["verify"], "out"),
        (["lebal"], "lebal"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    folder_of_images: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    filled = [word.replace("{images}", str(folder_of_images / "a")) for word in words]
    done = run_cli(*filled, check=2, cwd=tmp_path, timeout=30)
    assert message.lower() in " ".join((done.stdout + done.stderr).lower().split())
    assert not (tmp_path / "o").exists() or not any(os.scandir(tmp_path / "o"))


def test_a_cluster_that_is_not_there(folder_of_images: Path, tiny_folder: Path, tmp_path: Path) -> None:
    words = ("label", folder_of_images, "--out", tmp_path / "o", "--model", tiny_folder)
    done = run_cli(*words, check=2, env={"RAY_ADDRESS": "127.0.0.1:9"}, timeout=30)
    assert "the Ray cluster at '127.0.0.1:9' cannot be reached" in done.stderr
