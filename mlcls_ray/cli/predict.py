"""Commands with PaddleX's names and flags: `predict` and `config`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from mlcls_ray.cli.flags import NO_FLAGS, flags
from mlcls_ray.config import LabelJob
from mlcls_ray.errors import RunError, UsageError
from mlcls_ray.terminal import showing_steps

SHARED = ("model", "threshold", "map", "device", "engine", "precision")
"""The options that predict has in common with a labeling job."""
if TYPE_CHECKING:
    PredictFlags = Mapping[str, Any]
else:
    PredictFlags = Annotated[flags(LabelJob, SHARED), Parameter(name="*")]


def predict(
    *images: str,
    input: Annotated[list[str] | None, Parameter(name=["--input", "-i"], negative=(), consume_multiple=True)] = None,
    pipeline: str = "multi_label_image_classification",
    options: PredictFlags = NO_FLAGS,
    save_path: str = "output",
    batch_size: int | None = None,
    use_hpip: Annotated[bool, Parameter(negative=())] = False,
    on_error: Literal["raise", "skip", "return"] = "return",
) -> None:
    """Label images on this machine and print each result, as `paddlex --pipeline …` does with the same flags.

    Flags override the pipeline's YAML file. For more than some thousand images use `mlcls label`.

    Parameters
    ----------
    images
        Images, folders (searched recursively), globs, PDFs, or http(s):// URLs.
    input
        The same, by PaddleX's flag.
    pipeline
        PaddleX's name of the pipeline, or a YAML file in either of its formats.
    save_path
        Folder for annotated images and JSON files, named after the inputs.
    batch_size
        Images per forward pass. Default: 1.
    use_hpip
        PaddleX's flag for --engine auto. Without it, --engine and a YAML file, the network runs on Paddle in fp32.
    on_error
        If an input cannot be read: stop (raise), leave it out (skip), or print the reason and go on (return).
    """
    inputs = [*images, *(input or [])]
    if not inputs:
        raise UsageError("no input: give images, folders, globs or URLs, by themselves or with --input")
    with showing_steps(on_terminal_only=True) as steps:
        steps.say("opening the model")
        from mlcls_ray.labels.thresholds import parse_thresholds
        from mlcls_ray.predict.pipeline import create_pipeline

        threshold = options.get("threshold")
        loaded = create_pipeline(
            pipeline,
            model=options.get("model"),
            device=options.get("device"),
            engine=options.get("engine"),
            precision=options.get("precision"),
            threshold=parse_thresholds(threshold) if threshold else None,
            map=options.get("map"),
            batch_size=batch_size,
            use_hpip=use_hpip or None,
        )
    failed = 0
    for result in loaded.predict(inputs, on_error=on_error):
        result.print()
        if result.error is not None:
            failed += 1
            continue
        result.save_to_img(save_path)
        result.save_to_json(save_path)
    if failed:
        raise RunError(f"{failed} input(s) could not be labeled; the reasons are printed above")


def config(name: str = "multi_label_image_classification", *, config_save_path: Path = Path()) -> None:
    """Write a pipeline's YAML file, to be edited and passed to `mlcls predict --pipeline FILE`.

    Parameters
    ----------
    name
        Name of the pipeline.
    config_save_path
        Folder, or a file that ends in .yaml. An existing file is not replaced.
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
