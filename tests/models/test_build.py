"""Every registered network: structure, names of parameters, heads, and weights in and out."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from mlcls_ray.errors import UsageError
from mlcls_ray.models.build import build_network, load_pdparams, read_pdparams
from mlcls_ray.models.cache import open_model
from mlcls_ray.models.heads import HEADS
from mlcls_ray.models.networks import network_spec
from mlcls_ray.models.networks.clip_vit import PATCH
from mlcls_ray.models.networks.spec import is_head
from mlcls_ray.models.zoo import PUBLISHED
from mlcls_ray.registry import NETWORKS

DECODER_SIZES = {2048: 7_212_112, 1280: 6_622_288, 768: 6_229_072}
"""Number of parameters of ML-Decoder for 80 classes, by input channels."""
NAMES = {
    "PP-LCNet_x1_0_ML": [
        "conv1.conv.weight",
        "blocks2.0.dw_conv.bn._mean",
        "blocks6.1.se.conv2.bias",
        "last_conv.weight",
    ],
    "PP-HGNetV2-B0_ML": [
        "stem.stem2a.conv.weight",
        "stem.stem1.lab.scale",
        "stages.2.blocks.1.layers.0.conv2.lab.bias",
        "lab.scale",
    ],
    "PP-HGNetV2-B4_ML": ["stages.1.downsample.bn.weight", "stages.0.blocks.0.layers.5.conv.weight", "last_conv.weight"],
    "PP-HGNetV2-B6_ML": ["stages.3.blocks.2.aggregation_excitation_conv.bn._variance"],
    "ResNet50_ML": ["stem.0.conv.weight", "blocks.0.short.bn.bias", "blocks.15.conv2.conv.weight"],
    "CLIP_vit_base_patch16_448_ML": [
        "cls_token",
        "pos_embed",
        "patch_embed.proj.weight",
        "proj",
        "blocks.11.attn.qkv.weight",
        "ln_pre.bias",
        "norm.weight",
    ],
}
DECODER = [
    "input_proj.weight", "query_pos_embed.weight", "decoder.layers.0.cross_attn.q_proj.weight", "decoder.layers.0.linear2.bias",
    "decoder.layers.0.norm3.weight", "group_conv.bias",
]  # fmt: skip


def count(layer: paddle.nn.Layer) -> int:
    return sum(int(np.prod(parameter.shape)) for parameter in layer.parameters())


PARAMETERS = {
    # parameters in millions with the 1000-class layer (1.281 M for 1280 channels, 2.049 M for 2048), from PaddleClas's model tables, which
    # count batch norm's statistics for LCNet and not for the others; of CLIP's vision tower, with its projection into the space of texts
    "PP-LCNet_x1_0_ML": (2.96, 1280, 1_281_000),
    "PP-HGNetV2-B0_ML": (6.00, 2048, 2_049_000),
    "PP-HGNetV2-B4_ML": (19.80, 2048, 2_049_000),
    "PP-HGNetV2-B6_ML": (75.26, 2048, 2_049_000),
    "ResNet50_ML": (25.557032, 2048, 2_049_000),
    "CLIP_vit_base_patch16_448_ML": (86.192640, 768, 0),
}
ROUNDING = 0.005e6
"""Half of the last digit of a table with two decimals."""


LARGEST = "PP-HGNetV2-B6_ML"
"""It takes as long as the other networks together, and is built of the same parts as B0 and B4."""


def quick(names: Iterable[str]) -> list[Any]:
    """The names, of which the largest network is for the slow tier."""
    return [pytest.param(name, marks=pytest.mark.slow) if name == LARGEST else name for name in names]


@pytest.fixture(scope="module", params=quick(PUBLISHED))
def named(request: pytest.FixtureRequest) -> tuple[str, paddle.nn.Layer]:
    network = build_network(network_spec(request.param), 80, seed=1)
    network.eval()
    return request.param, network


@pytest.mark.parametrize("name", quick(NETWORKS))
def test_every_registered_network(name: str) -> None:
    """A seed gives the same weights again, another head replaces the usual one, and its parameters are recognized."""
    spec = network_spec(name)
    assert spec.name == name or name == "starter"
    network = build_network(spec, 3, seed=1, head="pooled", for_training=True)
    assert isinstance(getattr(network, spec.head_attribute), HEADS["pooled"])
    same = build_network(spec, 3, seed=1, head="pooled", for_training=True).state_dict()
    assert all(np.array_equal(value.numpy(), same[key].numpy()) for key, value in network.state_dict().items())
    heads = {key for key in network.state_dict() if is_head(key)}
    assert heads == {f"{spec.head_attribute}.fc.weight", f"{spec.head_attribute}.fc.bias"}
    network.eval()
    with paddle.no_grad():
        assert network(paddle.zeros([2, 3, 64, 64])).shape == [2, 3]


def test_the_starter_is_built_as_it_was_exported() -> None:
    spec, model = network_spec("starter"), open_model("starter")
    assert (spec.name, spec.preprocess) == (model.name, model.preprocess)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights_are_of_a_registered_network(name: str) -> None:
    assert network_spec(name).input_size == PUBLISHED[name].input_size


def test_an_unknown_network() -> None:
    with pytest.raises(UsageError, match="unknown network 'ResNet50': did you mean 'ResNet50_ML'"):
        network_spec("ResNet50")


def test_clip_is_trained_on_all_patches() -> None:
    """Published weights see the first patch only. What is trained sees them all, with the same parameters."""
    spec = network_spec("CLIP_vit_base_patch16_448_ML")
    images = paddle.randn([1, 3, 2 * PATCH, 2 * PATCH])
    for for_training, memory_size in ((False, 1), (True, 4)):
        network = build_network(spec, 3, seed=1, for_training=for_training)
        network.eval()
        maps: list[list[int]] = []
        network.head.register_forward_pre_hook(lambda layer, inputs, maps=maps: maps.append(list(inputs[0].shape)))
        with paddle.no_grad():
            network(images)
        assert int(np.prod(maps[0][2:])) == memory_size
    published = build_network(spec, 3).state_dict()
    trained = build_network(spec, 3, for_training=True).state_dict()
    assert {key: value.shape for key, value in published.items()} == {
        key: value.shape for key, value in trained.items()
    }


def test_parameter_counts(named: tuple[str, paddle.nn.Layer]) -> None:
    name, network = named
    published, channels, classifier = PARAMETERS[name]
    head = count(getattr(network, network_spec(name).head_attribute))
    assert head == DECODER_SIZES[channels]
    backbone = count(network) - head
    if name != "PP-LCNet_x1_0_ML":
        backbone -= sum(
            int(np.prod(tensor.shape))
            for key, tensor in network.state_dict().items()
            if key.endswith(("._mean", "._variance"))
        )
    assert backbone + classifier == pytest.approx(published * 1e6, rel=5e-4, abs=ROUNDING)


def test_names_are_paddleclass(named: tuple[str, paddle.nn.Layer]) -> None:
    name, network = named
    prefix = network_spec(name).head_attribute
    expected = {*NAMES[name], *(f"{prefix}.{part}" for part in DECODER)}
    assert expected <= network.state_dict().keys()


def test_pdparams_round_trip(named: tuple[str, paddle.nn.Layer], tmp_path: Path) -> None:
    """Paddle's own `paddle.save` writes the file, as PaddleClas does."""
    name, network = named
    paddle.save(network.state_dict(), str(tmp_path / "weights.pdparams"))
    other = build_network(network_spec(name), 80, seed=2)
    other.eval()
    load_pdparams(other, tmp_path / "weights.pdparams")
    x = paddle.randn([1, 3, 64, 64])
    with paddle.no_grad():
        assert np.array_equal(network(x).numpy(), other(x).numpy())


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    lcnet, resnet = network_spec("PP-LCNet_x1_0_ML"), network_spec("ResNet50_ML")
    paddle.save(build_network(lcnet, 3).state_dict(), str(tmp_path / "weights.pdparams"))
    with pytest.raises(UsageError, match="of another network: it lacks .* and .* more and holds"):
        load_pdparams(build_network(resnet, 3), tmp_path / "weights.pdparams")
    with pytest.raises(
        UsageError, match=r"query_pos_embed.weight is \[3, 768\], the network's is \[4, 768\]|group_conv"
    ):
        load_pdparams(build_network(lcnet, 4), tmp_path / "weights.pdparams")


class Evil:
    """A pickle may carry calls of functions."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("owned",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"w": Evil()}), "asks for posix.mkdir, which is not an array"),
        (pickle.dumps({"w": np.array([Evil()], dtype=object)}), "asks for posix.mkdir"),
        (pickle.dumps({"w": np.array([None], dtype=object)}), "w is not an array"),
        (pickle.dumps({"w": 3}), "w is not an array"),
        (pickle.dumps([1]), "list instead of names"),
        (b"not a pickle", "not a .pdparams file"),
        (pickle.dumps({"w": np.ones(3)})[:-9], "not a .pdparams file"),
    ],
)
def test_nothing_but_arrays_is_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pdparams").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_pdparams(tmp_path / "w.pdparams")
    assert not (tmp_path / "owned").exists()
