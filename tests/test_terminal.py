"""Text of strangers is shown as text: no markup, no control character, no emoji code, no formula."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import signal
import socket
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
from mlcls_ray.terminal import StepLines, make_console, plain, print_plain, showing_steps, shows_bars

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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_paddle_is_imported(number: signal.Signals) -> None:
    """Its C++ would make an ImportError of it, and end the process at SIGTERM from then on; a thread may be there already."""
    code = f"""
import os, signal, sys, threading
from mlcls_ray.terminal import end_on_sigterm
end_on_sigterm()
def interrupt():
    while "paddle" not in sys.modules:
        pass
    os.kill(os.getpid(), {int(number)})
threading.Thread(target=interrupt).start()
try:
    import paddle
except KeyboardInterrupt:
    sys.exit(130)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 130, done.stderr


def test_sigterm_after_paddle_was_imported() -> None:
    code = """
import os, signal, sys
from mlcls_ray.terminal import end_on_sigterm
end_on_sigterm()
import paddle
try:
    os.kill(os.getpid(), signal.SIGTERM)
except KeyboardInterrupt:
    sys.exit(130)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 130, done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_interrupted_says_so(number: signal.Signals, tmp_path: Path) -> None:
    """While it waits for a list, before Ray starts."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"http://127.0.0.1:{server.getsockname()[1]}/list.txt"
        words = [sys.executable, "-m", "mlcls_ray.cli", "label", uri, "--out", str(tmp_path / "out")]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        server.settimeout(60)
        connection, _ = server.accept()
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        connection.close()
    assert (process.returncode, said.splitlines()[-1]) == (130, "mlcls: interrupted")


def test_steps_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    steps = StepLines(lambda: now[0])
    steps.say("listing [b]\x1b")
    steps.say("listing [b]\x1b")
    for number in range(1, 4):
        now[0] += 6
        steps.count(1000 * number, "images")
    assert capsys.readouterr().err == "listing [b]\\u001b\nlisting [b]\\u001b: 2,000 images\n"
    steps.say("opening", on_terminal_only=True)
    with showing_steps(on_terminal_only=True) as silent:
        silent.say("reading")
    assert capsys.readouterr().err == ""


def test_steps_on_a_terminal_leave_an_empty_line() -> None:
    """A real pseudo-terminal. What is printed meanwhile stays above; standard output is not touched."""
    code = """
import sys
from mlcls_ray.terminal import counted, showing_steps
with showing_steps() as steps:
    steps.say("listing")
    list(counted(range(3000), steps, "images"))
    print("a note", file=sys.stderr)
    print("the result")
    steps.say("starting [b]")
"""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=follower, env={**os.environ, "TERM": "xterm"}
    )
    os.close(follower)
    assert process.communicate(timeout=60)[0] == b"the result\n"
    shown = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while part := os.read(leader, 4096):
            shown += part
    os.close(leader)
    text = shown.decode()
    for expected in ("listing", "3,000 images", "a note", "starting [b]"):
        assert expected in text
    assert text.index("a note") < text.rindex("starting [b]") < text.rindex("\x1b[2K"), "the last line is wiped out"


def test_a_notebook_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """`!mlcls demo` has a pseudo-terminal there, but each state of a bar would be kept."""
    leader, follower = pty.openpty()
    with os.fdopen(leader), os.fdopen(follower, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("TERM", "xterm")
        assert shows_bars()
        monkeypatch.setenv("JPY_PARENT_PID", "1")
        assert not shows_bars()
