"""Failed rows in the workers' logs: JSON, bounded, and no uri."""

from __future__ import annotations

import json
import logging

import pytest

from mlcls_ray.job.row_log import MAX_LINES, RowLog, hash_uri
from tests.table.fragments import rows


def test_lines_are_json_and_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    handler = logging.StreamHandler()
    logger = logging.getLogger("mlcls_ray.rows")
    logger.addHandler(handler)
    try:
        row_log = RowLog("r")
        for start in range(0, 3 * MAX_LINES, MAX_LINES):
            row_log.log(rows(*range(start, start + MAX_LINES)))
    finally:
        logger.removeHandler(handler)
    text = capsys.readouterr().err
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines[0] == {
        "event": "image_failed", "run_id": "r", "row_id": 0, "uri_hash": hash_uri("/0.jpg"), "status": "empty", "reason": "0 bytes",
    }  # fmt: skip
    assert lines[-1] == {"event": "more_not_logged", "run_id": "r", "status": "empty"}
    assert len(lines) == MAX_LINES + 1
    assert ".jpg" not in text
