"""The commands that take PaddleX's words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from mlcls_ray.errors import RunError, UsageError


def predict(
    *,
    input: Annotated[str, Parameter(name=["--input", "-i"])],
    pipeline: str = "multi_label_image_classification",
    model: str | None = None,
    device: str | None = None,
    save_path: str | None = None,
    threshold: list[str] | None = None,
    batch_size: int | None = None,
    use_hpip: Annotated[bool, Parameter(negative=())] = False,
    on_error: Literal["raise", "skip", "return"] = "return",
) -> None:
    """Label images on this machine and print each result: `paddlex --pipeline …` with the same flags.

    For more than some thousand images use `mlcls label`.

    Parameters
    ----------
    input
        An image, a folder (searched recursively), a PDF, or an http(s):// URL.
    pipeline
        PaddleX's name of the pipeline, or a YAML file in either of its formats.
    model
        A name (see `mlcls models`) or a model folder. Default: what the YAML file says, else the starter model.
    device
        cpu, gpu:0, npu:0 … Default: what the YAML file says, else cpu.
    save_path
        Folder for annotated images and JSON files, named after the inputs. Default: `output`.
    threshold
        A number, class=number pairs, or both. Default: the model's own.
    batch_size
        Images per forward pass.
    use_hpip
        Take the fastest engine of this machine that gives Paddle's labels; tried once, for some seconds.
    on_error
        What happens with an input that cannot be read: stop there (raise), leave it out (skip), or print why (return).
    """
    from mlcls_ray.labels.thresholds import parse_thresholds
    from mlcls_ray.predict.pipeline import create_pipeline

    failed = 0
    parsed = parse_thresholds(threshold) if threshold else None
    loaded = create_pipeline(
        pipeline, model=model, device=device, batch_size=batch_size, threshold=parsed, use_hpip=use_hpip
    )
    for result in loaded.predict(input, on_error=on_error):
        result.print()
        if result.error is not None:
            failed += 1
            continue
        result.save_to_img(save_path or "output")
        result.save_to_json(save_path or "output")
    if failed:
        raise RunError(f"{failed} input(s) could not be labeled; the reasons stand above")


def config(name: str = "multi_label_image_classification", *, config_save_path: Path = Path()) -> None:
    """Write a pipeline's YAML file, to be edited and given to `mlcls predict --pipeline FILE`.

    Parameters
    ----------
    name
        The pipeline's name.
    config_save_path
        A folder, or a file that ends in .yaml. An existing file is not replaced.
    """
    from mlcls_ray.predict.paddlex_config import TEMPLATE, read_pipeline

    read_pipeline(name)
    target = config_save_path
    if target.suffix not in (".yaml", ".yml"):
        target = target / f"{name}.yaml"
    if target.exists():
        raise UsageError(f"'{target}' exists already: remove it, or give another --config-save-path")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(TEMPLATE, encoding="utf-8")
    print(target)
