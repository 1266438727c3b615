"""Prometheus metrics of a run, through Ray's own metrics endpoint (`ray metrics launch-prometheus`, docs/operate.md).

| metric | labels | |
|---|---|---|
| `ray_mlcls_images_total` | run_id, engine, status | rows that were labeled, or failed |
| `ray_mlcls_read_bytes_total` | run_id, engine | encoded bytes of them |
| `ray_mlcls_stage_seconds_total` | run_id, engine, stage | seconds of all workers: fetch (waiting), decode (CPU), decode_on_card, score |

The queues between the stages are Ray Data's own metrics (`ray_data_*`). configs/deploy/grafana.json draws both.
"""

from __future__ import annotations

from collections.abc import Mapping

from ray.util.metrics import Counter

KEYS = ("run_id", "engine")


class RunMetrics:
    """Three counters; they live in the run monitor, which every worker reports to."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        """`labels`: `run_id` and `engine`."""
        self.images = Counter("mlcls_images_total", "Rows by status", (*KEYS, "status"))
        self.read_bytes = Counter("mlcls_read_bytes_total", "Encoded bytes that were read", KEYS)
        self.stage_seconds = Counter("mlcls_stage_seconds_total", "Seconds of all workers by stage", (*KEYS, "stage"))
        for counter in (self.images, self.read_bytes, self.stage_seconds):
            counter.set_default_tags(dict(labels))

    def count(self, statuses: Mapping[str, int], read_bytes: int) -> None:
        for status, rows in statuses.items():
            self.images.inc(rows, {"status": status})
        if read_bytes > 0:
            self.read_bytes.inc(read_bytes)

    def add_seconds(self, stage: str, seconds: float) -> None:
        if seconds > 0:  # a counter refuses zero
            self.stage_seconds.inc(seconds, {"stage": stage})
