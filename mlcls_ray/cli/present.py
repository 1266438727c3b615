"""Open a label table for commands that show or hand out images: those that are gone are left out, and counted."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlcls_ray.cli.flags import s3_options

if TYPE_CHECKING:
    from mlcls_ray.table.label_table import LabelTable
    from mlcls_ray.table.opened import OpenedTable


def open_present(
    out: str, s3: Mapping[str, Any], run_id: str | None = None, vanished: bool = False, corrected: bool = False
) -> LabelTable:
    """Open the label table of an output, without the images that vanished unless they are asked for; say how many there are.

    Raises: as `open_labels`.
    """
    from mlcls_ray.table.label_table import open_labels

    table = open_labels(out, s3_options(s3), run_id, vanished, corrected)
    _count_left_out(table.left_out)
    return table


def open_present_together(out: str, others: Sequence[str] | None, s3: Mapping[str, Any], vanished: bool) -> OpenedTable:
    """Open an output as `open_present` does, together with `others` where there are some.

    Raises: as `open_labels`.
    """
    from mlcls_ray.table.label_table import open_labels

    if not others:
        return open_present(out, s3, vanished=vanished)
    table = open_labels([out, *others], s3_options(s3), vanished=vanished)
    _count_left_out(table.left_out)
    return table


def _count_left_out(count: int) -> None:
    if count:
        print(
            f"{count:,} images that vanished since they were labeled are left out; --vanished shows them too",
            file=sys.stderr,
        )
