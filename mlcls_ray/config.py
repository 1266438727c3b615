"""`LabelJob`: everything that a labeling run is told. One frozen model for YAML, command line and library."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError, field_validator

from mlcls_ray.errors import Status, UsageError, short_message, suggest
from mlcls_ray.images import MAX_PIXELS as MAX_PIXELS
from mlcls_ray.labels.thresholds import Thresholds as Thresholds

EngineName = Literal["paddle", "openvino", "onnxruntime", "tensorrt"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]
AskedEngine = Literal["auto"] | EngineName
AskedPrecision = Literal["auto"] | Precision
"""auto: what is fastest on the machine among what gives Paddle's labels; see `engines.autotune`."""
TableFormat = Literal["parquet", "delta", "iceberg", "lance"]
AskedBatch = Literal["auto"] | PositiveInt
"""auto: what is fastest with the engine, among sizes that take no more than seconds a batch."""
ConfigT = TypeVar("ConfigT", bound=BaseModel)
FailureLimit = Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=r"^(\d{1,2}(\.\d+)?|100)%$")]
RunId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class S3Options(BaseModel):
    """How to reach `s3://`. What is not set comes the usual ways: AWS_* variables, ~/.aws, the instance's role."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint_url: str | None = Field(default=None, description="Of another server than AWS")
    region: str | None = Field(default=None, description="Such as eu-central-1")
    profile: str | None = Field(default=None, description="Of ~/.aws")
    anonymous: bool = Field(default=False, description="Without credentials, for public buckets")
    timeout_s: PositiveFloat = Field(
        default=60.0, description="Seconds of silence after which a request is given up, and tried again"
    )


class InputOptions(BaseModel):
    """What to label."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: tuple[str, ...] = Field(
        default=(), description="Folders, files, globs, lists of uris, s3:// or http(s):// uris"
    )
    uri_column: str | None = Field(default=None, description="Column of a CSV or Parquet list; None: uri, url, path, …")
    limit: PositiveInt | None = Field(default=None, description="Take only the first N inputs")
    incremental: bool = Field(
        default=False, description="Only inputs that are new or changed since they were labeled into out"
    )
    retry: tuple[Status, ...] = Field(
        default=(), description="Only inputs whose newest row in out has one of these statuses (`mlcls retry`)"
    )
    dedupe: bool = Field(
        default=False, description="Score identical files once per run; reads files of equal size twice"
    )


class ModelOptions(BaseModel):
    """What labels, and on which device."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(default="starter", description="A name (`mlcls models`), a local model folder, or its uri")
    models: tuple[str, ...] = Field(
        default=(),
        description="Several models in one pass over the images, instead of model; each has its own output, out/NAME",
    )
    device: str = Field(default="cpu", description="cpu, gpu, gpu:0,1, npu, xpu …: what the scoring workers run on")
    workers_per_device: PositiveInt = Field(default=1, description="Scoring workers that share one card")
    engine: AskedEngine = Field(
        default="auto", description="What executes the network; auto: the fastest here that gives the same labels"
    )
    precision: AskedPrecision = Field(
        default="auto",
        description="fp32, bf16 (faster on CPUs that have it, coarser), fp16 (GPUs), or int8 (`mlcls quantize`)",
    )
    batch_size: AskedBatch = Field(
        default="auto", description="Images per forward pass; auto: the fastest, tried with the engine"
    )
    decode: Literal["auto", "exact"] = Field(
        default="auto",
        description="auto: a JPEG far larger than the model's input is decoded at a fraction of its size",
    )
    threshold: Thresholds = Field(
        default=Thresholds(), description="A number, or class: number pairs; none: the model's own"
    )


class OutputOptions(BaseModel):
    """What is written, and where."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    out: str = Field(default="", description="Output folder, local or s3://; runs are added to it")
    run_id: RunId | None = Field(
        default=None,
        description="Name of the run; the same name resumes it. None: the time, or what this same job left unfinished",
    )
    all_scores: Literal["all", "top_k", "none"] = Field(
        default="all", description="Which scores the table keeps beside the labels'"
    )
    top_k: PositiveInt = Field(default=10, description="How many scores all_scores: top_k keeps")
    embeddings: bool = Field(
        default=False,
        description="Also a column with the network's pooled features, for search by likeness; engines openvino and onnxruntime",
    )
    format: TableFormat = Field(
        default="parquet", description="Also a table in this format, beside the Parquet files, in out/FORMAT"
    )
    annotate: Literal["none", "all"] | PositiveInt = Field(
        default="none", description="Annotated images: none, all, or a sample of N"
    )
    rows_per_fragment: PositiveInt | None = Field(
        default=None, description="Rows per output file; None: from the measured rate and fragment_seconds"
    )
    fragment_seconds: PositiveFloat = Field(
        default=60.0, description="Seconds of one worker's work in an output file: what a killed worker loses at most"
    )


