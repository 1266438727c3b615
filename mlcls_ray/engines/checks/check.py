"""`Check`, the result of one check; and `Probes`, what the checks look at."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from mlcls_ray.devices import Device
from mlcls_ray.engines.machine import package_version
from mlcls_ray.engines.nvidia import Driver, read_driver
from mlcls_ray.errors import UsageError

PROBE_TIMEOUT_S = 60.0
"""Seconds that a probe in another process may take: a cold import from a network disk takes ten, a card that hangs takes for ever."""


COLORS = re.compile(r"\x1b\[[\d;]*m")
"""The color codes that ONNX Runtime puts around its log lines."""


class Check(BaseModel):
    """One thing that a machine has, lacks, or has in a form that does not work."""

    model_config = ConfigDict(frozen=True)

    name: str
    state: Literal["ok", "missing", "broken"]
    message: str
    way_out: str = ""
    """The way to get it, as an exact command where there is one; empty where it is ok."""
    is_required: bool = True
    """Labeling on the device that is checked cannot start without it."""

    def optional(self) -> Check:
        """The same check, without which labeling goes on."""
        return self.model_copy(update={"is_required": False})

    @property
    def text(self) -> str:
        """The message and the way out in one line."""
        return f"{self.message}; {self.way_out}" if self.way_out else self.message


class Outcome(NamedTuple):
    """The end of a process: its exit code, and its output."""

    code: int
    output: str = ""
    errors: str = ""

    @property
    def answer(self) -> str:
        """The last line of the output."""
        return (self.output.strip().splitlines() or [""])[-1]

    @property
    def reason(self) -> str:
        """The line that says why it failed: the exception, else the last line about an error, else the last line."""
        lines = [line.strip() for line in COLORS.sub("", self.errors).splitlines() if line.strip()]
        telling = [
            line for line in lines if re.search(r"^[\w.]*(Error|Exception|Exit)\b|\[E:|cannot open shared", line)
        ]
        died = f"the process ended with signal {-self.code}" if self.code < 0 else f"exit code {self.code}"
        return (telling or lines or [died])[-1]

    @property
    def problem(self) -> str | None:
        """The words of a probe, or the reason why it died; None if its answer is `ok`."""
        said = self.reason if self.code else self.answer
        return None if not self.code and said == "ok" else said


RunProbe = Callable[[Sequence[str], Mapping[str, str]], Outcome]
"""The signature of `run_probe`."""


def run_probe(words: Sequence[str], environ: Mapping[str, str]) -> Outcome:
    """Run one of the probes of `probe` in another process, with this environment."""
    try:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "mlcls_ray.engines.checks.probe", *words],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_TIMEOUT_S,
            env={
                **environ,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            },  # Ray adds the job's code to sys.path
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return Outcome(1, errors=f"no answer within {PROBE_TIMEOUT_S:.0f} s")
    return Outcome(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Probes:
    """The things that the checks look at. Tests pass their own."""

    version: Callable[[str], str] = package_version
    """Return the version of an installed package, or nothing."""
    driver: Callable[[], Driver] = read_driver
    run: RunProbe = run_probe
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


def raise_first(device: Device, checks: Iterable[Check]) -> None:
    """Go through checks up to the first that is required and fails.

    Raises:
        UsageError: with its message and the way out.
    """
    for check in checks:
        if check.is_required and check.state != "ok":
            raise UsageError(f"device '{device}': {check.text}")
