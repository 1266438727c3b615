"""What a fine-tuning is told. One frozen model for the command line, YAML and `jobs/finetune.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

Share = Annotated[float, Field(ge=0.0, le=1.0)]
RENAMED: dict[str, str] = {}


class Loss(BaseModel):
    """Asymmetric loss (Ridnik et al., arXiv 2009.14119); all zero is binary cross-entropy; with `margin` another one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gamma_negative: NonNegativeFloat = Field(default=4.0, description="How much easy negatives are played down")
    gamma_positive: NonNegativeFloat = Field(default=0.0, description="The same for positives")
    clip: Share = Field(default=0.05, description="Negatives below this score count nothing")
    margin: Annotated[float, Field(gt=0.0, lt=0.5)] | None = Field(
        default=None,
        description="For a teacher's scores: squared distance from their logits instead, scores kept so far from 0 and 1",
    )
    local: NonNegativeFloat = Field(
        default=0.0,
        description="Weight of what the local logits of the head pooled_local learn from train_maps.npy (uint8 [N, C, h, w] "
        "beside train.txt: the scores times 255 at each position of each image)",
    )


class Augment(BaseModel):
    """What is done to a training image, besides mirroring it half of the time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    operations: NonNegativeInt = Field(default=2, description="RandAugment: how many operations an image gets")
    magnitude: Annotated[int, Field(ge=0, le=10)] = Field(default=7, description="RandAugment: how strong, 0 to 10")
    cutout: Share = Field(default=0.3, description="Side of the square that is painted over, as a share of the image's")
    crop: Share = Field(default=0.7, description="Least share of the area that a random crop keeps; 1: no crop")


class FinetuneJob(BaseModel):
    """One fine-tuning. Flags override the file; the file overrides these defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path = Field(
        description="Folder with label.txt, train.txt and dev.txt in PaddleClas's multi-label format; "
        "or .json (COCO instances), .csv, .parquet (columns uri, labels)"
    )
    out: Path = Field(description="Folder for checkpoints, metrics and best_model/; the same folder resumes")
    network: str = Field(default="starter", description="starter, or one of PaddleX's six names")
    start: str | None = Field(
        default=None,
        description=".pdparams, .safetensors, or a model folder; None: the starter's own weights, or random ones",
    )
    head: Literal["pooled", "pooled_local", "ml_decoder"] | None = Field(
        default=None,
        description="pooled: average and maximum, then linear; pooled_local: each class's best place too; "
        "None: the network's usual one",
    )
    input_size: PositiveInt | None = Field(default=None, description="Side of the input; None: the network's usual one")
    device: str = Field(
        default="cpu", description="cpu, gpu:0, npu:0 …; with several workers gpu, npu … : one card each"
    )
    workers: PositiveInt = Field(
        default=1, description="Processes that share each batch, through Ray Train; their gradients are averaged"
    )

    epochs: PositiveInt = 20
    batch_size: PositiveInt = 16
    accumulate: PositiveInt = Field(
        default=1, description="Parts that a batch is computed in; their gradients are added"
    )
    frozen_epochs: NonNegativeInt = Field(default=1, description="First epochs in which only the head learns")
    frozen_statistics: bool = Field(
        default=False, description="Batch norms keep the statistics they came with: for small batches"
    )
    frozen_parts: Annotated[int, Field(ge=0, le=8)] = Field(
        default=0,
        description="Eighths of the backbone, from the front, that never learn; on a CPU each saves much of the time",
    )
    learning_rate: PositiveFloat = Field(default=1e-3, description="Of the head, at its peak")
    backbone_rate: Share = Field(default=0.1, description="The backbone's last layers' rate, as a share of it")
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        default=0.85, description="How the rate falls from one eighth of the backbone to the one before it"
    )
    warmup: Share = Field(
        default=0.05, description="Share of the steps in which the rate rises; then it falls as a cosine"
    )
    weight_decay: NonNegativeFloat = 1e-4
    clip_norm: PositiveFloat = Field(default=1.0, description="Largest norm of a step's gradients")
    ema: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        default=0.998, description="Of the averaged weights, which are what is evaluated and exported"
    )
    loss: Loss = Loss()
    augment: Augment = Augment()
    balance: Share = Field(
        default=0.0,
        description="0: each image once an epoch; 1: images of rare classes as much more often as they are rarer",
    )
    precision: Literal["fp32", "amp"] = Field(default="fp32", description="amp: half precision where the device has it")
    patience: PositiveInt | None = Field(
        default=None, description="Epochs without a better dev mAP after which it ends"
    )
    seed: int = 0
    keep_last: PositiveInt = Field(default=2, description="Checkpoints that are kept besides the best")
