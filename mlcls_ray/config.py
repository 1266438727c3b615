"""`LabelJob` and the groups of options that it is made of: each option's name, type, default, bounds and description, once.

The command line (`cli/flags.py`), the commented YAML (`config_file.py`) and docs/reference/configuration.md are derived from these models.
To add an option, add a field to a group here and use it where it takes effect.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, field_validator, model_validator

from mlcls_ray.devices import DEVICE_KINDS, Device
from mlcls_ray.errors import Status
from mlcls_ray.field_types import (
    BatchSizeOrAuto,
    Duration,
    EngineOrAuto,
    FailureLimit,
    ParsedDevice,
    PrecisionOrAuto,
    RunId,
    TableFormat,
)
from mlcls_ray.images import MAX_PIXELS as MAX_PIXELS
from mlcls_ray.labels.label_map import LabelMap as LabelMap
from mlcls_ray.labels.thresholds import Thresholds as Thresholds
from mlcls_ray.registry import CARD_ENGINES, EMBEDDING_ENGINES

RENAMED: Mapping[str, str] = {"workers_per_card": "workers_per_device"}
"""Old names of LabelJob's fields, and today's; the old ones are refused by a message that names the new one."""


class Options(BaseModel):
    """A group of options: frozen, and without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class InputOptions(Options):
    """The images to label."""

    inputs: tuple[str, ...] = Field(
        default=(),
        description="Folders (searched recursively), image files, glob patterns, lists of URIs (.txt, .csv, .jsonl, .parquet), archives "
        "(.tar, .zip), s3:// prefixes, and http(s):// URLs.",
    )
    uri_column: str | None = Field(
        default=None,
        description="Column that holds the URIs in a list with columns. "
        "Default: the first that exists of uri, url, path, image, filename, file.",
    )
    pages: Literal["first", "all"] = Field(
        default="first",
        description="Pages to label of TIFF and PDF files: the first, or each one as a row of its own (`scan.tif#page=2`).",
    )
    limit: PositiveInt | None = Field(default=None, description="Label only the first N inputs. Default: all of them.")
    incremental: bool = Field(
        default=False,
        description="Label only the inputs that are new or changed since they were labeled into this output (by ETag, else by size and "
        "modification time), and all of them if the model changed. If nothing is new, nothing is written and the exit code is 0.",
    )
    retry: tuple[Status, ...] = Field(
        default=(),
        description="Label only the inputs whose newest row in the output has one of these statuses. `mlcls retry` sets this.",
    )
    dedupe: bool = Field(
        default=False,
        description="Score identical files once per run. Files of equal size are read twice to compare their content.",
    )


class ModelOptions(Options):
    """The model, and the scores from which a class becomes a label."""

    model: str = Field(
        default="starter",
        description="A model's name (`mlcls models` lists them), a folder in Paddle's inference format, or the URI of one. "
        "The starter model ships with the package.",
    )
    threshold: Thresholds = Field(
        default=Thresholds(),
        description="A class becomes a label where its score is greater than this: one number, class=number pairs as in "
        "0.5,person=0.7, or a YAML or JSON file. Default: the model's own thresholds.",
    )
    map: LabelMap = Field(
        default=LabelMap(),
        description="A YAML or JSON file with other names for labels, as in car: vehicle. Labels with one new name are merged, and null "
        "drops a label. It is applied after the thresholds. Default: the model's own names.",
    )


class EngineOptions(Options):
    """The device and the engine that execute the network."""

    device: ParsedDevice = Field(
        default=Device("cpu"),
        description="Device that computes the scores. A job uses all devices of the kind, or those of the indices, as in gpu:0,1. "
        f"Kinds: {', '.join(DEVICE_KINDS)}.",
    )
    engine: EngineOrAuto = Field(
        default="auto",
        description="Inference engine that executes the network. auto: the fastest one on this machine that gives Paddle's labels; it is "
        "measured once and remembered. On gpu that is onnxruntime; paddle and tensorrt are experimental there, and never tried by auto.",
    )
    precision: PrecisionOrAuto = Field(
        default="auto",
        description="Number format that the network computes in. bf16 (CPUs that support it), tf32 and fp16 (NVIDIA GPUs) are faster and "
        "a little less exact; int8 needs a model from `mlcls quantize`. auto: measured together with the engine, never int8.",
    )


