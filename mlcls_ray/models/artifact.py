"""`Model`: a folder in Paddle's inference format with its `inference.yml`, read as PaddleX 3.7 reads it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from mlcls_ray.errors import UsageError, short_message, suggest
from mlcls_ray.images.decode import decode
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.labels.thresholds import parse_thresholds

CONFIG = "inference.yml"
THRESHOLDS = "thresholds.yml"
"""A model's own thresholds by class, as `mlcls calibrate` writes them. Optional. They have their own file because PaddleX pairs a list in
`inference.yml` with the images of a batch instead of with the classes."""
PARAMETERS = "inference.pdiparams"
INT8 = "inference_int8.xml"
"""OpenVINO's int8 graph, as `mlcls quantize` writes it, with its weights beside it. Optional."""
PROGRAMS = ("inference.json", "inference.pdmodel")
"""Paddle's new program format and its old one. The new one is preferred."""
FILES = (*PROGRAMS, PARAMETERS, CONFIG, THRESHOLDS, INT8, INT8.replace(".xml", ".bin"))
"""The files of a model folder that are used."""

OWN_NAME = "name"
"""The key of a model's own name in `inference.yml`, beside `model_name`; PaddleX does not read it."""

DEFAULT_THRESHOLD = 0.5
DECODE_VERSION = 2
"""Increased when `images` makes other pixels from the same bytes; part of the preprocessing fingerprint."""


class Model(BaseModel):
    """An inference folder, and what its files say."""

    model_config = ConfigDict(frozen=True)

    name: str
    """The model's own name, in tables and reports. Fine-tuned models have one; others are called as their network."""
    network: str
    """The name that stands in `inference.yml` as `Global.model_name`; PaddleX knows the model by it."""
    folder: Path
    program: Path
    parameters: Path
    preprocess: Preprocess
    vocabulary: tuple[str, ...]
    thresholds: tuple[float, ...]
    """The model's own thresholds, one per class of `vocabulary`, from `thresholds.yml` or else `inference.yml`."""
    fingerprint: str
    """sha256 of the program, the parameters, the int8 graph and the vocabulary. Together with the preprocessing it decides the scores."""

    def preprocess_fingerprint(self, decode: Literal["auto", "exact"], on_card: bool = False) -> str:
        """Return the sha256 of everything that decides the pixels. With `decode` auto a JPEG may be decoded at a fraction of its size.

        With `on_card` an NVIDIA card may decode it, whose pixels differ by up to two levels.
        """
        text = self.preprocess.model_dump_json() + f"|decode {DECODE_VERSION}"
        if decode == "auto" and self.preprocess.min_decode_size:
            text += f"|JPEG scaled to {self.preprocess.min_decode_size}"
        if on_card:
            text += "|JPEG by nvImageCodec"
        return hashlib.sha256(text.encode()).hexdigest()

    def load_pixels(self, paths: Iterable[Path]) -> np.ndarray:
        """Read image files and resize them to the model's input: uint8 [N, H, W, 3].

        Raises:
            OSError, ImageError: a file cannot be read or decoded.
            ValueError: there are no paths.
        """
        return np.stack([self.preprocess.to_pixels(decode(path.read_bytes()).image) for path in paths])


def load_model(folder: Path) -> Model:
    """Read an inference folder.

    Raises:
        UsageError: a file is missing, `inference.yml` needs something that is not supported, or `thresholds.yml` is not valid. The
            message names the field.
    """
    program = next((folder / name for name in PROGRAMS if (folder / name).is_file()), None)
    parameters, config = folder / PARAMETERS, folder / CONFIG
    missing = [path.name for path in (parameters, config) if not path.is_file()]
    if program is None:
        missing.insert(0, " or ".join(PROGRAMS))
    if missing or program is None:
        raise UsageError(f"model folder '{folder}' lacks {', '.join(missing)}: it is not a Paddle inference folder")
    try:
        loaded = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{config} is not valid YAML: {short_message(error)}") from None
    if not isinstance(loaded, Mapping):
        raise UsageError(f"{config} is not a mapping")
    try:
        preprocess = parse_preprocess(_field(loaded, "PreProcess", "transform_ops"))
        vocabulary, thresholds = _parse_output(_field(loaded, "PostProcess", "MultiLabelThreshOutput"))
    except (ValueError, TypeError) as error:  # pydantic's ValidationError is a ValueError
        raise UsageError(f"{config}: {_first_line(error)}") from None
    own = folder / THRESHOLDS
    if own.is_file():
        resolved = parse_thresholds(own, THRESHOLDS).resolve(vocabulary, thresholds, str(own))
        thresholds = tuple(map(float, resolved.values))
    names = loaded.get("Global") or {}
    network = str(names.get("model_name") or folder.name)
    return Model(
        name=str(names.get(OWN_NAME) or network),
        network=network,
        folder=folder,
        program=program,
        parameters=parameters,
        preprocess=preprocess,
        vocabulary=vocabulary,
        thresholds=thresholds,
        fingerprint=_fingerprint(program, parameters, vocabulary),
    )


