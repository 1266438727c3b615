"""What the tests read from README.md and docs/: pages, their blocks of code, and running a block of Python."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

GENERATED = ROOT / "docs" / "reference"
WRITTEN = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if GENERATED not in path.parents),
]
"""The pages that people write, not those that scripts/docs makes."""


def code_blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def console_commands(page: Path) -> list[str]:
    """The commands of a page's console blocks, without their output."""
    return [
        line for block in code_blocks(page, "console") for line in re.findall(r"^\$ (.*)$", block, flags=re.MULTILINE)
    ]


def run_python(block: str) -> dict[str, Any]:
    """Run a block as a reader would in a notebook, and return its variables. Queries that nobody prints are executed too."""
    scope: dict[str, Any] = {}
    for statement in ast.parse(block).body:
        if isinstance(statement, ast.Expr):
            value = eval(compile(ast.Expression(statement.value), "<page>", "eval"), scope)
            if hasattr(value, "fetchall"):
                value.fetchall()
        else:
            exec(compile(ast.Module([statement], []), "<page>", "exec"), scope)
    return scope
