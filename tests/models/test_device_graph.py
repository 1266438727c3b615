"""Graphs for accelerators: the same scores from uint8 pixels, in fp32 and fp16, and attention as one operator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import paddle
import pytest

from mlcls_ray.devices import Device
from mlcls_ray.engines.golden import TOLERANCE, golden_pixels
from mlcls_ray.engines.load import load_engine
from mlcls_ray.images.preprocess import to_tensor
from mlcls_ray.models.artifact import Model, load_model
from mlcls_ray.models.cache import open_model
from mlcls_ray.models.convert.attention import fuse_attention
from mlcls_ray.models.convert.device_graph import cached_device_graph, to_half, write_device_graph
from mlcls_ray.models.convert.narrow import narrow_tokens
from mlcls_ray.models.convert.onnx import cached_onnx
from mlcls_ray.models.convert.paddle import export_network, write_config
from mlcls_ray.models.features import converted_with_features
from mlcls_ray.models.heads import WithSigmoid
from mlcls_ray.models.networks import network_spec
from mlcls_ray.models.networks.clip_vit import ClipViTML


def run(path: Path, values: np.ndarray) -> list[np.ndarray]:
    """The outputs of a graph on the CPU."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return list(session.run(None, {session.get_inputs()[0].name: values}))


@pytest.fixture(scope="module")
def starter() -> Model:
    return open_model("starter")


@pytest.fixture(scope="module")
def pixels(starter: Model) -> np.ndarray:
    return golden_pixels(starter)


@pytest.fixture(scope="module")
def plain(starter: Model, pixels: np.ndarray) -> np.ndarray:
    """Scores of the plain graph, from pixels that numpy normalizes."""
    return run(cached_onnx(starter), to_tensor(pixels, starter.preprocess))[0]


def test_fp32_gives_the_plain_graphs_scores(starter: Model, pixels: np.ndarray, plain: np.ndarray) -> None:
    (scores,) = run(cached_device_graph(starter, "fp32"), pixels)
    assert scores.dtype == np.float32
    assert np.abs(scores - plain).max() <= 1e-5


def test_fp16_gives_scores_within_the_golden_tolerance(starter: Model, pixels: np.ndarray, plain: np.ndarray) -> None:
    path = cached_device_graph(starter, "fp16")
    (scores,) = run(path, pixels)
    assert scores.dtype == np.float32
    assert 0 < np.abs(scores - plain).max() <= TOLERANCE
    assert (scores.astype(np.float16).astype(np.float32) != scores).mean() > 0.5, "the sigmoid is in fp32"
    halves = [tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in onnx.load(str(path)).graph.initializer]
    assert sum(halves) > 0.8 * len(halves)
    assert path.stat().st_size < 0.6 * cached_onnx(starter).stat().st_size


def test_the_graph_takes_pixels_of_any_number_of_images(tiny_model: Model) -> None:
    path = cached_device_graph(tiny_model, "fp32")
    (source,) = onnx.load(str(path)).graph.input
    sides = source.type.tensor_type.shape.dim
    assert source.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert (sides[0].dim_param, [side.dim_value for side in sides[1:]]) == ("batch", [32, 32, 3])
    images = golden_pixels(tiny_model)
    assert np.abs(run(path, images[:1])[0] - run(path, images)[0][:1]).max() <= 1e-6


def test_one_graph_in_the_cache_for_each_way_to_make_it(tiny_model: Model) -> None:
    path = cached_device_graph(tiny_model, "fp32")
    before = path.stat().st_mtime_ns
    assert cached_device_graph(tiny_model, "fp32") == path
    assert path.stat().st_mtime_ns == before
    assert path.parent == cached_onnx(tiny_model).parent
    other = tiny_model.model_copy(
        update={"preprocess": tiny_model.preprocess.model_copy(update={"mean": (0.5, 0.5, 0.5)})}
    )
    paths = {path, cached_device_graph(tiny_model, "fp16"), cached_device_graph(other, "fp32")}
    assert len(paths) == 3
    images = golden_pixels(tiny_model)
    expected = run(cached_onnx(tiny_model), to_tensor(images, other.preprocess))[0]
    assert np.abs(run(cached_device_graph(other, "fp32"), images)[0] - expected).max() <= 1e-5


