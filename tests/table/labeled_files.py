"""Outputs whose rows name real files, with labels of the test's choice; and ExifTool, which reads what we wrote."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mlcls_ray.storage.store import Store
from mlcls_ray.storage.uris import uri_of_path
from mlcls_ray.table import layout
from mlcls_ray.table.label_table import LabelTable, open_labels
from mlcls_ray.table.ledger import write_fragment
from mlcls_ray.table.records import make_visible
from tests.stages.specs import model_spec
from tests.table.outputs import begin_run, label_rows

Labels = Mapping[Path | str, Mapping[str, float]]


def label_files(out: Path, labels: Labels, run_id: str = "one") -> LabelTable:
    """Commit a run that labels files as told, without Ray and without a model."""
    store = Store(str(out))
    uris = [name if isinstance(name, str) else uri_of_path(name) for name in labels]
    record = begin_run(store, run_id, uris)
    provenance = model_spec("m").provenance._replace(run_id=run_id, run_number=record.number)
    rows = label_rows(uris, provenance)
    values = {
        "status": ["ok"] * len(uris),
        "labels": [list(scores) for scores in labels.values()],
        "scores": [list(scores.values()) for scores in labels.values()],
        "class_ids": [[0] * len(scores) for scores in labels.values()],
    }
    for name, column in values.items():
        place = rows.schema.get_field_index(name)
        field = rows.schema.field(place)
        rows = rows.set_column(place, field, pa.array(column, field.type))
    fragment = write_fragment(store, run_id, layout.fragment_name(1, 0), rows)
    make_visible(store, run_id, [fragment], seconds=1.0)
    return open_labels(str(out))


def read_by_exiftool(path: Path) -> dict[str, Any]:
    """The metadata of a file, by ExifTool: a program of others that photographers use."""
    if shutil.which("exiftool") is None:
        pytest.skip("needs ExifTool (scripts/test installs it where it may)")
    words = ["exiftool", "-config", "", "-j", "-a", "-G1", "-charset", "iptc=utf8", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "Warning" not in done.stdout, done.stdout
    (tags,) = json.loads(done.stdout, parse_float=str, parse_int=str)
    return dict(tags)


def keywords(path: Path, name: str = "XMP-dc:Subject") -> list[str]:
    """The keywords of a file in one property, as ExifTool reads them."""
    value = read_by_exiftool(path).get(name, [])
    return value if isinstance(value, list) else [value]
