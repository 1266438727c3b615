"""Lists of uris in JSON lines: one object per line, `{"url": "https://…", …}`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO

from mlcls_ray.errors import UsageError
from mlcls_ray.storage.inputs.uri_list import UriList, choose_column, text_lines


class JsonLines(UriList):
    """A file with one JSON object per line. The first one decides which key has the uri; null and no such key are blank."""

    suffixes = (".jsonl", ".ndjson")

    def read_uris(self, stream: IO[bytes], name: str, uri_column: str | None) -> Iterator[str]:
        column = ""
        for number, line in enumerate(text_lines(stream, name), start=1):
            if not line.strip():
                continue
            row = _parse(line, f"list '{name}', line {number}")
            column = column or choose_column(list(row), name, uri_column)
            uri = row.get(column) or ""
            if not isinstance(uri, str):
                raise UsageError(f"list '{name}', line {number}: '{column}' is no text")
            yield uri


def _parse(line: str, where: str) -> dict[str, object]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: no JSON ({error})") from None
    if not isinstance(row, dict):
        raise UsageError(f'{where}: a JSON object is expected, such as {{"uri": "a.jpg"}}')
    return row
