"""Read and write vocabularies: the class names of a model, in order."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mlcls_ray.errors import UsageError


def read_vocabulary(path: Path) -> tuple[str, ...]:
    """Read class names, one a line. Each line may begin with its number and a space, as in PaddleClas's `label.txt`.

    Raises:
        UsageError: the file cannot be read, is empty, or its numbers are not 0, 1, 2 …
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"label list '{path}' cannot be read: {error}") from None
    if not lines:
        raise UsageError(f"label list '{path}' is empty")
    numbered = [line.split(maxsplit=1) for line in lines]
    if all(len(parts) == 2 and parts[0].isdecimal() for parts in numbered):
        if [int(parts[0]) for parts in numbered] != list(range(len(lines))):
            raise UsageError(f"label list '{path}': its numbers are not 0 to {len(lines) - 1} in order")
        return tuple(parts[1] for parts in numbered)
    return tuple(lines)


def write_vocabulary(path: Path, names: Iterable[str]) -> None:
    """Write PaddleClas's `label.txt`: a number, a space and a name a line."""
    path.write_text("".join(f"{number} {name}\n" for number, name in enumerate(names)), encoding="utf-8")
