"""Errors: the status of a row that failed, and the exceptions that end a command.

Exception
├── MlclsError                    its message is for the user; the command prints it in one line
│   ├── UsageError                nothing has started: the command, the configuration or the machine is wrong; exit code 2
│   ├── PredictError              `Pipeline.predict` met an input that it cannot label, with on_error="raise"; exit code 1
│   └── RunError                  a run has started and could not be finished; exit code 1
│       ├── FailureLimitError     more inputs failed than `max_failures` allows; exit code 3
│       ├── LeaseError            another driver works on the run; exit code 4
│       ├── DeviceLostError       the device stopped answering; the process that used it must end
│       └── RunInterruptedError   Ctrl-C; exit code 130
└── ImageError                    one image failed: the status and error_message of its row; it never ends a job
"""

from __future__ import annotations

import contextlib
import re
from difflib import get_close_matches
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


class Status(str, Enum):
    """The status of a row in the label table."""

    OK = "ok"
    MISSING = "missing"
    DENIED = "denied"
    TIMEOUT = "timeout"
    HTTP_4XX = "http_4xx"
    HTTP_5XX = "http_5xx"
    EMPTY = "empty"
    NOT_AN_IMAGE = "not_an_image"
    CORRUPT = "corrupt"
    TOO_LARGE = "too_large"
    UNSUPPORTED = "unsupported"
    ENGINE = "engine"

    __str__ = str.__str__

    @property
    def is_transient(self) -> bool:
        """True if the same input may succeed when it is tried again."""
        return self in TRANSIENT


TRANSIENT = frozenset({Status.TIMEOUT, Status.HTTP_5XX, Status.ENGINE})

MESSAGE_LIMIT = 300
"""The longest message that is kept or printed, in characters."""
DRIFT_EXIT_CODE = 5
"""Exit code of `mlcls drift`, and of `mlcls nightly --fail-on-drift`, where something has moved. Nothing has failed."""
NAMED_FAILURES = 5
"""Names, or failures, of many that a message lists."""


class MlclsError(Exception):
    """A failure whose message is for the user. It is printed without a traceback."""

    exit_code = 1


class UsageError(MlclsError):
    """The command, the configuration or the machine is wrong. Nothing has started."""

    exit_code = 2


class PredictError(MlclsError):
    """An input of `Pipeline.predict` could not be labeled, and `on_error` is "raise"."""


class RunError(MlclsError):
    """A run has started and could not be finished."""


class FailureLimitError(RunError):
    """More inputs failed than the job allows, so the run was stopped."""

    exit_code = 3


class LeaseError(RunError):
    """Another driver works on the run."""

    exit_code = 4


class DeviceLostError(RunError):
    """The device stopped answering, for example a card that fell off the bus. A new process may find it again; this one cannot."""


class RunInterruptedError(RunError):
    """The user interrupted a run."""

    exit_code = 130


class ImageError(Exception):
    """One image cannot be labeled. `status` says why; `retry_after_s` is how long its server asks us to wait."""

    def __init__(self, status: Status, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message[:MESSAGE_LIMIT])
        self.status = status
        self.retry_after_s = retry_after_s


@contextlib.contextmanager
def one_image() -> Iterator[None]:
    """Turn whatever is raised within into an `ImageError`. One image never ends a job: code that reads or decodes one stands in here.

    Raises:
        ImageError: as it is; `unsupported` for a UsageError, such as a package that this machine lacks; `corrupt` for anything else.
    """
    try:
        yield
    except ImageError:
        raise
    except UsageError as error:
        raise ImageError(Status.UNSUPPORTED, str(error)) from None
    except Exception as error:
        raise ImageError(Status.CORRUPT, f"{type(error).__name__}: {error}") from error


def resumable_error(run_id: str, reason: str, error: type[RunError] = RunError) -> RunError:
    """Make the error of a run that stopped before its end; its message says how to resume."""
    return error(
        f"run '{run_id}' {reason}. What is written is kept; the same command (or --run-id {run_id}) resumes it"
    )


def suggest(word: str, choices: Iterable[str]) -> str:
    """Make the hint for a mistyped name: ``: did you mean 'x'?`` if one of `choices` is close, else the choices."""
    names = list(choices)
    folded = {name.casefold(): name for name in names}
    close = get_close_matches(word.casefold(), list(folded), n=1)
    if close:
        return f": did you mean '{folded[close[0]]}'?"
    return f"; known: {', '.join(names[:12])}{', …' if len(names) > 12 else ''}"


def short_message(error: BaseException) -> str:
    """Return an exception's message in one line of at most `MESSAGE_LIMIT` characters; without a message, its type's name."""
    message = " ".join(str(error).split()) or type(error).__name__
    return message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 1] + "…"


def first_names(names: Sequence[str], most: int = NAMED_FAILURES) -> str:
    """List the first of many names, and count the others."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def name_failures(failures: Sequence[str], count: int | None = None) -> str:
    """Name the first failures of many, and count the rest. `count`: how many there are, where not all are kept."""
    rest = (len(failures) if count is None else count) - NAMED_FAILURES
    return "; ".join(failures[:NAMED_FAILURES]) + (f"; and {rest:,} more" if rest > 0 else "")


def ray_cause(error: BaseException) -> str:
    """Return the innermost reason of a Ray error in one line. Ray puts the worker's traceback and its own advice around it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reasons = [line for line in lines if _REASON.match(line)]
    return (reasons or lines or [type(error).__name__])[-1]


_REASON = re.compile(r"[\w.]*(Error|Exception|Exit|Interrupt)\b")
"""The start of the last line of a Python traceback."""
