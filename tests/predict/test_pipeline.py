"""`create_pipeline` and `predict`: PaddleX's calls, without its bugs (the tests name them)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mlcls_ray import create_pipeline
from mlcls_ray.devices import Device
from mlcls_ray.engines.load import load_engine
from mlcls_ray.errors import PredictError, UsageError
from mlcls_ray.job.label import label
from mlcls_ray.predict.pipeline import Pipeline
from mlcls_ray.table import layout
from tests.conftest import encode, picture, quick_job, run_cli


@pytest.fixture(scope="module")
def pipeline(tiny_folder: Path) -> Pipeline:
    return create_pipeline("multi_label_image_classification", model=tiny_folder, threshold=0.0)


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{number}.jpg" for number in range(5)]
    for number, path in enumerate(paths):
        path.write_bytes(encode(picture(seed=number)))
    return [str(path) for path in paths]


def test_the_tutorial_runs_with_the_starter(demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = create_pipeline(pipeline="multi_label_image_classification", device="cpu")
    output = pipeline.predict(str(demo / "boats.jpg"))
    for res in output:
        res.print()
        res.save_to_img(tmp_path / "output")
        res.save_to_json(tmp_path / "output")
    printed = capsys.readouterr().out.strip()
    assert printed.startswith(f"{{'img_path': '{demo / 'boats.jpg'}', 'class_ids': [8], ")
    assert "'label_names': ['boat']" in printed
    saved = json.loads((tmp_path / "output" / "boats.json").read_text())
    assert str(saved) == printed
    with Image.open(tmp_path / "output" / "boats.jpg") as annotated, Image.open(demo / "boats.jpg") as original:
        assert annotated.width == original.width
        assert annotated.height > original.height


@pytest.mark.usefixtures("loopback_ray")
def test_the_same_labels_as_the_job(tiny_folder: Path, folder_of_images: Path, tmp_path: Path) -> None:
    exact = {"engine": "paddle", "precision": "fp32"}  # the pipeline's defaults
    label(quick_job(inputs=(str(folder_of_images),), out=str(tmp_path), model=str(tiny_folder), run_id="r", **exact))
    rows = pq.read_table(tmp_path / layout.labels_folder("r")).sort_by("row_id").to_pylist()
    pipeline = create_pipeline(model=tiny_folder, batch_size=4)
    results = list(pipeline.predict(str(folder_of_images), on_error="return"))
    assert [result["img_path"] for result in results] == [row["uri"] for row in rows]
    for result, row in zip(results, rows, strict=True):
        assert result["label_names"] == (row["labels"] or [])
        assert result["class_ids"] == (row["class_ids"] or [])
        assert result["scores"] == [round(score, 5) for score in (row["scores"] or [])]
        assert (result.error is None) == (row["status"] == "ok")


@pytest.mark.parametrize("size", [1, 2, 3, 16])
def test_results_do_not_depend_on_the_batch(pipeline: Pipeline, photos: list[str], size: int) -> None:
    """PaddleX applies thresholds by the position in the batch, and truncates a batch that is larger than the vocabulary."""
    batched = [result.json for result in pipeline.predict(photos, batch_size=size)]
    assert batched == [next(pipeline.predict(photo)).json for photo in photos]


def test_every_form_of_threshold(pipeline: Pipeline, photos: list[str]) -> None:
    (all_labels,) = pipeline.predict(photos[0])
    scores = dict(zip(all_labels["class_ids"], all_labels["scores"], strict=True))
    middle = sorted(scores.values())[1] + 1e-4
    best = max(scores, key=lambda class_id: scores[class_id])
    name = pipeline.model.vocabulary[best]

    def class_ids(threshold: object) -> list[int]:
        (result,) = pipeline.predict(photos[0], threshold=threshold)  # type: ignore[arg-type]
        return sorted(result["class_ids"])

    assert class_ids(middle) == class_ids(np.float64(middle)) == [best]
    assert class_ids(0) == sorted(scores)
    assert class_ids(1) == []
    assert class_ids({"default": 1.0, best: 0.0}) == [best]
    assert class_ids({"default": 1, str(best): 0}) == [best]
    assert class_ids({"default": 1.0, name: 0.0}) == [best]
    assert class_ids([0.0 if class_id == best else 1.0 for class_id in range(3)]) == [best]
    assert class_ids(f"1.0,{name}=0.0") == [best]


def test_a_label_map(pipeline: Pipeline, tiny_folder: Path, photos: list[str], tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    path.write_text("cat: animal\ndog: animal\n猫: null\n")
    mapped = create_pipeline(model=tiny_folder, threshold=0.0, map=path)
    (plain,), (result,) = pipeline.predict(photos[0]), mapped.predict(photos[0])
    scores = dict(zip(plain["label_names"], plain["scores"], strict=True))
    assert result["label_names"] == ["animal"]
    assert result["scores"] == [max(scores["cat"], scores["dog"])]
    assert result["class_ids"] == [0 if scores["cat"] >= scores["dog"] else 1]
    with pytest.raises(UsageError, match="map: the model has no label 'bird'"):
        create_pipeline(model=tiny_folder, map={"bird": "animal"})


@pytest.mark.parametrize(
    ("threshold", "message"),
    [
        ([0.5], "1 numbers for 3 classes"),
        (2, "2 is not a number"),
        ("x", "'x' is neither"),
        ({"bird": 0.1}, "unknown class 'bird'"),
    ],
)
def test_wrong_thresholds_are_refused_at_once(
    pipeline: Pipeline, photos: list[str], threshold: object, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        pipeline.predict(photos[0], threshold=threshold)  # type: ignore[arg-type]


def test_errors_are_raised_skipped_or_returned(pipeline: Pipeline, photos: list[str]) -> None:
    inputs = [photos[0], "/nowhere/x.jpg", photos[1]]
    results = pipeline.predict(inputs, batch_size=8)
    assert next(results)["img_path"] == photos[0], "results before it come first"
    with pytest.raises(PredictError, match="'/nowhere/x.jpg': missing"):
        next(results)
    assert [result["img_path"] for result in pipeline.predict(inputs, on_error="skip")] == [photos[0], photos[1]]
    errors = [result["error"] for result in pipeline.predict(inputs, on_error="return", batch_size=2)]
    assert errors == [None, "missing: No such file or directory", None]
    with pytest.raises(UsageError, match="on_error: 'ignore'"):
        pipeline.predict(inputs, on_error="ignore")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="batch_size: 0"):
        pipeline.predict(inputs, batch_size=0)


def test_no_ray_is_started(tiny_folder: Path, photos: list[str]) -> None:
    code = f"""
