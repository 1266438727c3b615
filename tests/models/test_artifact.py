"""Inference folders are read with PaddleX's meaning; what is not supported is refused by name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mlcls_ray.errors import ImageError, UsageError
from mlcls_ray.images.decode import decode
from mlcls_ray.models.artifact import load_model, parse_preprocess
from tests.conftest import TINY_VOCABULARY

NORMALIZE = {
    "NormalizeImage": {"scale": "1.0/255.0", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "order": ""}
}
CHW = {"ToCHWImage": None}


def operations(resize: dict[str, Any], *more: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"ResizeImage": resize}, *more, NORMALIZE, CHW]


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def edit(folder: Path, change: dict[str, Any]) -> None:
    config = yaml.safe_load((folder / "inference.yml").read_text())
    (folder / "inference.yml").write_text(yaml.safe_dump({**config, **change}))


def test_an_exported_folder(tiny_folder: Path) -> None:
    model = load_model(tiny_folder)
    assert model.vocabulary == TINY_VOCABULARY
    assert model.thresholds == (0.5, 0.5, 0.5)
    assert model.preprocess.input_size == (32, 32)
    assert (model.name, model.program.name) == ("tiny", "inference.json")


def test_the_official_transform_ops() -> None:
    """As PaddleClas writes them for the models that it publishes."""
    preprocess = parse_preprocess(operations({"size": [448, 448], "interpolation": "bilinear", "backend": "pil"}))
    assert (preprocess.size, preprocess.backend, preprocess.interpolation) == ((448, 448), "pil", "BILINEAR")
    assert preprocess.scale == 1 / 255


def test_resize_short_crop_and_defaults() -> None:
    preprocess = parse_preprocess(operations({"resize_short": 256}, {"CropImage": {"size": 224}}))
    assert (preprocess.resize_short, preprocess.crop, preprocess.size) == (256, (224, 224), None)
    assert (preprocess.backend, preprocess.interpolation) == ("cv2", "LINEAR")
    assert parse_preprocess(operations({"size": 64, "resize_short": 0})).size == (64, 64)
    assert parse_preprocess([*reversed(operations({"size": 64}))]).size == (64, 64), "the order means nothing"


@pytest.mark.parametrize(
    ("operation_list", "message"),
    [
        ([{"ResizeImage": {"size": 8}}, CHW], "lacks NormalizeImage"),
        (
            operations({"size": 8}, {"ResizeImg": {}}),
            "unknown transform_ops entry 'ResizeImg': did you mean 'ResizeImage'",
        ),
        (operations({"size": 8, "backend": "cv2", "interpolation": "bilinear"}), "does not exist for backend 'cv2'"),
        (operations({"resize_short": 8}), "needs a CropImage"),
        ([{"ResizeImage": {"size": 8}}, {"NormalizeImage": {"order": "hwc"}}, CHW], "order must be ''"),
        ([{"ResizeImage": {"size": 8}}, {"NormalizeImage": {"channel_num": 4}}, CHW], "channel_num must be 3"),
        ("nonsense", "not a list"),
    ],
)
def test_what_paddlex_refuses_is_refused(operation_list: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_preprocess(operation_list)


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (0.3, (0.3, 0.3, 0.3)),
        (1, (1.0, 1.0, 1.0)),
        ({"default": 0.5, "1": 0.2}, (0.5, 0.2, 0.5)),
        ({"default": 0.5, "猫": 0.2, 0: 0.9}, (0.9, 0.5, 0.2)),
        ([0.1, 0.2, 0.3], (0.1, 0.2, 0.3)),
    ],
)
def test_threshold_forms(folder: Path, threshold: object, expected: tuple[float, ...]) -> None:
    edit(
        folder,
        {"PostProcess": {"MultiLabelThreshOutput": {"threshold": threshold, "label_list": list(TINY_VOCABULARY)}}},
    )
    assert load_model(folder).thresholds == expected


def test_thresholds_in_a_file_of_their_own_come_first(folder: Path) -> None:
    content = {"version": 1, "target": "f1", "classes": {"猫": 0.2, "dog": 0.75}}
    (folder / "thresholds.yml").write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    assert load_model(folder).thresholds == pytest.approx((0.5, 0.75, 0.2))
    (folder / "thresholds.yml").write_text("cat: 0.5\ndgo: 0.1\n")
    with pytest.raises(UsageError, match=r"thresholds.yml: unknown class 'dgo': did you mean 'dog'"):
        load_model(folder)
    (folder / "thresholds.yml").write_text("cat: 1.5\n")
    with pytest.raises(UsageError, match=r"thresholds.yml: 'cat: 1.5' in .*is not a number between 0 and 1"):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"PostProcess": {"Topk": {"topk": 5}}}, "PostProcess.MultiLabelThreshOutput is missing"),
        ({"PostProcess": {"MultiLabelThreshOutput": {"threshold": 0.5}}}, "label_list is missing"),
        (
            {"PostProcess": {"MultiLabelThreshOutput": {"threshold": [0.5], "label_list": ["a", "b"]}}},
            "1 entries for 2",
        ),
        ({"PreProcess": {}}, "PreProcess.transform_ops is missing"),
    ],
)
def test_wrong_configs_name_the_field(folder: Path, change: dict[str, Any], message: str) -> None:
    edit(folder, change)
    with pytest.raises(UsageError, match=message):
        load_model(folder)


def test_missing_files_are_named(folder: Path) -> None:
    (folder / "inference.json").unlink()
    (folder / "inference.pdiparams").unlink()
    with pytest.raises(UsageError, match=r"lacks inference.json or inference.pdmodel, inference.pdiparams"):
        load_model(folder)


def test_the_new_program_format_wins(folder: Path) -> None:
    (folder / "inference.pdmodel").write_bytes(b"old")
    assert load_model(folder).program.name == "inference.json"


def test_fingerprints_follow_what_decides_the_scores(folder: Path) -> None:
    before = load_model(folder)
    edit(folder, {"Global": {"model_name": "renamed"}})
    assert load_model(folder).fingerprint == before.fingerprint
    edit(folder, {"PreProcess": {"transform_ops": operations({"size": 32})}})
    after = load_model(folder)
    assert after.fingerprint == before.fingerprint
    assert after.preprocess_fingerprint("exact") != before.preprocess_fingerprint("exact")
    with (folder / "inference.pdiparams").open("ab") as stream:
        stream.write(b"\0")
    assert load_model(folder).fingerprint != before.fingerprint


def test_pixels_of_files(tiny_folder: Path, demo: Path) -> None:
    model, paths = load_model(tiny_folder), sorted(demo.glob("*.jpg"))[:3]
    pixels = model.load_pixels(paths)
    assert (pixels.shape, pixels.dtype) == ((3, 32, 32, 3), np.uint8)
    assert np.array_equal(pixels[1], model.preprocess.to_pixels(decode(paths[1].read_bytes()).image))
    (text := tiny_folder.parent / "text.jpg").write_text("no image")
    with pytest.raises(ImageError):
        model.load_pixels([text])
