"""Text of strangers is shown as text: no markup, no control character, no emoji code, no formula."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from mlcls_ray.cli import main
from mlcls_ray.datasets.formats import read_csv
from mlcls_ray.table.export.base import LabeledImage
from mlcls_ray.table.export.csv import write_csv
from mlcls_ray.terminal import make_console, plain, print_plain

STRANGE = (
    "[/foo]",
    "[b]x[/b]",
    "[red]",
    ":dog:",
    "\x1b[2J\x1b]0;t\x07",
    "a\nb\rc\x08",
    "\x9b2J",
    "\u202egpj.exe",
    "\udce9\ud800",
    "\u2028",
)


@given(st.text())
def test_plain_text_has_no_controls_and_is_one_line(text: str) -> None:
    shown = plain(text)
    assert not [character for character in shown if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")]
    assert len(shown.splitlines()) <= 1
    shown.encode()


@given(st.text())
def test_json_stays_json(text: str) -> None:
    assert json.loads(plain(json.dumps(text, ensure_ascii=False), keep_lines=True)) == text


def test_letters_of_every_script_stay() -> None:
    for text in ("写真 📷", "Übung", "फ़ोटो", "👩‍👩‍👧", "عکس", "[b] :dog:"):
        assert plain(text) == text
    assert plain("two\nlines", keep_lines=True) == "two\nlines"


@pytest.mark.parametrize("text", STRANGE)
def test_a_console_shows_text_as_it_is(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    console = make_console()
    console.file = io.StringIO()
    table = Table("name")
    table.add_row(plain(text))
    console.print(table)
    console.print(plain(text), soft_wrap=True)
    assert console.file.getvalue().count(plain(text)) == 2
    print_plain(text)
    assert capsys.readouterr().out == f"{plain(text)}\n"


@pytest.mark.parametrize("text", STRANGE)
def test_errors_show_text_as_it_is(text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["status", f"{tmp_path}/out {text}"])
    message = capsys.readouterr().err
    assert "\x1b" not in message
    assert plain(" ".join(text.splitlines())) in message


def test_a_spreadsheet_runs_no_cell(tmp_path: Path) -> None:
    names = ["=HYPERLINK(1)", "+1", "-1", "@SUM(1)", "\tx", "'quoted", "cat"]
    images = [LabeledImage(f"file:///{number}.jpg", 8, 8, [number], [name], [0.5]) for number, name in enumerate(names)]
    write_csv(images, names, tmp_path / "labels.csv")
    cells = [line.split(",")[1] for line in (tmp_path / "labels.csv").read_text().splitlines()[1:]]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t"))]
    assert read_csv(tmp_path / "labels.csv").labels == [[name] for name in names]


INTERRUPTED = """
import os, signal, sys
from mlcls_ray.terminal import end_on_sigterm, on_first_sigint, own_sigterm_handler, suppress_native_output
{background}
end_on_sigterm()
with suppress_native_output():
    import {library}
with own_sigterm_handler():
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))  # as ray.init does
stopped = []
with on_first_sigint(lambda: stopped.append(1), "saving"):
    os.kill(os.getpid(), signal.SIGTERM)
    assert stopped == [1]
try:
    os.kill(os.getpid(), signal.SIGTERM)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("library", ["json", "paddle"])
@pytest.mark.parametrize("background", ["", "signal.signal(signal.SIGINT, signal.SIG_IGN)"])
def test_sigterm_is_ctrl_c(library: str, background: str) -> None:
    """Also where a shell's background ignores Ctrl-C, and after Ray or Paddle took the signal: Paddle's handler aborts."""
    code = INTERRUPTED.format(library=library, background=background)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr.strip().splitlines()[:1]) == (
        130,
        ["stopping: saving; Ctrl-C again leaves at once"],
    ), done.stderr
