"""The shipped starter: its size, its card, and its mAP on images it was never trained or tuned on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import paddle
from starter.scoring import evaluate

from mlcls_ray.datasets.formats import read_dataset
from mlcls_ray.devices import parse_device
from mlcls_ray.engines.load import load_engine
from mlcls_ray.engines.paddle import PaddleEngine
from mlcls_ray.images.preprocess import to_tensor
from mlcls_ray.labels.vocabulary import read_vocabulary
from mlcls_ray.models.cache import open_model
from mlcls_ray.models.convert.onnx import onnx_graph, to_onnx
from mlcls_ray.models.heads import TAIL_END
from mlcls_ray.models.networks import network_spec
from mlcls_ray.models.zoo import STARTER_FOLDER, STARTER_MAP, STARTER_SIZE
from mlcls_ray.train import networks


def test_it_fits_into_the_package() -> None:
    assert sum(path.stat().st_size for path in STARTER_FOLDER.iterdir()) < 20_000_000
    card = (STARTER_FOLDER / "MODEL_CARD.md").read_text()
    assert f"{STARTER_MAP}" in card
    model = open_model("starter")
    assert model.preprocess.input_size == (STARTER_SIZE, STARTER_SIZE)
    assert (len(model.vocabulary), model.vocabulary[0], model.vocabulary[21]) == (80, "person", "bear")


def test_dev_map(shared_data: Path) -> None:
    model = open_model("starter")
    assert read_vocabulary(shared_data / "coco_mini" / "label.txt") == model.vocabulary
    result = evaluate(model, read_dataset(shared_data / "coco_mini" / "dev.txt", 80))
    assert result["images"] == 167
    assert result["mAP"] >= 70.0
    assert abs(result["mAP"] - STARTER_MAP) < 0.3, "the card and `mlcls models` show the measured number"


def test_fine_tuning_starts_from_it(demo: Path, tmp_path: Path) -> None:
    """The starter's weights are read from its program; its scores are then those of the network's logits, changed by the tail."""
    model = open_model("starter")
    spec = network_spec("starter")
    network = networks.build(spec, len(model.vocabulary))
    networks.load_initial_weights(network, spec, None, model.vocabulary)
    network.eval()
    pixels = model.load_pixels(sorted(demo.glob("*.jpg"))[:2])
    with paddle.no_grad():
        logits = network(paddle.to_tensor(to_tensor(pixels, model.preprocess))).numpy().astype(np.float64)
    scores = PaddleEngine(model, parse_device("cpu"), threads=2).score(pixels).astype(np.float64)
    is_exact = (scores > 1e-6) & (scores < 0.1)
    tails = (logits - np.log(scores / (1 - scores)))[is_exact] * np.exp(np.maximum(logits[is_exact], -TAIL_END))
    assert is_exact.sum() > 20
    assert np.median(tails) > 0.1
    np.testing.assert_allclose(tails, np.median(tails), rtol=0.02)


def test_the_shipped_graph_is_what_the_converter_makes_of_the_model(demo: Path, tmp_path: Path) -> None:
    """Its weights are Paddle's own file, so that the package does not hold them twice; and it answers as Paddle does."""
    model = open_model("starter")
    shipped = onnx_graph(model)
    assert shipped.parent == STARTER_FOLDER and shipped.stat().st_size < 100_000
    to_onnx(model, tmp_path / "converted.onnx")
    ours, converted = (onnx.load(str(path)).graph for path in (shipped, tmp_path / "converted.onnx"))
    assert list(ours.node) == list(converted.node)
    weights = [{one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer} for graph in (ours, converted)]
    assert weights[0].keys() == weights[1].keys()
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])
    pixels = model.load_pixels(sorted(demo.glob("*.jpg")))
    expected = PaddleEngine(model, parse_device("cpu"), threads=2).score(pixels)
    for name in ("openvino", "onnxruntime"):
        scores = load_engine(name, model, parse_device("cpu"), 2).score(pixels)
        np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_its_own_thresholds() -> None:
    thresholds = open_model("starter").thresholds
    assert len(set(thresholds)) > 10 and all(0.1 < threshold <= 0.5 for threshold in thresholds)
