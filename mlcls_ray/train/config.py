"""`FinetuneJob`: the options of a fine-tuning. One frozen model for the command line, YAML and `jobs/finetune.py`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from mlcls_ray.devices import Device
from mlcls_ray.field_types import ParsedDevice
from mlcls_ray.registry import NETWORKS
from mlcls_ray.train.sizes import by_size

Share = Annotated[float, Field(ge=0.0, le=1.0)]
ModelName = Annotated[str, Field(pattern=r"^[^/\\\s.][^/\\\x00-\x1f]*$", max_length=100)]
"""The name of a model is the name of a folder too."""

if TYPE_CHECKING:
    NetworkName = str
else:
    NetworkName = Literal[tuple(NETWORKS)]

RENAMED: dict[str, str] = {
    "start": "init_from",
    "accumulate": "grad_accumulation_steps",
    "frozen_epochs": "head_only_epochs",
    "frozen_statistics": "freeze_batchnorm",
    "frozen_parts": "freeze_fraction (a share from 0 to 1: 6 parts of 8 are 0.75)",
    "backbone_rate": "backbone_lr_scale",
    "warmup": "warmup_ratio",
    "clip_norm": "grad_clip_norm",
    "ema": "ema_decay",
    "balance": "class_balance_power",
    "patience": "early_stopping_patience",
    "loss.margin": "distill.logit_clip",
    "loss.local": "distill.local_weight",
    "augment.operations": "augment.randaugment_n",
    "augment.magnitude": "augment.randaugment_m",
    "augment.crop": "augment.min_crop_area",
}
"""Fields that had another name before 0.1.0, with their new names; messages name them."""


class Loss(BaseModel):
    """The asymmetric loss (Ridnik et al., arXiv 2009.14119). With all three values 0 it is binary cross-entropy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gamma_negative: NonNegativeFloat = Field(
        default=4.0, description="Focusing exponent for negatives: larger values reduce the weight of easy negatives."
    )
    gamma_positive: NonNegativeFloat = Field(default=0.0, description="Focusing exponent for positives.")
    clip: Share = Field(default=0.05, description="Negatives with a score below this value add nothing to the loss.")


class Distill(BaseModel):
    """Distillation: learn from a teacher's scores (soft targets), and from its scores at each position."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    logit_clip: Annotated[float, Field(gt=0.0, lt=0.5)] | None = Field(
        default=None,
        description="Replaces the loss by the squared distance between the logits of the network and of the targets; the "
        "targets are clipped to [logit_clip, 1 - logit_clip] first. null: the asymmetric loss.",
    )
    local_weight: NonNegativeFloat = Field(
        default=0.0,
        description="Weight of an additional loss at each position, for the head pooled_local. Needs train_maps.npy beside "
        "train.txt: the teacher's scores times 255 at each position of each image, uint8 [N, C, h, w].",
    )


class Augment(BaseModel):
    """Augmentation of training images. Besides these, half of the images are mirrored. null: chosen by the number of training images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    randaugment_n: NonNegativeInt | None = Field(
        default=None, description=f"RandAugment: number of operations for each image; null: {by_size('randaugment_n')}."
    )
    randaugment_m: Annotated[int, Field(ge=0, le=10)] | None = Field(
        default=None, description=f"RandAugment: strength of the operations, 0 to 10; null: {by_size('randaugment_m')}."
    )
    cutout: Share | None = Field(
        default=None,
        description=f"Side of a square that is painted grey, as a share of the image's side; null: {by_size('cutout')}.",
    )
    min_crop_area: Share | None = Field(
        default=None,
        description="Smallest share of the image's area that a random crop keeps; 1: no crop; null: "
        f"{by_size('min_crop_area')}.",
    )


