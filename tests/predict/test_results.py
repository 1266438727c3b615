"""Results: the mapping and the printed line of the tutorial, and file names that never collide."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlcls_ray.errors import ImageError, RunError, Status
from mlcls_ray.images.draw import Chip
from mlcls_ray.predict.results import FileStems, Result

IMAGE = np.full((90, 120, 3), 90, np.uint8)
LABELS = [Chip(21, "bear", 0.99257), Chip(0, "人", 0.5)]


def result(path: str | None = "photos/bear.jpg", page: int | None = None, stem: str = "bear") -> Result:
    return Result(path, page, IMAGE, LABELS, stem)


def test_mapping_and_print_as_in_the_tutorial(capsys: pytest.CaptureFixture[str]) -> None:
    bear = result()
    assert list(bear)[:7] == ["img_path", "input_path", "page_index", "input_img", "class_ids", "scores", "label_names"]
    assert (bear["class_ids"], bear["scores"], bear["label_names"]) == ([21, 0], [0.99257, 0.5], ["bear", "人"])
    bear.print()
    line = "{'img_path': 'photos/bear.jpg', 'class_ids': [21, 0], 'scores': [0.99257, 0.5], 'label_names': ['bear', '人']}\n"
    assert capsys.readouterr().out == line
    bear.print(format_json=True, indent=2, ensure_ascii=True)
    printed = capsys.readouterr().out
    assert json.loads(printed) == bear.json
    assert '\n  "class_ids"' in printed
    assert "人" not in printed


def test_saved_to_a_folder_or_a_file(tmp_path: Path) -> None:
    bear = result()
    assert bear.save_to_json(tmp_path / "out") == str(tmp_path / "out" / "bear.json")
    assert json.loads((tmp_path / "out" / "bear.json").read_text(encoding="utf-8")) == bear.json
    assert bear.save_to_img(f"{tmp_path}/out/") == str(tmp_path / "out" / "bear.jpg")
    assert bear.save_to_img(tmp_path / "deep" / "chosen.png") == str(tmp_path / "deep" / "chosen.png")
    with Image.open(tmp_path / "deep" / "chosen.png") as saved:
        assert saved.format == "PNG"
        assert saved.height > 90
    assert Result(None, None, IMAGE, [], "image-000001").save_to_img(tmp_path) == str(tmp_path / "image-000001.png")
    assert Result("https://h/a.pdf?x=1", 3, IMAGE, [], "a_3").save_to_img(tmp_path) == str(tmp_path / "a_3.png")


def test_the_input_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "bear.jpg"
    Image.fromarray(IMAGE).save(path)
    before = path.read_bytes()
    assert result(str(path)).save_to_img(tmp_path) == str(tmp_path / "bear_res.jpg")
    assert path.read_bytes() == before


def test_names_never_collide() -> None:
    """In PaddleX, two inputs with the same stem overwrite each other."""
    names = FileStems()
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


def test_an_unreadable_input_has_an_error_and_no_image(tmp_path: Path) -> None:
    failed = Result("x.jpg", None, None, [], "x", ImageError(Status.EMPTY, "0 bytes"))
    assert failed["error"] == failed.json["error"] == "empty: 0 bytes"
    assert failed.save_to_img(tmp_path) is None
    with pytest.raises(RunError, match="'x.jpg' has no image: empty: 0 bytes"):
        _ = failed.img
