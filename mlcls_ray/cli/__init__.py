"""The command `mlcls`: it turns words into a call of the library, and failures into one line and an exit code.

A command's module is imported when the command runs or shows its help: `mlcls --help` waits for neither pydantic, Ray nor Paddle.
"""

from __future__ import annotations

import ast
import logging
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from io import TextIOWrapper
from pathlib import Path
from typing import NamedTuple, NoReturn

from cyclopts import App, CycloptsError, Group

from mlcls_ray import __version__
from mlcls_ray.cli.console import Terminal
from mlcls_ray.errors import ImageError, MlclsError, RunError, RunInterruptedError, UsageError, short_message
from mlcls_ray.terminal import end_on_sigterm, plain

COMMANDS: Mapping[str, Mapping[str, str]] = {
    "Label": {
        "label": "label:label",
        "demo": "label:demo",
        "retry": "label:retry",
        "estimate": "operate:estimate",
        "doctor": "doctor:doctor",
        "nightly": "operate:nightly",
        "submit": "operate:submit",
    },
    "Inspect": {
        "report": "inspect:report",
        "browse": "browse:browse",
        "query": "inspect:query",
        "search": "inspect:search",
        "diff": "inspect:diff",
        "drift": "drift:drift",
        "export-labels": "inspect:export_labels",
        "tag": "tag:tag",
        "status": "inspect:status",
    },
    "Maintain": {
        "relabel": "maintain:relabel",
        "verify": "maintain:verify",
        "compact": "maintain:compact",
        "prune": "maintain:prune",
        "gc": "maintain:gc",
        "publish": "maintain:publish",
    },
    "PaddleX-compatible": {
        "predict": "predict:predict",
        "config": "predict:config",
        "serve": "serve:serve",
    },
    "Models": {
        "models": "models:app",
        "export": "models:export",
        "quantize": "models:quantize",
        "finetune": "train:finetune",
        "evaluate": "train:evaluate",
        "calibrate": "train:calibrate",
        "sample": "datasets:sample",
        "dataset": "datasets:app",
    },
}
"""Each command's function, or the app of its subcommands, by the heading that the help shows the command under."""
FAMILIES: Mapping[str, str] = {
    "models": "List the named models, or fetch one.",
    "dataset": "Check labeled images, split them, and take them from annotators or from a label table.",
}
"""Help of the commands that have subcommands."""
RENAMED: Mapping[str, str] = {"probe": "estimate"}
"""Old names of commands, which are refused by a message that names the new one."""
VERBOSE = "MLCLS_VERBOSE"
"""With this environment variable, or `--verbose`, every command shows tracebacks; those that label show Ray's own messages too."""
PADDLEX_FLAGS: Mapping[str, str] = {
    "get_pipeline_config": "mlcls config NAME",
    "serve": "mlcls serve",
    "paddle2onnx": "mlcls export MODEL --format onnx --out FOLDER",
    "install": "pip install 'mlcls-ray[EXTRA]'",
    "pipeline": "mlcls predict --input …",
    "input": "mlcls predict --input …",
}
"""Flags of the command `paddlex`, which has no subcommands, and what does the same here."""


def build_app() -> App:
    """Assemble the commands under their headings."""
    app = App(
        name="mlcls",
        version=__version__,
        help="Label images by the million: PaddlePaddle multi-label classification on Ray, Parquet out.",
        help_format="plaintext",
        console=Terminal(),
        suppress_keyboard_interrupt=False,  # it would end without a word
    )
    for place, (heading, commands) in enumerate(COMMANDS.items()):
        group = Group(heading, sort_key=place)
        for name, target in commands.items():
            text = FAMILIES.get(name) or docstring(target)
            app.command(f"mlcls_ray.cli.{target}", name=name, help=text, group=group)
    app["--help"].group = app["--version"].group = Group("Other", sort_key=len(COMMANDS))
    return app


class Function(NamedTuple):
    """A command's function, as its source says it."""

    docstring: str
    flags: frozenset[str]


NO_FUNCTION = Function("", frozenset())