class FetchOptions(BaseModel):
    """How image bytes are read, and their limits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fetch_threads: PositiveInt = Field(default=8, description="Images read at once by a worker")
    fetch_attempts: PositiveInt = Field(
        default=4, description="How often a transient failure of reading is tried in all"
    )
    timeout_s: PositiveFloat = Field(default=30.0, description="Seconds that one download may take")
    max_bytes: PositiveInt = Field(default=100_000_000, description="A larger file is `too_large`")
    max_pixels: Annotated[int, Field(gt=0, le=MAX_PIXELS)] = Field(
        default=MAX_PIXELS, description="A larger image is `too_large`"
    )
    s3: S3Options = Field(default=S3Options(), description="How to reach s3://")


class RayOptions(BaseModel):
    """Where and how a job runs on Ray."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ray_address: str | None = Field(default=None, description="A Ray cluster; None: RAY_ADDRESS, or Ray started here")
    placement: Literal["auto", "split", "fused"] = Field(
        default="auto", description="Decode and score apart or in one process"
    )
    workers: PositiveInt | None = Field(default=None, description="Scoring workers; None: from what the cluster has")
    block_rows: PositiveInt | None = Field(default=None, description="Rows per task; None: from the number of inputs")
    max_failures: FailureLimit | None = Field(
        default=None, description="Stop when more inputs fail: a number, or a share as in 1%"
    )


class LabelJob(RayOptions, FetchOptions, OutputOptions, ModelOptions, InputOptions):
    """One labeling job. Flags override the file; the file overrides these defaults."""

    @field_validator("inputs", mode="before")
    @classmethod
    def _one_input(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("max_failures", mode="before")
    @classmethod
    def _plain_number(cls, value: Any) -> Any:
        return int(value) if isinstance(value, str) and value.isdecimal() else value

    def failure_limit(self, rows: int) -> int | None:
        """How many of `rows` inputs may fail; None: all."""
        if isinstance(self.max_failures, str):
            return int(float(self.max_failures.removesuffix("%")) / 100 * rows)
        return self.max_failures


def load_job(path: Path | None, overrides: Mapping[str, Any]) -> LabelJob:
    """A labeling job. See `load_config`."""
    return load_config(LabelJob, path, overrides)


def load_config(model: type[ConfigT], path: Path | None, overrides: Mapping[str, Any]) -> ConfigT:
    """What a YAML file (or none) and the command line say; an override that is None was not given.

    Raises:
        UsageError: the file cannot be read, or a field is unknown or wrong; names field, value and way out.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    values = {**(read_mapping(path, "config") if path else {}), **given}
    return make_config(model, values, f"config '{path}': " if path else "")


def read_mapping(path: Path, what: str) -> Mapping[str, Any]:
    """A YAML file that holds a mapping. `what`: how messages call it.

    Raises:
        UsageError: it cannot be read, or holds something else.
    """
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{what} '{path}' cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{what} '{path}' is not valid YAML: {short_message(error)}") from None
    if not isinstance(loaded, Mapping):
        raise UsageError(f"{what} '{path}' is not a mapping of fields")
    return loaded


def make_job(values: Mapping[str, Any], where: str = "") -> LabelJob:
    """A labeling job from its fields. Raises as `make_config`."""
    return make_config(LabelJob, values, where)


def make_config(model: type[ConfigT], values: Mapping[str, Any], where: str = "") -> ConfigT:
    """A configuration from its fields.

    Raises:
        UsageError: a field is unknown or wrong; `where` stands before the message.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UsageError(where + describe(error, model)) from None


def describe(error: ValidationError, model: type[BaseModel]) -> str:
    """The first thing that is wrong, in one line; `model`: what was filled in."""
    first = error.errors()[0]
    alternatives = [
        one for one in error.errors() if one["loc"][:-1] == first["loc"][:-1] and one["input"] is first["input"]
    ]
    if len(alternatives) > 1:  # a union: each of its members says what it would take, under a name of pydantic's
        field = ".".join(map(str, first["loc"][:-1]))
        return f"{field}: {', or '.join(one['msg'] for one in alternatives)} (it is {first['input']!r})"
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = S3Options.model_fields if field.startswith("s3.") else model.model_fields
        return f"unknown field '{field}'{suggest(field.rpartition('.')[2], known)}"
    return f"{field}: {first['msg']} (it is {first['input']!r})"


def dump_job(job: LabelJob) -> str:
    """The job as YAML that `--config` takes."""
    return yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
