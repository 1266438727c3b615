"""The notebook is committed without outputs, and runs from top to bottom over the demo."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import pytest
import ray
from nbclient import NotebookClient

from tests.conftest import ROOT

NOTEBOOK = ROOT / "notebooks" / "explore_labels.ipynb"


def test_it_is_committed_without_outputs_and_explains_itself() -> None:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert cells[0].cell_type == "markdown"
    assert sum(cell.cell_type == "markdown" for cell in cells) >= 8


def test_it_runs(loopback_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its `mlcls demo` uses the Ray of the tests."""
    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    texts = [str(output.get("text", "")) for output in outputs]
    assert not any("mlcls: " in text for text in texts), texts
    pages = [output["data"].get("text/html", "") for output in outputs if "data" in output]
    assert sum(page.count("data:image/jpeg") for page in pages) >= 12, "images are drawn inline"
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2, "and two plots"
    for name in ("diff.html", "report.html", "training-data/labels.txt"):
        assert (tmp_path / name).is_file()
