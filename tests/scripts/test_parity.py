"""scripts/parity: how two sides' outcomes are compared, and that it needs no PaddleX to make its corpus and to score it."""

from __future__ import annotations

from pathlib import Path

from comparison.parity import MODELS, compare, make_corpus, mutate

from mlcls_ray.registry import NETWORKS


def test_it_compares_every_registered_network() -> None:
    assert tuple(NETWORKS) == MODELS


def test_compare() -> None:
    paddlex = {
        "same.jpg": {"scores": {"0": 0.6, "1": 0.2}},
        "close.jpg": {"scores": {"0": 0.5000, "1": 0.2}},
        "far.jpg": {"scores": {"0": 0.6, "1": 0.2}},
        "refused by both": {"error": "x"},
        "refused by one": {"error": "x"},
    }
    mlcls = {
        "same.jpg": {"scores": {"0": 0.6, "1": 0.2}},
        "close.jpg": {"scores": {"0": 0.50005, "1": 0.2}},
        "far.jpg": {"scores": {"0": 0.6, "1": 0.3}},
        "refused by both": {"error": "y"},
        "refused by one": {"scores": {"0": 0.6}},
    }
    result = compare("starter", paddlex, mlcls)
    assert (result["images"], result["scored_by_both"], result["refused_by_one"]) == (5, 3, 1)
    assert result["same_labels_percent"] == 66.67
    assert result["largest_difference"] == 0.1
    assert [(difference["path"], difference.get("labels")) for difference in result["differences"]] == [
        ("close.jpg", ["0"]),
        ("far.jpg", []),
        ("refused by one", None),
    ]


def test_the_corpus(tmp_path: Path, demo: Path) -> None:
    (tmp_path / "hostile").mkdir()
    (tmp_path / "hostile" / "odd.png").touch()
    (tmp_path / "hostile" / "notes.txt").touch()
    paths = make_corpus(tmp_path, limit=2)
    assert len(paths) == 5 and str(tmp_path / "hostile/odd.png") in paths
    mutate([demo / "cat.jpg"], tmp_path / "again")
    mutated = (tmp_path / "again/000.jpg").read_bytes()
    assert len(mutated) == (demo / "cat.jpg").stat().st_size
    assert mutated != (demo / "cat.jpg").read_bytes()
