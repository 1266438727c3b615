"""`SizedJob`: a fine-tuning whose open options have been chosen by the number of training images."""

from __future__ import annotations

import sys
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from mlcls_ray.errors import UsageError
from mlcls_ray.train.config import Augment, FinetuneJob, Share
from mlcls_ray.train.sizes import FEW_STEPS, RANDOM_START, describe, size_of

SMALL_BATCH = 16
"""The statistics of a batch norm over fewer images are too noisy to replace trained ones."""


class SizedAugment(Augment):
    """An augmentation without open options."""

    randaugment_n: NonNegativeInt
    randaugment_m: Annotated[int, Field(ge=0, le=10)]
    cutout: Share
    min_crop_area: Share


class SizedJob(FinetuneJob):
    """A fine-tuning without open options."""

    epochs: PositiveInt
    batch_size: PositiveInt
    freeze_fraction: Share
    freeze_batchnorm: bool
    learning_rate: PositiveFloat
    augment: SizedAugment


def size_job(job: FinetuneJob, images: int, is_trained: bool) -> SizedJob:
    """Choose the options that are null.

    Args:
        images: number of training images.
        is_trained: whether the network starts from trained weights, whose features are worth keeping.

    Raises:
        UsageError: there are more workers than images in a batch.
    """
    size = size_of(images)
    gentle = size if is_trained else RANDOM_START
    augment = {
        "randaugment_n": gentle.randaugment_n,
        "randaugment_m": gentle.randaugment_m,
        "cutout": gentle.cutout,
        "min_crop_area": gentle.min_crop_area,
    }
    if job.distill.local_weight:  # score maps belong to whole images
        augment |= {"randaugment_n": 0, "min_crop_area": 1.0}
    chosen = {
        "epochs": size.epochs,
        "batch_size": max(size.batch_size, job.workers),
        "learning_rate": gentle.learning_rate,
        "freeze_fraction": gentle.freeze_fraction,
    }
    values = {name: value for name, value in job.model_dump().items() if value is not None}
    values["augment"] = {**augment, **{name: value for name, value in values["augment"].items() if value is not None}}
    values = {**chosen, **values}
    if values["batch_size"] < job.workers:
        raise UsageError(
            f"batch_size {values['batch_size']} is less than workers {job.workers}: each worker needs an image"
        )
    values.setdefault("freeze_batchnorm", is_trained and values["batch_size"] < SMALL_BATCH)
    return SizedJob.model_validate(values)


def say_size(job: FinetuneJob, sized: SizedJob, images: int) -> None:
    """Print the options that were chosen, and a note where there are few steps."""
    names = [
        name
        for name in ("batch_size", "epochs", "learning_rate", "freeze_fraction", "freeze_batchnorm")
        if getattr(job, name) is None
    ]
    chosen = {name: getattr(sized, name) for name in names}
    chosen |= {
        f"augment.{name}": value
        for name, value in sized.augment.model_dump().items()
        if getattr(job.augment, name) is None
    }
    if chosen:
        print(f"{images:,} training images, so: {describe(chosen)}", file=sys.stderr)
    per_epoch = max(1, images // sized.batch_size)
    steps, rest = sized.epochs * per_epoch, images % sized.batch_size if images >= sized.batch_size else 0
    note = f", {rest} images left out of each epoch, others each time" if rest else ""
    print(f"{per_epoch:,} steps an epoch{note}; {steps:,} in all", file=sys.stderr)
    if steps < FEW_STEPS:
        print(f"{steps} steps are few: a smaller batch_size or more epochs help", file=sys.stderr)
