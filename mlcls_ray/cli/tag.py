"""The command `tag`: the labels as keywords where other programs read them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from mlcls_ray.cli.flags import NO_FLAGS, Corrected, Output, RunId, S3Flags, Vanished, s3_options
from mlcls_ray.cli.present import open_present
from mlcls_ray.errors import UsageError
from mlcls_ray.terminal import print_plain

if TYPE_CHECKING:
    from mlcls_ray.table.tags.writer import Change


def tag(
    out: Output,
    *,
    write: Literal["xmp", "exif", "txt", "csv"] | None = None,
    min_score: float = 0.0,
    label: Annotated[list[str] | None, Parameter(negative=())] = None,
    prefix: str = "",
    dry_run: Annotated[bool, Parameter(negative=())] = False,
    undo: Annotated[bool, Parameter(negative=())] = False,
    save: Path | None = None,
    run_id: RunId = None,
    vanished: Vanished = False,
    corrected: Corrected = False,
    s3: S3Flags = NO_FLAGS,
) -> None:
    """Write the labels of local images as keywords where other programs read them, or take back what was written.

    What others wrote stays. Tagging again replaces the keywords of the time before, and no others. Pixels and the times of images stay
    as they are. `OUT/tags` records what was written.

    Parameters
    ----------
    write
        xmp (a sidecar `a.jpg.xmp` beside each image; or its `a.xmp`, if it has that one), exif (XMP and IPTC inside JPEG, PNG, WebP and
        TIFF; needs ExifTool), txt (a caption `a.txt` beside each image, for trainers), or csv (one file, OUT/tags.csv).
    min_score
        Smallest score of a label that becomes a keyword.
    label
        Label that becomes a keyword. Given several times: each of them. Default: all labels.
    prefix
        Text in front of each keyword. Up to its last `|` it names parents: `auto|` gives cat the parent auto.
    dry_run
        Print the files and the keywords that would be added (+) and removed (-), and write nothing.
    undo
        Take back what was written: all, or with --write of one kind. Files that others have changed since only lose our keywords.
    save
        File to write for csv. Default: tags.csv in the output folder.
    """
    from mlcls_ray.table.output import open_output
    from mlcls_ray.table.tags.csv import tag_in_csv
    from mlcls_ray.table.tags.selection import Choice
    from mlcls_ray.table.tags.tagging import tag as write_tags
    from mlcls_ray.table.tags.undo import undo as take_back

    notice = _print_change if dry_run else None
    if undo:
        if label or min_score or prefix or save or run_id:
            raise UsageError("--undo takes back all that was written: give it with --write and --dry-run only")
        summary = take_back(open_output(out, s3_options(s3)), write, notice)
        print(f"{summary.changed:,} files {'would be taken' if dry_run else 'taken'} back", file=sys.stderr)
        summary.raise_failures("file(s) could not be taken back")
        return
    choice = Choice(tuple(label or ()), min_score, prefix)
    if write is None:
        raise UsageError("give --write xmp, exif, txt or csv, or --undo")
    if (save is not None and write != "csv") or (dry_run and write == "csv"):
        raise UsageError("--save is for --write csv, and --dry-run for the others")
    table = open_present(out, s3, run_id, vanished, corrected)
    if write == "csv":
        path, count = tag_in_csv(table, save, choice)
        print_plain(f"{path}: {count:,} images")
        return
    summary = write_tags(table, write, choice, notice)
    print(
        f"{summary.changed:,} files {'would be written' if dry_run else 'written'}, {summary.unchanged:,} as they should be",
        file=sys.stderr,
    )
    summary.raise_failures("image(s) could not be tagged")


def _print_change(change: Change) -> None:
    before, after = (set(added.subject or added.hierarchical) for added in (change.before, change.after))
    words = [*(f"+{word}" for word in sorted(after - before)), *(f"-{word}" for word in sorted(before - after))]
    if change.is_new:
        print_plain(f"{change.target}: {', '.join(words)}")
