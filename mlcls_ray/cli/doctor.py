"""The command `doctor`."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter


def doctor(*, device: str = "cpu", json: Annotated[bool, Parameter(negative=())] = False) -> None:
    """Check what this machine can do: devices, engines, decoders, memory; and say what is missing, with the command that brings it.

    The exit code is 0 if images can be labeled on the device, and 1 if not.

    Parameters
    ----------
    device
        Device that the images are to be labeled on: cpu, gpu, gpu:0, npu …
    json
        Print one JSON object.
    """
    from mlcls_ray.devices import parse_device
    from mlcls_ray.job.doctor import examine

    report = examine(parse_device(device))
    if json:
        print(report.model_dump_json())
    else:
        from rich.table import Table
        from rich.text import Text

        from mlcls_ray.cli.console import Terminal, print_table
        from mlcls_ray.terminal import plain

        verdict = "is possible" if report.can_label else "is not possible"
        table = Table(box=None, pad_edge=False, show_header=False)
        for check in report.checks:
            way_out = f"\n→ {check.way_out}" if check.way_out else ""
            table.add_row(
                Text(check.state, STYLES[check.state]),
                check.name,
                Text(plain(f"{check.message}{way_out}", keep_lines=True)),
            )
        console = Terminal()
        console.print(f"mlcls {report.version}: labeling on {report.device} {verdict} on this machine\n")
        print_table(console, table)
    sys.exit(0 if report.can_label else 1)


STYLES = {"ok": "green", "missing": "yellow", "broken": "red"}