def parse_preprocess(operations: Any) -> Preprocess:
    """Parse `PreProcess.transform_ops`. The order of the operations does not matter, as in PaddleX.

    Raises:
        ValueError: an operation is unknown, or a value is one that PaddleX refuses too.
    """
    if not isinstance(operations, list) or not all(isinstance(item, Mapping) and len(item) == 1 for item in operations):
        raise ValueError("PreProcess.transform_ops is not a list of one-key mappings")
    by_name = {str(name): dict(options or {}) for item in operations for name, options in item.items()}
    for name in by_name:
        if name not in _OPERATIONS:
            raise ValueError(f"unknown transform_ops entry '{name}'{suggest(name, _OPERATIONS)}")
    for name in ("ResizeImage", "NormalizeImage", "ToCHWImage"):
        if name not in by_name:
            raise ValueError(f"transform_ops lacks {name}")
    resize, normalize = by_name["ResizeImage"], by_name["NormalizeImage"]
    if normalize.get("order", "") != "":
        raise ValueError(f"NormalizeImage.order must be '', not {normalize['order']!r}")
    if normalize.get("channel_num", 3) != 3:
        raise ValueError(f"NormalizeImage.channel_num must be 3, not {normalize['channel_num']}")
    values: dict[str, Any] = {
        "size": None if resize.get("resize_short") else _pair(resize.get("size")),
        "resize_short": resize.get("resize_short") or None,
        "crop": _pair(by_name["CropImage"].get("size", 224)) if "CropImage" in by_name else None,
        "backend": str(resize.get("backend", "cv2")).lower(),
        "interpolation": str(resize.get("interpolation", "LINEAR")).upper(),
        "scale": _fraction(normalize.get("scale", 1 / 255)),
    }
    for name in ("mean", "std"):
        if name in normalize:
            values[name] = [normalize[name]] * 3 if isinstance(normalize[name], float) else normalize[name]
    return Preprocess.model_validate(values)


_OPERATIONS = ("ResizeImage", "CropImage", "NormalizeImage", "ToCHWImage", "DecodeImage")


def _pair(value: Any) -> Any:
    return (value, value) if isinstance(value, int) else value


def _fraction(value: Any) -> float:
    """Parse a number, or a fraction as older configs write it: `1.0/255.0`."""
    numerator, separator, denominator = str(value).partition("/")
    return float(numerator) / float(denominator) if separator else float(numerator)


def _parse_output(options: Any) -> tuple[tuple[str, ...], tuple[float, ...]]:
    options = dict(options or {})
    names = options.get("label_list")
    if not isinstance(names, list) or not names:
        raise ValueError("PostProcess.MultiLabelThreshOutput.label_list is missing or empty")
    vocabulary = tuple(str(name) for name in names)
    threshold = options.get("threshold", DEFAULT_THRESHOLD)
    if isinstance(threshold, Mapping):
        default = float(threshold.get("default", DEFAULT_THRESHOLD))
        by_class = {str(key): float(value) for key, value in threshold.items()}
        values = [by_class.get(str(position), by_class.get(name, default)) for position, name in enumerate(vocabulary)]
    elif isinstance(threshold, list):
        values = [float(value) for value in threshold]
    else:
        values = [float(threshold)] * len(vocabulary)
    if len(values) != len(vocabulary):
        raise ValueError(f"MultiLabelThreshOutput.threshold has {len(values)} entries for {len(vocabulary)} classes")
    return vocabulary, tuple(values)


def _field(loaded: Mapping[str, Any], *names: str) -> Any:
    value: Any = loaded
    for name in names:
        if not isinstance(value, Mapping) or name not in value:
            raise ValueError(f"{'.'.join(names)} is missing")
        value = value[name]
    return value


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}".lstrip(": ")
    return str(error).splitlines()[0]


def model_files(program: Path, parameters: Path) -> list[Path]:
    """List the files that decide the scores: program, parameters, and the int8 graph if there is one."""
    int8 = program.parent / INT8
    return [program, parameters, *([int8, int8.with_suffix(".bin")] if int8.is_file() else [])]


def label_files(folder: Path) -> list[Path]:
    """List the files that decide which scores become labels: `inference.yml`, and `thresholds.yml` if there is one."""
    return [folder / name for name in (CONFIG, THRESHOLDS) if (folder / name).is_file()]


def _fingerprint(program: Path, parameters: Path, vocabulary: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for path in model_files(program, parameters):
        digest.update(path.name.encode() + b"\0" + bytes.fromhex(file_sha256(path)))
    digest.update(json.dumps(vocabulary).encode())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
