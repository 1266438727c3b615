"""Embeddings: the pooled features in a converted graph are those that the network's backbone computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest
from benchmarks.tiny_network import CHANNELS, TinyBackbone

from mlcls_ray.devices import Device
from mlcls_ray.engines.load import check_embeds, load_embedder, load_engine
from mlcls_ray.errors import UsageError
from mlcls_ray.images.preprocess import to_tensor
from mlcls_ray.models.artifact import Model, load_model
from mlcls_ray.models.convert.paddle import export_network, write_config
from mlcls_ray.models.heads import MLDecoder, MultiLabelClassifier, PooledLocalHead
from tests.conftest import TINY_VOCABULARY

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_scores_stay_and_features_are_of_length_one(tiny_model: Model, engine: str) -> None:
    embedder = load_embedder(engine, tiny_model, Device("cpu"), 1)  # type: ignore[arg-type]
    scores, features = embedder.embed(PIXELS)
    assert features.shape == (3, CHANNELS) == (3, embedder.embedding_size)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    expected = load_engine("paddle", tiny_model, Device("cpu"), 1).score(PIXELS)
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    np.testing.assert_allclose(embedder.score(PIXELS), expected, atol=1e-4)


@pytest.mark.parametrize("head", [MLDecoder, PooledLocalHead])
def test_features_of_a_network_with_another_head(
    head: type[MLDecoder | PooledLocalHead], tmp_path: Path, tiny_model: Model
) -> None:
    paddle.seed(3)
    backbone = TinyBackbone()
    network = MultiLabelClassifier(backbone, head(CHANNELS, len(TINY_VOCABULARY)))
    export_network(network, 32, tmp_path)
    write_config(tmp_path, "another", tiny_model.preprocess, TINY_VOCABULARY, 0.5)
    model = load_model(tmp_path)
    _, features = load_embedder("onnxruntime", model, Device("cpu"), 1).embed(PIXELS)
    backbone.eval()
    maps = backbone(paddle.to_tensor(to_tensor(PIXELS, model.preprocess))).numpy().mean(axis=(2, 3))
    np.testing.assert_allclose(features, maps / np.linalg.norm(maps, axis=1, keepdims=True), atol=1e-4)


def test_engines_that_cannot_give_embeddings() -> None:
    with pytest.raises(UsageError, match="engine paddle gives scores only; use openvino, onnxruntime or auto"):
        check_embeds("paddle", "auto")
    with pytest.raises(UsageError, match="int8 graph gives scores only"):
        check_embeds("openvino", "int8")
