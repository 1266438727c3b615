"""Models that earlier versions exported from another structure are told apart, and go on with the same scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn

from mlcls_ray.config import LabelJob
from mlcls_ray.errors import UsageError
from mlcls_ray.job.check import check_job
from mlcls_ray.models.artifact import Model, load_model
from mlcls_ray.models.build import build_network
from mlcls_ray.models.convert.paddle import export_network, write_config
from mlcls_ray.models.heads import HEADS, WithSigmoid
from mlcls_ray.models.networks import network_spec
from mlcls_ray.models.outdated import adapted, find_outdated, outdated_note

LCNET = "PP-LCNet_x1_0_ML"
SIZE = 64


def as_before(network: nn.Layer) -> nn.Layer:
    """Give a PP-LCNet the structure that earlier versions built: without the factor before the head."""
    network.dropout = nn.Identity()
    return network


def exported(network: nn.Layer, folder: Path) -> Model:
    preprocess = network_spec(LCNET).preprocess.model_copy(update={"size": (SIZE, SIZE)})
    export_network(WithSigmoid(network), SIZE, folder)
    write_config(folder, LCNET, preprocess, ["a", "b", "c"], 0.5)
    return load_model(folder)


@pytest.fixture(scope="module")
def old_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return exported(as_before(build_network(network_spec(LCNET), 3, seed=2)), tmp_path_factory.mktemp("old"))


def test_an_old_export_is_told_apart_from_a_new_one(old_model: Model, tmp_path: Path) -> None:
    new_model = exported(build_network(network_spec(LCNET), 3, seed=2), tmp_path)
    assert find_outdated(new_model) is None
    assert outdated_note(new_model) is None
    assert find_outdated(old_model) is not None
    assert "is not PaddleClas's: it lacks the factor 0.8" in str(outdated_note(old_model))
    assert new_model.fingerprint != old_model.fingerprint


def test_a_job_says_so(old_model: Model, demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_job(LabelJob(inputs=(str(demo),), out=str(tmp_path / "out"), model=str(old_model.folder)))
    assert capsys.readouterr().err.count("is not PaddleClas's") == 1
    check_job(LabelJob(inputs=(str(demo),), out=str(tmp_path / "out"), model="starter"))
    assert "PaddleClas" not in capsys.readouterr().err


@pytest.mark.parametrize("head", HEADS)
def test_its_weights_give_the_same_logits_in_the_network_of_today(head: str, old_model: Model) -> None:
    old = as_before(build_network(network_spec(LCNET), 3, seed=2, head=head))
    weights = {name: tensor.numpy() for name, tensor in old.state_dict().items()}
    new = build_network(network_spec(LCNET), 3, seed=3, head=head)
    new.set_state_dict({name: paddle.to_tensor(value) for name, value in adapted(old_model, weights).items()})
    x = paddle.randn([2, 3, SIZE, SIZE])
    old.eval()
    new.eval()
    with paddle.no_grad():
        np.testing.assert_allclose(new(x).numpy(), old(x).numpy(), atol=1e-5)


def test_an_old_clip_is_refused_where_its_weights_are_needed(old_model: Model) -> None:
    """The program of any network without GELU stands for it: exporting CLIP takes half a minute."""
    clip = old_model.model_copy(update={"network": "CLIP_vit_base_patch16_448_ML"})
    with pytest.raises(
        UsageError, match="it has QuickGELU instead of GELU.* It still labels, but it cannot be trained"
    ):
        adapted(clip, {})


def test_other_networks_and_formats_are_left_alone(old_model: Model) -> None:
    weights = {"fc.fc.weight": np.ones((2, 3), np.float32)}
    for changes in ({"network": "ResNet50_ML"}, {"program": Path("inference.pdmodel")}):
        assert adapted(old_model.model_copy(update=changes), weights).keys() == weights.keys()
        assert find_outdated(old_model.model_copy(update=changes)) is None