import sys
from mlcls_ray import create_pipeline
list(create_pipeline(model={str(tiny_folder)!r}).predict({photos[0]!r}))
print("ray" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_command_takes_paddlexs_flags(tiny_folder: Path, photos: list[str], tmp_path: Path) -> None:
    """With underscores, as in PaddleX, and with dashes."""
    run_cli("config", "image_multilabel_classification", "--config_save_path", tmp_path / "conf")
    written = tmp_path / "conf" / "image_multilabel_classification.yaml"
    written.write_text(written.read_text().replace("model: starter", f"model: {tiny_folder}"))
    assert (
        "exists already"
        in run_cli("config", "image_multilabel_classification", "--config-save-path", tmp_path / "conf", check=2).stderr
    )
    out = tmp_path / "out"
    done = run_cli(
        "predict",
        "--pipeline",
        written,
        "--input",
        photos[0],
        "--device",
        "cpu",
        "--save_path",
        out,
        "--threshold",
        "0.0",
    )
    assert done.stdout.startswith(f"{{'img_path': '{photos[0]}', 'class_ids': [")
    assert sorted(path.name for path in out.iterdir()) == ["0.jpg", "0.json"]
    (tmp_path / "bad.jpg").write_bytes(b"")
    done = run_cli("predict", "--pipeline", written, "--input", tmp_path, "--save-path", out, check=1)
    assert "'error': 'empty: 0 bytes'" in done.stdout
    assert "1 input(s) could not be labeled" in done.stderr


def test_several_devices_keep_the_order(demo: Path, tiny_folder: Path) -> None:
    """Two engines on the CPU stand for two devices."""
    pipeline = create_pipeline(model=tiny_folder, batch_size=2)
    engines = [*pipeline.engines, load_engine("paddle", pipeline.model, Device("cpu"), 1)]
    two = Pipeline(pipeline.model, engines, pipeline.batch_size, pipeline.thresholds, pipeline.label_map)
    expected, actual = list(pipeline.predict(demo)), list(two.predict(demo))
    assert len(actual) == 12
    assert [result.json for result in actual] == [result.json for result in expected]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, ("paddle", "fp32")),
        ({"engine": "paddle_static"}, ("paddle", "fp32")),
        ({"engine": "openvino"}, ("openvino", "fp32")),
        ({"engine": "onnxruntime"}, ("onnxruntime", "fp32")),
        ({"engine": "openvino", "precision": "bf16"}, ("openvino", "bf16")),
        ({"engine": "openvino", "use_hpip": True}, ("openvino", "fp32")),
    ],
    ids=str,
)
def test_engine_and_precision(tiny_folder: Path, arguments: dict[str, Any], expected: tuple[str, str]) -> None:
    pipeline = create_pipeline(model=tiny_folder, **arguments)
    (engine,) = pipeline.engines
    assert (engine.name, engine.precision) == expected
    assert f"{expected[0]} in {expected[1]} on 1 device" in repr(pipeline)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"engine": "openvin"}, "create_pipeline: engine: .*'openvino'.*it is 'openvin'"),
        ({"precision": "fp8"}, "create_pipeline: precision: .*it is 'fp8'"),
        ({"batch_size": 0}, "create_pipeline: batch_size: .*greater than 0"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
        ({"engine": "paddle", "precision": "int8"}, "engine paddle has no precision 'int8'"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(tiny_folder: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create_pipeline(model=tiny_folder, **arguments)
