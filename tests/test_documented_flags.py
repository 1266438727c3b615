"""Every flag that a document, a docstring or a help text names exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import App

from mlcls_ray import config
from mlcls_ray.cli import app
from mlcls_ray.config_file import flag_of
from mlcls_ray.train import config as train_config
from tests.conftest import ROOT

FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9.-]*[a-z0-9]")
FOREIGN = re.compile(
    r"\b(pip|uv|git|docker|kubectl|ray (?:start|job|stop|up|status|get-auth-token)|paddlex|juicefs|aws|curl|pytest|ruff|mypy|systemctl"
    r"|label-studio|fiftyone|scripts/[\w/.]+|apt-get|python -m pip|codespell|nvidia-smi|npu-smi|serve run|RawModule|by tar|by zip)\b"
)
"""Commands that are not ours: the rest of their line, or of their inline code, has their flags."""
OWN = re.compile(r"\bmlcls |jobs/\w+\.py")
ALSO_KNOWN = {"--help", "--version"} | {"--num-cpus", "--num-gpus", "--resources", "--metrics-export-port", "--fmad"}
"""The flags of every command, and those of `ray start` and of CUDA's compiler that texts name without the command."""


def flags(command: App) -> set[str]:
    """The flags of a command and of its subcommands."""
    found = {name for sub in command if not sub.startswith("-") for name in flags(command[sub])}
    if command.default_command is None:
        return found
    arguments = command.assemble_argument_collection()
    return (
        found
        | {name for argument in arguments for name in argument.names}
        | {negative for argument in arguments for negative in argument.negatives}
    )


REFUSED = {flag_of(name) for name in (*config.RENAMED, *train_config.RENAMED)}
"""Old names, which are flags only to be refused."""
KNOWN = (flags(app) | ALSO_KNOWN) - REFUSED
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "configs").rglob("*.yaml"))]
OTHER_PROGRAMS = {"lite_program.py"}
"""Programs with a command line of their own."""
MODULES = [
    path
    for folder in ("mlcls_ray", "jobs")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path.name not in OTHER_PROGRAMS
]


def unknown_flags(text: str) -> list[str]:
    """The flags in a text that no command has, but for those of other tools."""
    unknown = []
    for line in text.splitlines():
        for part in re.split(r"`|&&|;", line):
            foreign, own = FOREIGN.search(part), OWN.search(part)
            for match in FLAG.finditer(part):
                is_foreign = foreign is not None and foreign.start() < match.start()
                is_own = own is not None and own.start() < match.start()
                if match[0] not in KNOWN and (is_own or not is_foreign):
                    unknown.append(match[0])
    return unknown


def texts(path: Path) -> Iterator[str]:
    """The texts of a module: docstrings, messages and descriptions, which are all its strings; an f-string without its values."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts, node.values = node.values, []  # so that its parts are not visited again
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_flag_in_a_document_exists(page: Path) -> None:
    assert unknown_flags(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_flag_in_a_module_exists(path: Path) -> None:
    assert [flag for text in texts(path) for flag in unknown_flags(text)] == []


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("use `--workers-per-card 2` on it", ["--workers-per-card"]),
        ("$ mlcls label photos --ouut o", ["--ouut"]),
        ("`pip install --upgrade x` and `--verbose`", []),
        ("ray job submit --working-dir . -- python jobs/label_images.py --speed 3", ["--speed"]),
        ("`--no-follow`, `--s3.endpoint-url`; a — dash -- here", []),
    ],
)
def test_the_search_itself(text: str, unknown: list[str]) -> None:
    assert unknown_flags(text) == unknown
