"""What is refused before Ray starts: a device that cannot be used, and a model that the device's engine cannot have."""

from __future__ import annotations

import shutil
from pathlib import Path

import paddle
import pytest
from benchmarks.tiny_network import TINY, TinyBackbone
from paddle import nn

from mlcls_ray.config import LabelJob
from mlcls_ray.engines.nvidia import read_driver
from mlcls_ray.errors import UsageError
from mlcls_ray.job.check import CheckedJob, check_before_ray, check_job
from mlcls_ray.job.cluster import starts_ray
from mlcls_ray.models.convert.paddle import export_network
from mlcls_ray.models.heads import LogitClassifier, PooledLinearHead, WithSigmoid
from tests.conftest import TINY_VOCABULARY, run_cli


class WithoutOnnx(TinyBackbone):
    """A backbone with an operator that ONNX does not have."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        features = super().forward(x)
        return paddle.real(paddle.fft.fft(paddle.cast(features, "complex64")))


def checked(model: Path, out: Path, images: Path, device: str = "gpu", engine: str = "auto") -> CheckedJob:
    return check_job(LabelJob(inputs=(str(images),), out=str(out), model=str(model), device=device, engine=engine))


@pytest.fixture(scope="module")
def unconvertible(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unconvertible") / "model"
    shutil.copytree(tiny_folder, folder)
    head: nn.Layer = PooledLinearHead(TINY.channels, len(TINY_VOCABULARY))
    export_network(WithSigmoid(LogitClassifier(WithoutOnnx(), head)), 32, folder)
    return folder


def test_a_model_that_cannot_be_converted(unconvertible: Path, folder_of_images: Path, tmp_path: Path) -> None:
    """Wherever the device is: the workers would convert the same files."""
    with pytest.raises(UsageError) as refused:
        check_before_ray(checked(unconvertible, tmp_path / "out", folder_of_images), is_here=False)
    message = str(refused.value)
    assert "cannot convert it" in message
    assert message.endswith("; use --device cpu --engine paddle")
    assert "\n" not in message
    check_before_ray(checked(unconvertible, tmp_path / "out", folder_of_images, engine="paddle"), is_here=False)
    check_before_ray(checked(unconvertible, tmp_path / "out", folder_of_images, device="cpu"), is_here=True)


@pytest.mark.skipif(not read_driver().error, reason="this machine has an NVIDIA driver")
def test_a_device_that_is_not_here(tiny_folder: Path, folder_of_images: Path, tmp_path: Path) -> None:
    job = checked(tiny_folder, tmp_path / "out", folder_of_images)
    with pytest.raises(UsageError, match="device 'gpu': no NVIDIA driver"):
        check_before_ray(job, is_here=True)
    check_before_ray(job, is_here=False)  # a driver machine without a card


@pytest.mark.skipif(not read_driver().error, reason="this machine has an NVIDIA driver")
@pytest.mark.parametrize("command", ["label", "estimate", "predict"])
def test_every_command_refuses_it(command: str, demo: Path, tmp_path: Path) -> None:
    words = (
        ["predict", "--input", demo / "cat.jpg"] if command == "predict" else [command, demo, "--out", tmp_path / "out"]
    )
    done = run_cli(*words, "--device", "gpu", check=2, env={"RAY_ADDRESS": ""})
    assert done.stderr.startswith("mlcls: device 'gpu': no NVIDIA driver on this machine; install NVIDIA's driver")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out" / "runs").exists()


def test_a_cluster_is_no_ray_of_ours() -> None:
    assert not starts_ray("10.0.0.5:6379")
