"""The contract of each network: structure, names, export and reload, weights in and out."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import paddle
import pytest

from mlcls_ray.errors import UsageError
from mlcls_ray.models.build import NETWORKS, build_network, load_pdparams, read_pdparams
from mlcls_ray.models.zoo import OFFICIAL

HEADS = {2048: 7_212_112, 1280: 6_622_288, 768: 6_229_072}
"""Parameters of the ML-Decoder for 80 classes by input channels (reference/paddlex.md §3)."""
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
        "patch_embed.proj.bias",
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


PUBLISHED = {
    # parameters in millions with the 1000-class layer (1.281 M for 1280 channels, 2.049 M for 2048), from PaddleClas's model tables, which
    # count batch norm's statistics for LCNet and not for the others; of CLIP's vision tower without a head
    "PP-LCNet_x1_0_ML": (2.96, 1280, 1_281_000),
    "PP-HGNetV2-B0_ML": (6.00, 2048, 2_049_000),
    "PP-HGNetV2-B4_ML": (19.80, 2048, 2_049_000),
    "PP-HGNetV2-B6_ML": (75.26, 2048, 2_049_000),
    "ResNet50_ML": (25.557032, 2048, 2_049_000),
    "CLIP_vit_base_patch16_448_ML": (85.800192, 768, 0),
}
ROUNDING = 0.005e6
"""Of a table with two decimals."""


@pytest.fixture(scope="module", params=NETWORKS)
def named(request: pytest.FixtureRequest) -> tuple[str, paddle.nn.Layer]:
    network = build_network(request.param, 80, seed=1)
    network.eval()
    return request.param, network


def head_of(name: str, network: paddle.nn.Layer) -> paddle.nn.Layer:
    return network.head if name.startswith("CLIP") else network.fc


def test_the_official_models_are_these() -> None:
    assert NETWORKS.keys() == OFFICIAL.keys()
    with pytest.raises(UsageError, match="unknown network 'ResNet50': did you mean 'ResNet50_ML'"):
        build_network("ResNet50", 80)


def test_parameter_counts(named: tuple[str, paddle.nn.Layer]) -> None:
    name, network = named
    published, channels, classifier = PUBLISHED[name]
    head = count(head_of(name, network))
    assert head == HEADS[channels]
    backbone = count(network) - head
    if name != "PP-LCNet_x1_0_ML":
        backbone -= sum(
            int(np.prod(one.shape))
            for one_name, one in network.state_dict().items()
            if one_name.endswith(("._mean", "._variance"))
        )
    assert backbone + classifier == pytest.approx(published * 1e6, rel=5e-4, abs=ROUNDING)


def test_names_are_paddleclass(named: tuple[str, paddle.nn.Layer]) -> None:
    name, network = named
    found = network.state_dict().keys()
    prefix = "head" if name.startswith("CLIP") else "fc"
    for expected in [*NAMES[name], *(f"{prefix}.{part}" for part in DECODER)]:
        assert expected in found


def test_pdparams_round_trip(named: tuple[str, paddle.nn.Layer], tmp_path: Path) -> None:
    """Paddle's own `paddle.save` writes the file, as PaddleClas does."""
    name, network = named
    paddle.save(network.state_dict(), str(tmp_path / "weights.pdparams"))
    other = build_network(name, 80, seed=2)
    other.eval()
    load_pdparams(other, tmp_path / "weights.pdparams")
    x = paddle.randn([1, 3, 64, 64])
    with paddle.no_grad():
        assert np.array_equal(network(x).numpy(), other(x).numpy())


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    paddle.save(build_network("PP-LCNet_x1_0_ML", 3).state_dict(), str(tmp_path / "weights.pdparams"))
    with pytest.raises(UsageError, match="of another network: it lacks .* and .* more and holds"):
        load_pdparams(build_network("ResNet50_ML", 3), tmp_path / "weights.pdparams")
    with pytest.raises(
        UsageError, match=r"query_pos_embed.weight is \[3, 768\], the network's is \[4, 768\]|group_conv"
    ):
        load_pdparams(build_network("PP-LCNet_x1_0_ML", 4), tmp_path / "weights.pdparams")


class Evil:
    """What a pickle may carry."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("owned",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"w": Evil()}), "asks for posix.mkdir, which is no array"),
        (pickle.dumps({"w": np.array([Evil()], dtype=object)}), "asks for posix.mkdir"),
        (pickle.dumps({"w": np.array([None], dtype=object)}), "w is no array"),
        (pickle.dumps({"w": 3}), "w is no array"),
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
