"""The pages of docs/: links lead somewhere, pages say what they are for, and what they show of the program is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mlcls_ray import schema
from mlcls_ray.errors import Status
from tests.conftest import ROOT, run_cli
from tests.explore.browse.many import write_run
from tests.pages import WRITTEN, code_blocks, run_python

DOCS = ROOT / "docs"
GUIDES = [page for page in WRITTEN if page.parent == DOCS]
MAX_LINE = 120


def without_code(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The fragments that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", without_code(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)\s]+)\)", without_code(page)):
        name, _, fragment = target.partition("#")
        linked = page.parent / name if name else page
        assert linked.exists(), target
        assert not fragment or fragment in anchors(linked), target


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_files_of_the_project_that_it_names_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        return  # it also has names of the past
    for name in re.findall(r"(?<![\w/.])(?:scripts|configs|jobs|tests|notebooks)/[\w./]*\w", page.read_text("utf-8")):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_its_first_screen_says_what_it_is_for(page: Path) -> None:
    title, _, paragraph, *_ = page.read_text(encoding="utf-8").splitlines()
    assert title.startswith("# ")
    assert paragraph.startswith("This page ")


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_lines_are_short_and_tables_stand_alone(page: Path) -> None:
    lines = without_code(page).splitlines()
    for above, line in zip(["", *lines], lines, strict=False):
        if line.startswith("|"):
            assert above.startswith("|") or not above, f"a blank line belongs before the table: {line}"
        elif not line.startswith("!["):
            assert len(line) <= MAX_LINE, line


def test_the_model_list_is_what_the_command_prints(tmp_path: Path) -> None:
    printed = run_cli("models", env={"COLUMNS": "120", "MLCLS_HOME": str(tmp_path)}).stdout
    lines = [line.rstrip() for line in printed.split("\n\n")[0].splitlines()]
    assert "\n".join(lines) in (DOCS / "label.md").read_text(encoding="utf-8")


def test_every_column_and_status_is_explained() -> None:
    columns, statuses = (DOCS / name for name in ("table.md", "reference/schema.md"))
    text = columns.read_text(encoding="utf-8")
    assert [name for name in schema.LABEL_TABLE.names if f"`{name}`" not in text] == []
    rows = statuses.read_text(encoding="utf-8").partition("## Statuses")[2].partition("\n## ")[0]
    meanings = dict(re.findall(r"^\| `(\w+)` \|.*\| (.+) \|$", rows, flags=re.MULTILINE))
    assert set(meanings) == {status.value for status in Status}


def test_the_words_of_the_code_are_in_the_glossary() -> None:
    glossary = (DOCS / "architecture.md").read_text(encoding="utf-8").partition("## Glossary")[2]
    words = set(re.findall(r"\*\*([\w ,]+?)\*\*", glossary))
    defined = {word.strip() for entry in words for word in entry.split(",")}
    assert {
        "uri", "image bytes", "image", "pixels", "tensor", "scores", "class", "label", "vocabulary", "threshold", "row", "batch", "block",
        "stage", "engine", "device", "model", "manifest", "run", "attempt", "label table", "fragment", "annotated image", "resume",
        "fingerprint", "lease", "ledger", "golden",
    } <= defined  # fmt: skip


@pytest.mark.usefixtures("loopback_ray")
def test_the_python_of_label_and_table_runs(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name in ("cat.jpg", "boats.jpg"):
        (tmp_path / "photos" / name).write_bytes((demo / name).read_bytes())
    (labeling,) = code_blocks(DOCS / "label.md", "python")
    assert len(run_python(labeling)["table"].pandas()) == 2
    open_it, sql, frames, without_the_package, one_run = code_blocks(DOCS / "table.md", "python")
    for block in (open_it, sql, without_the_package):
        run_python(block)
    scope = run_python(frames)
    assert scope["per_label"]["cat"] == 1
    assert scope["people"].height == 0
    assert len(run_python(one_run)["frame"]) == 2


def test_the_python_of_predict_runs(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.jpg").write_bytes((demo / "cat.jpg").read_bytes())
    (block,) = code_blocks(DOCS / "predict.md", "python")
    run_python(block)
    printed = capsys.readouterr().out
    assert re.match(r"\{'img_path': 'photo.jpg', 'class_ids': \[.*\], 'scores': \[.*\], 'label_names': \[", printed)
    assert "'cat'" in printed
    assert sorted(path.name for path in (tmp_path / "output").iterdir()) == ["photo.jpg", "photo.json"]


def test_the_python_of_other_labels_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("EfficientNet-Lite0_ML", "mine"):
        write_run(str(tmp_path / "both" / name), "one", ["/a.jpg", "/b.jpg"])
    (block,) = code_blocks(DOCS / "other-labels.md", "python")
    assert len(run_python(block)["frame"]) == 2
