"""File names and contents that look like markup, escape sequences, HTML or formulas pass through every command as text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import encode, picture, run_cli

NAMES = (
    "[x].jpg", "[b]bold.jpg", ":dog:.jpg", "=1+1.jpg", "clear\x1b[2J.jpg", "csi\x9b2J.jpg", "line\nbreak.jpg", "turned\u202egpj.exe.jpg",
    "$(id)`id`'\".jpg",
)  # fmt: skip
CONTENTS = {"bbcode.jpg": b"[/foo] hello", "escape.jpg": b"\x1b[2J[b]\n\x9b"}
CONTROLS = ("\x1b", "\x9b", "\u202e", "\r", "\x07")


def check(text: str) -> None:
    assert not [control for control in CONTROLS if control in text], text


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, loopback_ray: None) -> tuple[Path, str]:
    """An output, in a folder of an odd name, and what `label` printed."""
    folder = tmp_path_factory.mktemp("strange")
    model = folder / "model [red]"
    shutil.copytree(tiny_folder, model)
    photos = folder / "photos [b] :cat:"
    photos.mkdir()
    for name in NAMES:
        (photos / name).write_bytes(encode(picture()))
    for name, content in CONTENTS.items():
        (photos / name).write_bytes(content)
    out = folder / "out [b] 'it' \"is\""
    done = run_cli(
        "label", photos, "--out", out, "--model", model, "--run-id", "r", "--threshold", 0.0, "--workers", 1,
        "--engine", "openvino", "--precision", "fp32",
    )  # fmt: skip
    return out, done.stdout + done.stderr


def test_the_summary_shows_names_and_paths_as_they_are(strange: tuple[Path, str]) -> None:
    out, text = strange
    check(text)
    assert f"label table: {out}" in text
    assert f"pandas.read_parquet({json.dumps(str(out / 'runs/r/labels'))})" in text
    shown = "".join(text.split())
    assert "[/foo]hello" in shown
    assert "2not_an_image" in shown


@pytest.mark.parametrize(
    "words",
    [
        ("query", "OUT", "SELECT uri, status, error_message, labels FROM labels ORDER BY uri"),
        ("search", "OUT", "--label", "cat"),
        *(
            pytest.param(words, marks=pytest.mark.slow)
            for words in (
                ("status", "OUT"),
                ("status", "OUT", "--json"),
                ("verify", "OUT"),
                ("diff", "OUT", "OUT"),
                ("drift", "OUT"),
                ("gc", "OUT"),
                ("prune", "OUT", "--dry-run"),
                ("report", "OUT", "--save", "NEW/report.html"),
                ("export-labels", "OUT", "--format", "csv", "--save", "NEW/labels.csv"),
                ("tag", "OUT", "--write", "xmp", "--dry-run"),
                ("export-labels", "OUT", "--format", "labelstudio", "--save", "NEW/labels.json"),
            )
        ),
    ],
    ids=str,
)
def test_every_command_shows_text_as_text(strange: tuple[Path, str], words: tuple[str, ...], tmp_path: Path) -> None:
    done = run_cli(*(str(strange[0]) if word == "OUT" else word.replace("NEW", str(tmp_path)) for word in words))
    check(done.stdout + done.stderr)


def test_an_error_shows_a_name_as_it_is(strange: tuple[Path, str]) -> None:
    done = run_cli("search", strange[0], "--label", "[/foo]\x1b[2J", check=2)
    check(done.stderr)
    assert "[/foo]" in done.stderr
    done = run_cli("predict", "-i", strange[0].parent / "photos [b] :cat:" / "bbcode.jpg", check=1)
    check(done.stdout + done.stderr)
    assert "[/foo] hello" in done.stdout
