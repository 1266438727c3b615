"""`mlcls export` and `mlcls quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from mlcls_ray.errors import UsageError


def export(
    model: str,
    *,
    out: Path,
    format: Literal["paddle", "onnx", "openvino", "paddle-lite"] = "paddle",
    random_weights: Annotated[bool, Parameter(negative=())] = False,
    seed: int = 0,
    images: list[str] | None = None,
    network: str | None = None,
    label_list: Path | None = None,
) -> None:
    """Write a model in another format, and compare its scores with Paddle's on real images.

    Parameters
    ----------
    model
        A name (see `mlcls models`), a model folder, or trained weights (.pdparams).
    out
        A new folder.
    format
        paddle (a folder that PaddleX opens), onnx, openvino, or paddle-lite (docs/edge.md).
    random_weights
        An untrained network of that name, for benchmarks and tests.
    seed
        Of the random weights.
    images
        Images or folders to compare the scores on. Default: the demo photographs.
    network
        The network that .pdparams weights are of. Default: what their file's name begins with.
    label_list
        The classes of .pdparams weights, one a line. Default: COCO's 80.
    """
    from mlcls_ray.engines.export import export_checkpoint, export_model, export_untrained
    from mlcls_ray.predict.inputs import read_inputs

    decoded = None
    if images is not None:
        decoded = [page.image for page in read_inputs(images) if page.image is not None]

    if random_weights or model.endswith(".pdparams"):
        folder = out / "paddle" if format != "paddle" else out
        if random_weights:
            export_untrained(model, folder, seed)
            told = f"{model} with random weights (seed {seed})"
        else:
            checked = export_checkpoint(Path(model), folder, network, label_list, decoded)
            told = f"the weights of {model}; largest difference of a score {checked.difference:.1e}, over {checked.images} images"
        if format == "paddle":
            print(f"{out}: {told}")
            return
        model = str(folder)
        out = out / format
    done = export_model(model, format, out, decoded)
    print(f"{done.folder}: largest difference of a score to Paddle's {done.difference:.1e}, over {done.images} images")


def quantize(model: str, *, data: Path, out: Path, max_loss: float = 1.0) -> None:
    """Make an int8 version of a model for x86 CPUs, and keep it only where its labels stay about as good.

    It is used where it is asked for: `mlcls label --model OUT --engine openvino --precision int8`.

    Parameters
    ----------
    model
        A name (see `mlcls models`) or a model folder.
    data
        A folder with train.txt (calibrates) and dev.txt (judges), in PaddleClas's multi-label format.
    out
        A new folder.
    max_loss
        Points of mAP that int8 may cost.
    """
    from mlcls_ray.datasets.formats import read_dataset
    from mlcls_ray.engines.quantize import quantize_model
    from mlcls_ray.models.cache import open_model

    opened = open_model(model)
    class_num = len(opened.vocabulary)
    for name in ("train.txt", "dev.txt"):
        if not (data / name).is_file():
            raise UsageError(f"--data: '{data}' has no {name}")
    calibration, validation = (read_dataset(data / name, class_num) for name in ("train.txt", "dev.txt"))
    done = quantize_model(opened, calibration.paths, validation.paths, validation.targets, out, max_loss)
    print(f"{done.folder}: mAP {done.after:.2f} in int8, {done.before:.2f} in fp32, over {done.images} images")