class ScoringOptions(Options):
    """Decoding and scoring in the workers."""

    models: tuple[str, ...] = Field(
        default=(),
        description="Several models instead of one: each image is read and decoded once, and each model has its own output, OUT/NAME.",
    )
    workers_per_device: PositiveInt = Field(
        default=1, description="Number of scoring workers that share one accelerator."
    )
    batch_size: BatchSizeOrAuto = Field(
        default="auto",
        description="Images per forward pass. auto: the fastest size, measured together with the engine.",
    )
    decode: Literal["auto", "exact"] = Field(
        default="auto",
        description="auto: decode a JPEG that is much larger than the model's input at a fraction of its size. "
        "exact: always at full size, and on a CPU.",
    )


class OutputOptions(Options):
    """The files that a run writes."""

    out: str = Field(
        default="", description="Output folder, local or s3://. Each run is added to it, as runs/RUN_ID. Required."
    )
    run_id: RunId | None = Field(
        default=None,
        description="Name of the run. The same name resumes it: rows that are written already are not scored again. "
        "Default: the run that the same command left unfinished, else a new run named after the time.",
    )
    all_scores: Literal["all", "top_k", "none"] = Field(
        default="all",
        description="Scores that the table keeps besides those of the labels. With all, `mlcls relabel` can apply other thresholds later.",
    )
    top_k: PositiveInt = Field(default=10, description="Number of highest scores to keep with all_scores: top_k.")
    embeddings: bool = Field(
        default=False,
        description="Also write a column with the network's pooled features, for `mlcls search --like`. "
        f"Engines: {', '.join(EMBEDDING_ENGINES)}.",
    )
    format: TableFormat = Field(
        default="parquet",
        description="Also write a table in this format, in OUT/FORMAT; each run is one commit. parquet: the Parquet files only.",
    )
    annotate: Literal["none", "all"] | PositiveInt = Field(
        default="none", description="Annotated images to write: none, all, or a number (a sample of that size)."
    )
    rows_per_fragment: PositiveInt | None = Field(
        default=None,
        description="Rows per output file. Default: as many as take fragment_seconds at the estimated rate.",
    )
    fragment_seconds: PositiveFloat = Field(
        default=60.0,
        description="Seconds of one worker's work that an output file holds. A worker that is killed loses at most this much work.",
    )


class ImageLimits(Options):
    """Limits of time and size for one image."""

    timeout_s: PositiveFloat = Field(
        default=30.0, description="Seconds that one download may take. A slower one gets the status `timeout`."
    )
    max_pixels: Annotated[int, Field(gt=0, le=MAX_PIXELS)] = Field(
        default=MAX_PIXELS, description="Pixels that an image may have. A larger one gets the status `too_large`."
    )


class S3Options(Options):
    """Access to s3://. Options that are not set come from AWS_* variables, ~/.aws or the instance's role."""

    endpoint_url: str | None = Field(default=None, description="URL of an S3-compatible server. Default: AWS.")
    region: str | None = Field(
        default=None, description="Region of the bucket, such as eu-central-1. Default: from the environment."
    )
    profile: str | None = Field(default=None, description="Profile in ~/.aws. Default: from the environment.")
    anonymous: bool = Field(default=False, description="Send no credentials, for public buckets.")
    timeout_s: PositiveFloat = Field(
        default=60.0, description="Seconds without an answer after which a request is sent again."
    )


class FetchOptions(ImageLimits):
    """Reading of image bytes."""

    fetch_threads: PositiveInt = Field(default=8, description="Number of images that a worker reads at once.")
    fetch_attempts: PositiveInt = Field(
        default=4,
        description="Number of times that an image is requested in all, if the failure is temporary (a timeout, HTTP 5xx or 429).",
    )
    max_bytes: PositiveInt = Field(
        default=100_000_000, description="Bytes that a file may have. A larger one gets the status `too_large`."
    )
    s3: S3Options = Field(default=S3Options(), description="Access to s3://.")


class RayOptions(Options):
    """The Ray cluster to run on."""

    ray_address: str | None = Field(
        default=None,
        description="Address of a Ray cluster. Default: the variable RAY_ADDRESS, else a Ray that is started on this machine.",
    )
    wait_for_resources: Duration = Field(
        default="15m",
        description="How long to wait for CPUs and devices that an autoscaler has to start, or that other jobs hold: a number and s, m "
        "or h. An autoscaler is asked for as many devices (or CPUs) as `workers` says, at least one.",
    )

    @property
    def wait_s(self) -> float:
        """`wait_for_resources` in seconds."""
        return float(self.wait_for_resources[:-1]) * {"s": 1, "m": 60, "h": 3600}[self.wait_for_resources[-1]]


