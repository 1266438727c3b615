"""Failed rows as JSON lines in the workers' logs: at most `MAX_LINES` of each status by a worker. The label table has them all."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from mlcls_ray import schema
from mlcls_ray.errors import Status
from mlcls_ray.terminal import plain

MAX_LINES = 100
"""Lines of one status that one worker logs."""
log = logging.getLogger("mlcls_ray.rows")


class RowLog:
    """Logs failed rows: run_id, a hash of the uri (so that logs name no customer's file), status and reason."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.logged: Counter[str] = Counter()

    def log(self, rows: pa.Table) -> None:
        failed = rows.filter(pc.not_equal(rows.column(schema.STATUS), Status.OK.value))
        for row in failed.select([schema.ROW_ID, schema.URI, schema.STATUS, schema.ERROR_MESSAGE]).to_pylist():
            status = row[schema.STATUS]
            self.logged[status] += 1
            if self.logged[status] <= MAX_LINES:
                entry = {
                    "event": "image_failed",
                    schema.RUN_ID: self.run_id,
                    schema.ROW_ID: row[schema.ROW_ID],
                    "uri_hash": hash_uri(row[schema.URI]),
                    schema.STATUS: status,
                    "reason": row[schema.ERROR_MESSAGE],
                }
                log.warning("%s", plain(json.dumps(entry, ensure_ascii=False)))
            elif self.logged[status] == MAX_LINES + 1:
                log.warning(json.dumps({"event": "more_not_logged", schema.RUN_ID: self.run_id, schema.STATUS: status}))


def hash_uri(uri: str) -> str:
    """Hash a uri by BLAKE2b, 64 bits as hexadecimal digits: it finds the row (`WHERE …` over the table's uris) without naming it."""
    return hashlib.blake2b(uri.encode(), digest_size=8).hexdigest()
