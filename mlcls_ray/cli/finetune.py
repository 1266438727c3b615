"""`mlcls finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter


def finetune(
    *,
    data: Path | None = None,
    out: Path | None = None,
    config: Path | None = None,
    network: str | None = None,
    start: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    frozen_parts: int | None = None,
    learning_rate: float | None = None,
    input_size: int | None = None,
    head: Literal["pooled", "pooled_local", "ml_decoder"] | None = None,
    device: str | None = None,
    workers: int | None = None,
    seed: int | None = None,
    print_config: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Fine-tune a network on your own classes and images, and export the best epoch for `mlcls label --model OUT/best_model/inference`.

    The same command goes on where it stopped. Check the data first: `mlcls dataset check`.

    Parameters
    ----------
    data
        Folder with label.txt, train.txt and dev.txt (PaddleClas's multi-label format); or .json (COCO), .csv, .parquet.
    out
        Folder for checkpoints, metrics.jsonl, curves.png and best_model/.
    config
        A YAML file with the same fields and more (see --print-config). Flags override it.
    network
        starter, or one of PaddleX's six names. Default: starter.
    start
        What it starts from: .pdparams, .safetensors, or a model folder. Default: the starter's own weights.
    epochs
        How often each image is seen.
    batch_size
        Images per step.
    frozen_parts
        Eighths of the backbone, from the front, that never learn: 6 make a CPU several times as fast.
    learning_rate
        Of the head at its peak; the backbone's is a tenth of it.
    input_size
        Side of the input.
    head
        pooled (average and maximum, then linear), pooled_local (each class's best place too), or ml_decoder. Default: the network's usual.
    device
        cpu, gpu:0, npu:0 …; with several workers gpu, npu …, one card each.
    workers
        Processes that share each batch, on one machine or a cluster.
    seed
        The same seed trains the same model.
    print_config
        Print the whole job as YAML, and do nothing.
    """
    import yaml

    from mlcls_ray.config import load_config
    from mlcls_ray.train.config import FinetuneJob

    given: dict[str, Any] = {
        "data": data,
        "out": out,
        "network": network,
        "start": start,
        "epochs": epochs,
        "batch_size": batch_size,
        "frozen_parts": frozen_parts,
        "learning_rate": learning_rate,
        "input_size": input_size,
        "head": head,
        "device": device,
        "workers": workers,
        "seed": seed,
    }
    job = load_config(FinetuneJob, config, given)
    if print_config:
        print(yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False), end="")
        return
    from mlcls_ray.train.finetune import finetune as train

    done = train(job)
    print(f"dev mAP {100 * done.mean_average_precision:.2f} at epoch {done.epoch}, {done.steps:,} steps")
    print(f"model: {done.model}")
