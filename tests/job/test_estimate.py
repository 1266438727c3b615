"""`mlcls estimate`: its numbers fit together, and it names the right limit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlcls_ray.config import LabelJob
from mlcls_ray.errors import UsageError
from mlcls_ray.job.estimate import SAMPLE, Estimate, draw_sample, estimate
from mlcls_ray.storage.inputs.listing import InputEntry
from tests.conftest import run_cli


def test_a_folder_with_bad_files(
    tiny_folder: Path, folder_of_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLCLS_HOME", str(tmp_path))
    job = LabelJob(inputs=(str(folder_of_images),), model=str(tiny_folder), engine="paddle", precision="fp32")
    result = estimate(job, seconds=10)
    assert (result.listed, result.failed, result.model) == (30, 5, "tiny")
    assert result.left_out == {".txt": 1}
    assert result.eta_s == pytest.approx(30 / result.per_core_s / result.cores)
    assert result.decode_ms > 0
    assert result.score_ms > 0


def test_the_command(tiny_folder: Path, demo: Path, tmp_path: Path) -> None:
    env = {"MLCLS_HOME": str(tmp_path)}
    output = run_cli("estimate", demo, "--model", tiny_folder, env=env).stdout
    assert "12 images; 12 sampled, 0 of them failed" in output
    assert "-bound: " in output
    assert json.loads(run_cli("estimate", demo, "--model", tiny_folder, "--json", env=env).stdout)["listed"] == 12


@pytest.mark.parametrize(
    ("fetch_per_s", "decode_ms", "score_ms", "bound", "per_core"),
    [(10.0, 2.0, 3.0, "fetch", 10.0), (1e6, 6.0, 4.0, "decode", 100.0), (1e6, 4.0, 6.0, "score", 100.0)],
)
def test_the_limit_and_what_follows_from_it(
    fetch_per_s: float, decode_ms: float, score_ms: float, bound: str, per_core: float
) -> None:
    result = Estimate(
        listed=3_600_000,
        sampled=1,
        failed=0,
        model="m",
        engine="e",
        precision="p",
        fetch_per_s=fetch_per_s,
        decode_ms=decode_ms,
        score_ms=score_ms,
        cores=10,
    )
    assert (result.bound, result.per_core_s) == (bound, per_core)
    assert result.core_hours == pytest.approx(1000 / per_core)
    assert result.eta_s == pytest.approx(360_000 / per_core)
    assert result.advice


def test_the_sample_is_spread_over_all() -> None:
    count, sample = draw_sample(InputEntry(str(number)) for number in range(50_000))
    assert count == 50_000
    assert len({entry.uri for entry in sample}) == SAMPLE
    assert 20_000 < sum(int(entry.uri) for entry in sample) / SAMPLE < 30_000


def test_nothing_to_measure(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no image found"):
        estimate(LabelJob(inputs=(str(tmp_path),)))