@pytest.mark.parametrize("number_format", ["fp32", "fp16"])
def test_features_come_out_in_fp32_too(tiny_model: Model, number_format: str) -> None:
    plain = converted_with_features(tiny_model)
    images = golden_pixels(tiny_model)
    expected = run(plain, to_tensor(images, tiny_model.preprocess))
    actual = run(cached_device_graph(tiny_model, number_format, plain), images)  # type: ignore[arg-type]
    for got, wanted in zip(actual, expected, strict=True):
        assert got.dtype == np.float32
        assert np.abs(got - wanted).max() <= (1e-5 if number_format == "fp32" else 2e-2) * max(1, np.abs(wanted).max())


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """CLIP's network with two of its twelve blocks, for images of 64 pixels, with random weights."""
    folder = tmp_path_factory.mktemp("clip")
    spec = network_spec("CLIP_vit_base_patch16_448_ML")
    paddle.seed(0)
    export_network(WithSigmoid(ClipViTML(3, depth=2)), 64, folder)
    preprocess = spec.preprocess.model_copy(update={"size": (64, 64)})
    write_config(folder, spec.name, preprocess, ("a", "b", "c"), 0.5)
    return load_model(folder)


@pytest.fixture(scope="module")
def clip_graph(clip: Model) -> Path:
    """Its plain graph."""
    return cached_onnx(clip)


def test_attention_is_one_operator(clip: Model, clip_graph: Path, tmp_path: Path) -> None:
    graph = onnx.load(str(clip_graph))
    before = [node.op_type for node in graph.graph.node]
    assert fuse_attention(graph) == 2
    after = [node.op_type for node in graph.graph.node]
    assert after.count("Attention") == 2
    assert after.count("Softmax") == before.count("Softmax") - 2
    assert fuse_attention(graph) == 0
    images = golden_pixels(clip)
    expected = run(clip_graph, to_tensor(images, clip.preprocess))[0]
    assert expected.std(axis=0).max() > 1e-3, "the scores depend on the image"
    for number_format, tolerance in (("fp32", 1e-4), ("fp16", TOLERANCE)):
        write_device_graph(clip_graph, clip.preprocess, number_format, tmp_path / "device.onnx")  # type: ignore[arg-type]
        assert "Attention" in [node.op_type for node in onnx.load(str(tmp_path / "device.onnx")).graph.node]
        assert np.abs(run(tmp_path / "device.onnx", images)[0] - expected).max() <= tolerance


def test_networks_without_self_attention_stay_as_they_are(starter: Model) -> None:
    graph = onnx.load(str(cached_onnx(starter)))
    before = graph.SerializeToString()
    assert fuse_attention(graph) == 0
    assert graph.SerializeToString() == before


def test_half_precision_of_a_graph_whose_nodes_have_no_names(tiny_model: Model, tmp_path: Path) -> None:
    graph = onnx.load(str(cached_onnx(tiny_model)))
    for node in graph.graph.node:
        node.name = ""
    onnx.save(to_half(graph), str(tmp_path / "half.onnx"))
    images = golden_pixels(tiny_model)
    expected = load_engine("onnxruntime", tiny_model, Device("cpu"), 1).score(images)
    actual = run(tmp_path / "half.onnx", to_tensor(images, tiny_model.preprocess))[0]
    assert np.abs(actual - expected).max() <= TOLERANCE


def test_what_follows_a_selected_token_is_computed_for_it_alone(clip: Model, clip_graph: Path, tmp_path: Path) -> None:
    """The head takes one patch: the last block's projection and MLP, and its sums and norm, are for that one."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(str(clip_graph)))
    fuse_attention(graph)
    assert narrow_tokens(graph) >= 10
    assert narrow_tokens(graph) == 0
    onnx.save(graph, str(tmp_path / "narrow.onnx"))
    inferred = {
        value.name: [side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in onnx.shape_inference.infer_shapes(graph).graph.value_info
    }
    products = [node.output[0] for node in graph.graph.node if node.op_type == "MatMul"]
    of_one = [name for name in products if len(inferred.get(name, [])) == 3 and inferred[name][1] == 1]
    of_all = [name for name in products if len(inferred.get(name, [])) == 3 and inferred[name][1] == 17]
    assert (len(of_all), len(of_one)) == (3, 3 + 2), (
        "a block has a projection and an MLP of two; the head looks at one token"
    )
    tensors = to_tensor(golden_pixels(clip), clip.preprocess)
    assert np.abs(run(tmp_path / "narrow.onnx", tensors)[0] - run(clip_graph, tensors)[0]).max() <= 1e-5
