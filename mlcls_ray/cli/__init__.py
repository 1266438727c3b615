"""The command `mlcls`. Thin: it turns words into a job and failures into one line and an exit code.

What a command needs is imported inside it: `mlcls --help` must not wait for Ray and Paddle.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence

from cyclopts import App, CycloptsError, Group

from mlcls_ray import __version__
from mlcls_ray.cli.convert import export, quantize
from mlcls_ray.cli.datasets import check, from_labelstudio, from_table, sample, split
from mlcls_ray.cli.estimate import probe
from mlcls_ray.cli.evaluate import calibrate, evaluate
from mlcls_ray.cli.explore import diff, export_labels, query, report, search
from mlcls_ray.cli.finetune import finetune
from mlcls_ray.cli.label import demo, label, retry
from mlcls_ray.cli.maintain import compact, gc, prune, publish, relabel, status, verify
from mlcls_ray.cli.models import models, pull
from mlcls_ray.cli.operate import nightly, submit
from mlcls_ray.cli.predict import config, predict
from mlcls_ray.cli.serve import serve
from mlcls_ray.errors import MlclsError, RunError, RunInterruptedError, UsageError

app = App(
    name="mlcls",
    version=__version__,
    help="Label images by the million: PaddlePaddle multi-label classification on Ray, Parquet out.",
    help_format="markdown",
)
COMMANDS: Mapping[str, tuple[Callable[..., None], ...]] = {
    "Label": (label, demo, probe, retry, relabel, nightly, submit),
    "Look at what was labeled": (report, query, search, diff, export_labels, status),
    "Look after it": (verify, compact, prune, gc, publish),
    "As PaddleX does": (predict, config, serve),
    "Models": (export, quantize, finetune, evaluate, calibrate, sample),
}
"""By the heading that the help shows them under."""
VERBOSE = "MLCLS_VERBOSE"
"""Set in the environment, each command shows tracebacks; the commands that label take `--verbose` as well."""
GROUPS = {title: Group(title, sort_key=place) for place, title in enumerate(COMMANDS)}
for title, commands in COMMANDS.items():
    for command in commands:
        app.command(command, group=GROUPS[title])
models_app = App(
    name="models",
    help="The models that have a name: what they are, and what this machine has of them.",
    group=GROUPS["Models"],
)
models_app.default(models)
models_app.command(pull)
app.command(models_app)
dataset_app = App(
    name="dataset", help="Labelled images: check them, split them, take them from annotators.", group=GROUPS["Models"]
)
dataset_app.command(check)
dataset_app.command(split)
dataset_app.command(from_labelstudio)
dataset_app.command(from_table)
app.command(dataset_app)
app["--help"].group = app["--version"].group = Group("Other", sort_key=len(COMMANDS))


def main(words: Sequence[str] | None = None) -> None:
    """Entry point of the command: exit code 0, 1 (failed), 2 (usage) or 130 (interrupted), never a traceback unless asked for."""
    try:
        app(words, exit_on_error=False, print_error=True)
    except CycloptsError:
        _leave(UsageError.exit_code)
    except MlclsError as error:
        _complain(str(error))
        _leave(error.exit_code)
    except BrokenPipeError:  # `mlcls query … | head`: who reads has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _leave(0)
    except KeyboardInterrupt:
        _complain("interrupted")
        _leave(RunInterruptedError.exit_code)
    except Exception as error:
        if _is_verbose():
            raise
        _complain(
            f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''} ({VERBOSE}=1 shows where)"
        )
        _leave(RunError.exit_code)


def _is_verbose() -> bool:
    return "--verbose" in sys.argv or bool(os.environ.get(VERBOSE))


def _complain(message: str) -> None:
    if _is_verbose():
        import traceback

        traceback.print_exc()
    print(f"mlcls: {message}", file=sys.stderr)


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.exit(code)