class RunOptions(Options):
    """Division of the work, and the limit of failures."""

    placement: Literal["auto", "fused", "split", "card"] = Field(
        default="auto",
        description="Where images are decoded. fused: in the process that scores them. split: in another one, on a CPU. card: on the "
        "NVIDIA card that scores them (JPEGs; the rest on CPUs). "
        "auto: fused on CPUs, card where a card's JPEG decoder answers, else split.",
    )
    workers: PositiveInt | None = Field(
        default=None, description="Number of scoring workers. Default: as many as the machine or cluster has room for."
    )
    block_rows: PositiveInt | None = Field(
        default=None, description="Rows per Ray task. Default: derived from the number of inputs."
    )
    max_failures: FailureLimit | None = Field(
        default=None,
        description="Stop the run early, with exit code 3, when more inputs fail than this: a number, or a share such as 1%. "
        "Default: never.",
    )


class LabelJob(
    RunOptions, RayOptions, FetchOptions, OutputOptions, ScoringOptions, EngineOptions, ModelOptions, InputOptions
):
    """One labeling job."""

    @field_validator("inputs", mode="before")
    @classmethod
    def _one_input(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("models", "retry", mode="before")
    @classmethod
    def _comma_separated(cls, value: Any) -> Any:
        """Accept `a,b`, also in a list: the command line gives a list of words."""
        words = [value] if isinstance(value, str) else value
        if isinstance(words, (list, tuple)) and all(isinstance(word, str) for word in words):
            return tuple(name.strip() for word in words for name in word.split(",") if name.strip())
        return value

    @field_validator("max_failures", mode="before")
    @classmethod
    def _plain_number(cls, value: Any) -> Any:
        return int(value) if isinstance(value, str) and value.isdecimal() else value

    @model_validator(mode="after")
    def _check_combination(self) -> LabelJob:
        message = find_conflict(self)
        if message:
            raise ValueError(message)
        return self

    @property
    def model_sources(self) -> tuple[str, ...]:
        """The models of the job: `models`, or `model` alone."""
        return self.models or (self.model,)

    @property
    def may_decode_on_card(self) -> bool:
        """True if the job lets an NVIDIA card decode, where one can."""
        return (
            self.device.kind == "gpu"
            and self.decode == "auto"
            and self.placement in ("auto", "card")
            and self.engine in ("auto", *CARD_ENGINES)
        )

    def failure_limit(self, rows: int) -> int | None:
        """Number of `rows` inputs that may fail; None: all."""
        if isinstance(self.max_failures, str):
            return int(float(self.max_failures.removesuffix("%")) / 100 * rows)
        return self.max_failures


def find_conflict(job: LabelJob) -> str | None:
    """Describe the first combination of fields that cannot work, with the way out."""
    if job.models and job.model != LabelJob.model_fields["model"].default:
        return (
            f"models: the job names model '{job.model}' too; name all of its models in `models`, or only one in `model`"
        )
    repeated = [name for name, count in Counter(job.models).items() if count > 1]
    if repeated:
        return f"models: '{repeated[0]}' is there more than once; name each model once"
    for field, decides in (("incremental", "what is new"), ("retry", "what failed")):
        if job.models and getattr(job, field):
            return f"models: {field} looks into one model's table, which decides {decides}; run the job once for each model"
    if job.top_k != LabelJob.model_fields["top_k"].default and job.all_scores != "top_k":
        return f"top_k: {job.top_k} has no effect with all_scores: {job.all_scores}; set all_scores: top_k, or leave top_k out"
    return find_placement_conflict(job) or (
        find_embedding_conflict(job.engine, job.precision) if job.embeddings else None
    )


def find_placement_conflict(job: LabelJob) -> str | None:
    """Describe why images cannot be decoded on the card, where the job asks for that; None if they can."""
    if job.placement != "card":
        return None
    if job.device.kind != "gpu":
        return f"placement: card decodes on NVIDIA cards, and the device is {job.device}; use device: gpu, or leave placement out"
    if job.decode == "exact":
        return "placement: card gives pixels that differ from decode: exact by a level or two; leave one of them out"
    if job.engine not in ("auto", *CARD_ENGINES):
        engines = ", ".join(CARD_ENGINES)
        return f"placement: card leaves the pixels there, and engine {job.engine} takes them from host memory; use {engines}"
    return None


def find_embedding_conflict(engine: EngineOrAuto, precision: PrecisionOrAuto) -> str | None:
    """Describe why an engine cannot give embeddings, with the way out; None if it can."""
    if engine not in ("auto", *EMBEDDING_ENGINES):
        return f"embeddings: engine {engine} gives scores only; use {', '.join(EMBEDDING_ENGINES)} or auto"
    if precision == "int8":
        return "embeddings: an int8 graph gives scores only; use another precision"
    return None
