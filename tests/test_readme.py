"""The README shows what the program prints, and its lines run."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from mlcls_ray import schema
from mlcls_ray.config import LabelJob
from mlcls_ray.errors import Status
from mlcls_ray.job.label import label
from tests.conftest import ROOT, run_cli

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_model_list_is_what_the_command_prints(tmp_path: Path) -> None:
    printed = run_cli("models", env={"COLUMNS": "120", "MLCLS_HOME": str(tmp_path)}).stdout
    lines = [line.rstrip() for line in printed.split("\n\n")[0].splitlines()]
    assert "\n".join(lines) in README


def test_every_column_and_status_is_explained() -> None:
    assert all(f"`{name}`" in README for name in (*schema.label_table(1).names, *(status.value for status in Status)))


@pytest.mark.usefixtures("loopback_ray")
def test_the_queries_run(
    tiny_folder: Path, folder_of_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    job = LabelJob(inputs=(str(folder_of_images),), out=str(tmp_path / "out"), model=str(tiny_folder), run_id="RUN_ID")
    label(job)
    _, queries = blocks("python")
    exec(queries, {})


def test_the_librarys_flow_runs(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.jpg").write_bytes((demo / "cat.jpg").read_bytes())
    library, _ = blocks("python")
    exec(library, {})
    assert capsys.readouterr().out.startswith("{'img_path': 'photo.jpg', 'class_ids': [15, 59], ")
    assert sorted(path.name for path in (tmp_path / "output").iterdir()) == ["photo.jpg", "photo.json"]


def test_files_that_it_names_exist() -> None:
    for name in re.findall(r"\]\(([\w/._-]+)\)", README):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"(?:scripts|configs|jobs)/[\w.]+", README):
        assert (ROOT / name).exists(), name
    assert os.access(ROOT / "scripts" / "label", os.X_OK)
