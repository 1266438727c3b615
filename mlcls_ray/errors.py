"""What can go wrong: statuses of rows, and the exceptions that end a command.

MlclsError
├── UsageError      known to fail before the first image is read; exit code 2
└── RunError        a started run that could not be finished; exit code 1
    ├── FailureLimitError     more inputs failed than allowed; exit code 3
    ├── LeaseError            another driver works on it; exit code 4
    └── RunInterruptedError   by Ctrl-C; exit code 130
ImageError          one image; becomes a row's status and error_message, never ends a job
"""

from __future__ import annotations

from difflib import get_close_matches
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


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
        """Whether trying the same input again may end differently."""
        return self in TRANSIENT


TRANSIENT = frozenset({Status.TIMEOUT, Status.HTTP_5XX, Status.ENGINE})

MESSAGE_LIMIT = 300
"""Characters of an `error_message` that are kept."""


class MlclsError(Exception):
    """A failure whose message is meant for the user; it is printed without a traceback."""

    exit_code = 1


class UsageError(MlclsError):
    """The command, the configuration or the surroundings are wrong; nothing has started."""

    exit_code = 2


class RunError(MlclsError):
    """A run started and could not be finished."""


def resumable_error(run_id: str, reason: str, error: type[RunError] = RunError) -> RunError:
    """What a run that did not come to its end says, and how it goes on."""
    return error(f"run '{run_id}' {reason}. What is written is kept; the same command (or --run-id {run_id}) goes on")


class FailureLimitError(RunError):
    """More inputs failed than the job allows; the run was stopped early."""

    exit_code = 3


class LeaseError(RunError):
    """Another driver works on the run."""

    exit_code = 4


class RunInterruptedError(RunError):
    """A started run was interrupted by the user."""

    exit_code = 130


class ImageError(Exception):
    """One image cannot be labeled; `status` says why, `retry_after_s` how long its server asks to be left alone."""

    def __init__(self, status: Status, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message[:MESSAGE_LIMIT])
        self.status = status
        self.retry_after_s = retry_after_s


def suggest(word: str, known: Iterable[str]) -> str:
    """The hint for a mistyped name: ``": did you mean 'x'?"``, or what there is to choose from."""
    choices = list(known)
    folded = {choice.casefold(): choice for choice in choices}
    close = get_close_matches(word.casefold(), list(folded), n=1)
    if close:
        return f": did you mean '{folded[close[0]]}'?"
    shown = ", ".join(choices[:12]) + (", …" if len(choices) > 12 else "")
    return f"; known: {shown}"


def short_message(error: BaseException) -> str:
    """An exception's message without its line breaks (YAML's parser draws pictures)."""
    return " ".join(str(error).split()) or type(error).__name__
