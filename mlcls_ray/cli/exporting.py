"""`mlcls export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def export(
    model: str,
    *,
    out: Path,
    format: Literal["paddle", "onnx", "openvino"] = "paddle",
    random_weights: Annotated[bool, Parameter(negative=())] = False,
    seed: int = 0,
    images: list[str] | None = None,
) -> None:
    """Write a model in another format, and compare its scores with Paddle's on real images.

    Parameters
    ----------
    model
        A name (see `mlcls models`) or a model folder.
    out
        A new folder.
    format
        paddle (a folder that PaddleX opens), onnx or openvino; the last two need the extra `export`.
    random_weights
        An untrained network of that name, for benchmarks and tests.
    seed
        Of the random weights.
    images
        Images or folders to compare the scores on. Default: the demo photographs.
    """
    from mlcls_ray.exporting import export_model, export_untrained

    if random_weights:
        folder = out / "untrained" if format != "paddle" else out
        export_untrained(model, folder, seed)
        if format == "paddle":
            print(f"{out}: {model} with random weights (seed {seed})")
            return
        model = str(folder)
        out = out / format
    done = export_model(model, format, out, images or ())
    print(f"{done.folder}: largest difference of a score to Paddle's {done.difference:.1e}, over {done.images} images")
