"""Results: the tutorial's mapping, its printed line, and files that never collide."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlcls_ray.errors import ImageError, RunError, Status
from mlcls_ray.images.draw import Chip
from mlcls_ray.predict.results import Names, Result

IMAGE = np.full((90, 120, 3), 90, np.uint8)
LABELS = [Chip(21, "bear", 0.99257), Chip(0, "人", 0.5)]


def result(path: str | None = "photos/bear.jpg", page: int | None = None, stem: str = "bear") -> Result:
    return Result(path, page, IMAGE, LABELS, stem)


def test_the_tutorials_form(capsys: pytest.CaptureFixture[str]) -> None:
    one = result()
    assert list(one)[:7] == ["img_path", "input_path", "page_index", "input_img", "class_ids", "scores", "label_names"]
    assert (one["class_ids"], one["scores"], one["label_names"]) == ([21, 0], [0.99257, 0.5], ["bear", "人"])
    one.print()
    line = "{'img_path': 'photos/bear.jpg', 'class_ids': [21, 0], 'scores': [0.99257, 0.5], 'label_names': ['bear', '人']}\n"
    assert capsys.readouterr().out == line
    one.print(format_json=True, indent=2, ensure_ascii=True)
    told = capsys.readouterr().out
    assert json.loads(told) == one.json
    assert '\n  "class_ids"' in told
    assert "人" not in told


def test_saved_to_a_folder_or_a_file(tmp_path: Path) -> None:
    one = result()
    assert one.save_to_json(tmp_path / "out") == str(tmp_path / "out" / "bear.json")
    assert json.loads((tmp_path / "out" / "bear.json").read_text(encoding="utf-8")) == one.json
    assert one.save_to_img(f"{tmp_path}/out/") == str(tmp_path / "out" / "bear.jpg")
    assert one.save_to_img(tmp_path / "deep" / "chosen.png") == str(tmp_path / "deep" / "chosen.png")
    with Image.open(tmp_path / "deep" / "chosen.png") as saved:
        assert saved.format == "PNG"
        assert saved.height > 90
    assert Result(None, None, IMAGE, [], "image-000001").save_to_img(tmp_path) == str(tmp_path / "image-000001.png")
    assert Result("https://h/a.pdf?x=1", 3, IMAGE, [], "a_3").save_to_img(tmp_path) == str(tmp_path / "a_3.png")


def test_the_input_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "bear.jpg"
    Image.fromarray(IMAGE).save(path)
    before = path.read_bytes()
    assert result(str(path)).save_to_img(tmp_path) == str(tmp_path / "bear_res.jpg")
    assert path.read_bytes() == before


def test_names_never_collide() -> None:
    """PaddleX: two inputs of one stem replace each other."""
    names = Names()
    stems = [
        names.stem(path, page)
        for path, page in (
            ("a/1.jpg", None),
            ("b/1.jpg", None),
            ("a/1.png", None),
            ("A/1.JPG", None),
            ("d.pdf", 0),
            ("d.pdf", 1),
            ("e/D.pdf", 0),
            (None, None),
            (None, None),
            ("https://h/x.jpg?u=a/b.c", None),
        )
    ]
    assert len({stem.casefold() for stem in stems}) == len(stems)
    assert stems[0] == "1"
    assert stems[4:6] == ["d_0", "d_1"]
    assert stems[-1] == "x"
    assert names.stem("a/1.jpg", None) == "1", "the same input keeps its name"


def test_an_error(tmp_path: Path) -> None:
    failed = Result("x.jpg", None, None, [], "x", ImageError(Status.EMPTY, "0 bytes"))
    assert failed["error"] == failed.json["error"] == "empty: 0 bytes"
    assert failed.save_to_img(tmp_path) is None
    with pytest.raises(RunError, match="'x.jpg' has no image: empty: 0 bytes"):
        _ = failed.img