@lru_cache
def _functions(module: str) -> dict[str, Function]:
    """The functions of a module, read without importing it."""
    tree = ast.parse((Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8"))
    return {
        node.name: Function(ast.get_docstring(node) or "", frozenset(argument.arg for argument in node.args.kwonlyargs))
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    }


def docstring(target: str) -> str:
    """The docstring of a command's function, `module:function`."""
    module, _, function = target.partition(":")
    return _functions(module)[function].docstring


app = build_app()


def main(words: Sequence[str] | None = None) -> None:
    """Run the command line: `words`, or those that this process was started with.

    Exit codes: 0 done, 1 a run or another command failed, 2 wrong usage or surroundings, 3 more inputs failed than allowed,
    4 another driver works on the run, 5 the labels have drifted, 130 interrupted. Tracebacks are shown only if they are asked for.
    """
    if words is None:  # this process is a command
        words = sys.argv[1:]
        end_on_sigterm()
    is_verbose = "--verbose" in words or bool(os.environ.get(VERBOSE))
    if not is_verbose:
        _quiet_libraries()
    if not _takes_verbose(words):
        words = [word for word in words if word != "--verbose"]
    if isinstance(sys.stdout, TextIOWrapper):  # a locale without the letters of a file's name
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        _refuse_other_names(words)
        try:
            app(words, exit_on_error=False, print_error=False)
        except SystemExit:
            _flush()
            raise
        _flush()
    except CycloptsError as error:
        command = " ".join(("mlcls", *(error.command_chain or ())))
        _leave(UsageError.exit_code, f"{short_message(error)} `{command} --help` shows what there is.", is_verbose)
    except MlclsError as error:
        _leave(error.exit_code, str(error), is_verbose)
    except BrokenPipeError:  # `mlcls query … | head`: the reader has read enough
        _discard_output()
        _leave(0)
    except KeyboardInterrupt:
        _leave(RunInterruptedError.exit_code, "interrupted", is_verbose)
    except Exception as error:
        if is_verbose:
            raise
        _leave(RunError.exit_code, f"{_reason(error)} (--verbose shows where)")


def _reason(error: Exception) -> str:
    """Say in one line what an error is that no command has a message for."""
    if isinstance(error, OSError) and error.strerror:
        names = [repr(name) for name in (error.filename, error.filename2) if name is not None]
        return ": ".join((*names, error.strerror))
    first_line = str(error).strip().partition("\n")[0]
    return (
        f"{error.status.value}: {first_line}"
        if isinstance(error, ImageError)
        else f"{type(error).__name__}: {first_line}"
    )


def _takes_verbose(words: Sequence[str]) -> bool:
    """Tell whether the command has a use of its own for `--verbose`."""
    target = next((commands[words[0]] for commands in COMMANDS.values() if words and words[0] in commands), "")
    module, _, function = target.partition(":")
    return bool(target) and "verbose" in _functions(module).get(function, NO_FUNCTION).flags


def _quiet_libraries() -> None:
    """Hide warnings of Paddle and matplotlib about themselves, which no user can act on. Called before Paddle is imported."""
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # Paddle lets the root logger print what is INFO
    os.environ.setdefault("GLOG_minloglevel", "2")
    warnings.filterwarnings("ignore", module=r"paddle\.")


def _refuse_other_names(words: Sequence[str]) -> None:
    """Refuse an old name of a command, and the form of a command of PaddleX.

    Raises:
        UsageError: with the command of today.
    """
    if not words:
        return
    if words[0] in RENAMED:
        raise UsageError(f"`mlcls {words[0]}` is called `mlcls {RENAMED[words[0]]}` now")
    flags = {word[2:].partition("=")[0].replace("-", "_") for word in words if word.startswith("--")}
    foreign = PADDLEX_FLAGS if words[0].startswith("--") else list(PADDLEX_FLAGS)[:1]
    for flag in foreign:
        if flag in flags:
            raise UsageError(f"--{flag} is a flag of the command `paddlex`; here it is `{PADDLEX_FLAGS[flag]}`")


def _leave(code: int, message: str = "", is_verbose: bool = False) -> NoReturn:
    """End with an exit code, after a line that says why, and the traceback if it was asked for."""
    if is_verbose:
        import traceback

        traceback.print_exc()
    if "://" in message:  # the last net: what a library says may repeat a URL with its password and signature
        from mlcls_ray.storage.uris import redact_urls

        message = redact_urls(message)
    if message:
        print(f"mlcls: {plain(' '.join(message.splitlines()))}", file=sys.stderr)
    try:
        _flush()
    except OSError:  # it was said already, or is the lesser trouble
        _discard_output()
    sys.exit(code)


def _flush() -> None:
    """Write what was printed. Python would do it at its end, where an error is a traceback."""
    if sys.stdout is not None:  # it is None in a process that was started with a closed one
        sys.stdout.flush()


def _discard_output() -> None:
    """Let what is still to be printed go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            os.dup2(nowhere, stream.fileno())
