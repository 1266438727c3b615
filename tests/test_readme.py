"""The README: short, complete, and its Python runs."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.pages import code_blocks, run_python

README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")


def test_it_is_short() -> None:
    assert len(TEXT.splitlines()) <= 110


def test_it_shows_two_pictures_before_any_command() -> None:
    before = TEXT.partition("```")[0]
    assert len(re.findall(r"^!\[[^\]]+\]\(docs/images/", before, flags=re.MULTILINE)) == 2


def test_it_leads_to_every_page() -> None:
    linked = {ROOT / target for target in re.findall(r"\]\((docs/[\w/.-]+\.md)", TEXT)}
    pages = set((ROOT / "docs").rglob("*.md"))
    assert pages <= linked, f"no link to {sorted(str(path.relative_to(ROOT)) for path in pages - linked)}"


def test_the_first_command_can_be_started() -> None:
    assert os.access(ROOT / "scripts" / "label", os.X_OK)


@pytest.mark.usefixtures("loopback_ray")
def test_its_python_runs(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name in ("cat.jpg", "boats.jpg"):
        (tmp_path / "photos" / name).write_bytes((demo / name).read_bytes())
    label_them, read_them = code_blocks(README, "python")
    result = run_python(label_them)["result"]
    assert (result.rows, dict(result.statuses)) == (2, {"ok": 2})
    assert result.run_id in capsys.readouterr().out
    frame = run_python(read_them)["frame"]
    assert sorted(Path(uri).name for uri in frame["uri"]) == ["boats.jpg", "cat.jpg"]
    assert "cat" in capsys.readouterr().out
