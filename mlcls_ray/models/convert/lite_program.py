"""A program for a second Python, with Paddle 2.6 and Paddle Lite: `lite_program.py JOB.json`. See `lite`.

Paddle Lite reads the program format that Paddle 3 no longer writes. The older Paddle builds the same networks.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
from paddle import nn

from mlcls_ray.models.heads import WithSigmoid
from mlcls_ray.models.networks import network_spec

TARGETS = {"device": "arm", "here": "x86"}


def main() -> None:
    """Build the network, load its weights, export it for the device and for this machine, and score the tensors on this machine."""
    job = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(job["folder"])
    with np.load(folder / "weights.npz") as weights:
        network = network_spec(job["network"]).build(job["class_num"])
        network.set_state_dict({name: paddle.to_tensor(weights[name]) for name in weights.files})
    legacy = export(WithSigmoid(network), job["input_size"], folder / "legacy")
    optimizer = Path(sys.executable).parent / "paddle_lite_opt"
    for name, target in TARGETS.items():
        files = [
            f"--model_file={legacy}.pdmodel",
            f"--param_file={legacy}.pdiparams",
            f"--optimize_out={folder / name}",
        ]
        subprocess.run([optimizer, *files, f"--valid_targets={target}"], check=True)  # noqa: S603
    np.save(folder / "scores.npy", score(folder / "here.nb", np.load(folder / "tensors.npy")))


def export(network: nn.Layer, input_size: int, path: Path) -> Path:
    """Export in the old format, for one image at a time: an edge device has no batches."""
    network.eval()
    specification = [paddle.static.InputSpec([1, 3, input_size, input_size], "float32", "x")]
    paddle.jit.save(paddle.jit.to_static(network, input_spec=specification), str(path))
    return path


def score(path: Path, tensors: np.ndarray) -> np.ndarray:
    """Score tensors float32 [N, 3, S, S] one by one: [N, C]."""
    from paddlelite.lite import MobileConfig, create_paddle_predictor

    config = MobileConfig()
    config.set_model_from_file(str(path))
    predictor = create_paddle_predictor(config)
    scores = []
    for tensor in tensors:
        predictor.get_input(0).from_numpy(tensor[None])
        predictor.run()
        scores.append(predictor.get_output(0).numpy()[0].copy())
    return np.stack(scores)


if __name__ == "__main__":
    main()