class FinetuneJob(BaseModel):
    """One fine-tuning. Flags override the file; the file overrides these defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path = Field(
        description="Folder with label.txt, train.txt and dev.txt in PaddleClas's multi-label format; or with .json "
        "(COCO instances), .csv or .parquet files (columns uri and labels) instead of .txt."
    )
    out: Path = Field(
        description="Folder for checkpoints, metrics.jsonl, curves.png and best_model/; the same folder resumes."
    )
    name: ModelName | None = Field(
        default=None,
        description="The model's name in label tables, reports and the outputs of several models; null: the name of the folder `out`.",
    )
    network: NetworkName = Field(default="starter", description="Network to train.")
    init_from: str | None = Field(
        default=None,
        description="Initial weights: a .pdparams or .safetensors file, or a model folder; null: the starter's own weights, "
        "or random weights for other networks.",
    )
    head: Literal["pooled", "pooled_local", "ml_decoder"] | None = Field(
        default=None,
        description="pooled: average and maximum pooling, then a linear layer; pooled_local: adds the best position of each "
        "class; ml_decoder: ML-Decoder; null: the network's usual head.",
    )
    input_size: PositiveInt | None = Field(
        default=None, description="Side of the input in pixels; null: the network's usual size."
    )
    device: ParsedDevice = Field(
        default=Device("cpu"), description="cpu, gpu:0, npu:0 …; with several workers gpu, npu …: each gets one device."
    )
    workers: PositiveInt = Field(
        default=1, description="Processes that train together through Ray Train; each takes a share of every batch."
    )

    epochs: PositiveInt | None = Field(
        default=None, description=f"Number of passes over the training images; null: {by_size('epochs')}."
    )
    batch_size: PositiveInt | None = Field(
        default=None, description=f"Images in a training step, over all workers; null: {by_size('batch_size')}."
    )
    grad_accumulation_steps: PositiveInt = Field(
        default=1, description="Compute each batch in so many parts and add up their gradients, to save memory."
    )
    fit_head: bool = Field(
        default=True,
        description="Before the first epoch, fit the head in closed form on the features of the frozen network, if it starts from trained "
        "weights. Classes of the initial weights are taken over by their names first.",
    )
    head_only_epochs: NonNegativeInt = Field(
        default=1, description="Number of epochs at the beginning in which only the head is trained."
    )
    freeze_fraction: Share | None = Field(
        default=None,
        description="Share of the backbone, from the input on, that is never trained, rounded to eighths; larger values "
        f"train faster, on a CPU several times; null: {by_size('freeze_fraction')}; 0 where the network starts from random weights.",
    )
    freeze_batchnorm: bool | None = Field(
        default=None,
        description="Keep the statistics of all batch norms; null: where batches have fewer than 16 images and the network starts from "
        "trained weights.",
    )
    learning_rate: PositiveFloat | None = Field(
        default=None,
        description=f"Peak learning rate of the head; null: {by_size('learning_rate')}; 0.001 where the head starts from random weights.",
    )
    backbone_lr_scale: Share = Field(
        default=0.1, description="Learning rate of the backbone's last layers, as a share of the head's."
    )
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        default=0.85,
        description="Factor on the learning rate from each eighth of the backbone to the eighth before it.",
    )
    warmup_ratio: Share = Field(
        default=0.05, description="Share of the steps in which the learning rate rises; after it, it falls as a cosine."
    )
    weight_decay: NonNegativeFloat = Field(
        default=1e-4, description="Weight decay of AdamW; biases and norms are not decayed."
    )
    grad_clip_norm: PositiveFloat = Field(default=1.0, description="Gradients are scaled down to at most this norm.")
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        default=0.998,
        description="Decay of the exponential moving average of the weights; the average is evaluated and exported.",
    )
    loss: Loss = Loss()
    distill: Distill = Distill()
    augment: Augment = Augment()
    class_balance_power: Share = Field(
        default=0.0,
        description="Sampling of rare classes: each image is drawn with a weight of (rarity of its rarest class) to this "
        "power; 0: every image once an epoch.",
    )
    precision: Literal["fp32", "amp"] = Field(
        default="fp32", description="amp: mixed precision, where the device supports it."
    )
    early_stopping_patience: PositiveInt | None = Field(
        default=None, description="Stop after so many epochs without a better dev mAP; null: train all epochs."
    )
    seed: int = Field(default=0, description="The same seed trains the same model.")
    keep_last: PositiveInt = Field(default=2, description="Number of checkpoints to keep besides the best one.")
