"""Check the card path on a machine with an NVIDIA card: python scripts/benchmarks/check_card.py [FOLDER] [--images 500] [--index 0]

Compares, bit by bit, the card's resize with Pillow's (on the pixels that the card decoded, and on noise of many sizes), the card's decoded
pixels with the CPU's, and what both say of damaged files; measures decode and resize. Takes under a minute with the defaults.
Prints one JSON object; exit code 1 if something differs that must not, or if the card path does not work here.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from mlcls_ray.engines.card.backend import CardBackend, CardImage
from mlcls_ray.engines.card.decoder import GROUP, MAX_CARD_PIXELS, CardDecoder
from mlcls_ray.engines.card.geometry import FILTERS, geometry
from mlcls_ray.engines.card.resize import ResizeJob, resize
from mlcls_ray.errors import ImageError, MlclsError, short_message
from mlcls_ray.images.decode import decode
from mlcls_ray.images.jpeg_header import JpegHeader, can_decode_on_card, read_jpeg_header
from mlcls_ray.images.preprocess import Preprocess

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "cupy-cuda13x",
    "cupy-cuda12x",
    "nvidia-nvimgcodec-cu13",
    "nvidia-nvimgcodec-cu12",
    "nvidia-nvjpeg",
    "pillow",
)
MODELS = (
    Preprocess(size=(384, 384), backend="pil", interpolation="BILINEAR"),
    Preprocess(resize_short=256, crop=(224, 224), backend="pil", interpolation="BICUBIC"),
)
Encoded = tuple[bytes, JpegHeader]


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", nargs="?", type=Path, default=ROOT / "mlcls_ray" / "demo", help="JPEGs, searched recursively"
    )
    parser.add_argument("--images", type=int, default=500, help="read at most so many")
    parser.add_argument("--sizes", type=int, default=2000, help="resize noise of so many sizes")
    parser.add_argument("--index", type=int, default=0, help="the card's number")
    arguments = parser.parse_args(words)
    report: dict[str, Any] = {"versions": {name: text for name in PACKAGES if (text := installed(name))}}
    try:
        from mlcls_ray.engines.card.cuda import CudaCard, has_jpeg_engines

        card = CudaCard(arguments.index)
        report |= {"card": card.name, "options": card.options, "jpeg_engines": has_jpeg_engines(arguments.index)}
        images = read_images(arguments.folder, arguments.images)
        report |= check(card, images, arguments.sizes)
        report["decoders"] = compare_decoders(arguments.index, images)
    except (MlclsError, MemoryError) as error:
        report |= {"ok": False, "problem": short_message(error)}
    print(json.dumps(report, indent=1))
    return 0 if report["ok"] else 1


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def read_images(folder: Path, limit: int) -> list[Encoded]:
    """Read the JPEGs that a card can decode."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))[:limit]
    return [pair for path in paths if (pair := for_card(path.read_bytes()))]


def for_card(image_bytes: bytes) -> Encoded | None:
    header = read_jpeg_header(image_bytes)
    return (image_bytes, header) if header and can_decode_on_card(header, MAX_CARD_PIXELS) else None


def check(
    card: CardBackend, images: list[Encoded], sizes: int, batch_sizes: tuple[int, ...] = (64, 256), seconds: float = 3.0
) -> dict[str, Any]:
    """Run every check; `ok` is true if nothing differs that must be equal. `seconds`: how long the speed with a batch size is measured."""
    decoder = CardDecoder(0, MODELS, card)
    result = {
        "decode": check_decode(card, images),
        "resize_photographs": check_photographs(card, images),
        "resize_noise": check_noise(card, sizes),
        "damaged": check_damaged(decoder, images),
        "images_per_s": measure(decoder, images, batch_sizes, seconds),
    }
    pixels_ok = result["decode"]["decoded"] == len(images) and result["decode"]["mean_difference"] < 1
    resize_ok = result["resize_photographs"]["different_bytes"] == result["resize_noise"]["different_bytes"] == 0
    return {**result, "ok": bool(images) and pixels_ok and resize_ok}


def check_decode(card: CardBackend, images: list[Encoded]) -> dict[str, Any]:
    """Compare the card's decoded pixels with the CPU's, before any resize."""
    decoded, differences, largest = 0, [], 0
    for group in groups(images):
        for (image_bytes, header), image in zip(group, card.decode([pair[0] for pair in group]), strict=True):
            if image is None:
                continue
            decoded += 1
            difference = np.abs(read_back(card, image, header).astype(np.int16) - decode(image_bytes).image)
            differences.append(float(difference.mean()))
            largest = max(largest, int(difference.max()))
    mean = float(np.mean(differences)) if differences else 0.0
    worst = max(differences, default=0.0)
    return {"images": len(images), "decoded": decoded, "mean_difference": mean, "worst_mean": worst, "largest": largest}


def read_back(card: CardBackend, image: CardImage, header: JpegHeader) -> np.ndarray:
    """Copy a decoded image from the card, upright: a resize to its own size changes no pixel."""
    width, height = header.upright_size
    return resized(
        card, image, header.orientation, Preprocess(size=(width, height), backend="pil", interpolation="NEAREST")
    )


def resized(card: CardBackend, image: CardImage, orientation: int, preprocess: Preprocess) -> np.ndarray:
    sides = (image.height, image.width) if orientation > 4 else (image.width, image.height)
    plan = geometry(preprocess, *sides)
    assert plan is not None
    output = card.empty((1, *preprocess.input_size[::-1], 3), np.uint8)
    resize(card, [ResizeJob(image, orientation, plan, 0)], preprocess.interpolation, output)
    result: np.ndarray = card.download(output)[0]
    return result


def check_photographs(card: CardBackend, images: list[Encoded]) -> dict[str, int]:
    """Compare the card's resize of what it decoded with Pillow's resize of the same pixels."""
    total = different = 0
    for image_bytes, header in images:
        image = card.decode([image_bytes])[0]
        if image is None:
            continue
        pixels = read_back(card, image, header)
        for preprocess in MODELS:
            expected = preprocess.to_pixels(pixels)
            different += int((resized(card, image, header.orientation, preprocess) != expected).sum())
            total += expected.size
    return {"bytes": total, "different_bytes": different}


def check_noise(card: CardBackend, sizes: int) -> dict[str, int]:
    """Compare both resizes on noise of random sizes, for each filter."""
    random = np.random.default_rng(1)
    total = different = 0
    for number in range(sizes):
        width, height, out_width, out_height = (
            int(side) for side in np.exp(random.uniform(0, np.log(1500), 4)).round()
        )
        noise = random.integers(0, 256, (height, width, 3), np.uint8)
        on_card = card.upload(noise)
        image = CardImage(address(on_card), width, height, 3 * width, on_card)
        interpolation = list(FILTERS)[number % len(FILTERS)]
        preprocess = Preprocess(size=(out_width, out_height), backend="pil", interpolation=interpolation)
        expected = preprocess.to_pixels(noise)
        different += int((resized(card, image, 1, preprocess) != expected).sum())
        total += expected.size
    return {"sizes": sizes, "bytes": total, "different_bytes": different}


def address(array: Any) -> int:
    interface = getattr(array, "__cuda_array_interface__", None) or array.__array_interface__
    return int(interface["data"][0])


def check_damaged(decoder: CardDecoder, images: list[Encoded]) -> dict[str, int]:
    """Count what card and CPU say of files with a few wrong bytes. "card ok, cpu corrupt" is what must stay rare."""
    random = np.random.default_rng(2)
    damaged = []
    for image_bytes, _ in images:
        for _ in range(4):
            changed = bytearray(image_bytes)
            for position in random.integers(len(changed) // 10, len(changed), 3):
                changed[position] = int(random.integers(0, 256))
            if pair := for_card(bytes(changed)):
                damaged.append(pair)
    if not damaged:
        return {}
    decoded = decoder.decode([pair[0] for pair in damaged], [pair[1] for pair in damaged]).decoded
    return dict(
        Counter(
            f"card {'ok' if on_card else 'none'}, cpu {cpu_status(pair[0])}"
            for pair, on_card in zip(damaged, decoded, strict=True)
        )
    )


def cpu_status(image_bytes: bytes) -> str:
    try:
        decode(image_bytes)
    except ImageError as error:
        return str(error.status)
    return "ok"


def measure(
    decoder: CardDecoder, images: list[Encoded], batch_sizes: tuple[int, ...], seconds: float
) -> dict[str, float]:
    """Measure decode and resize together, for both preprocessings."""
    rates = {}
    for size in batch_sizes:
        batch = (images * (size // max(len(images), 1) + 1))[:size] if images else []
        if not batch:
            continue
        encoded, headers = [pair[0] for pair in batch], [pair[1] for pair in batch]
        decoder.decode(encoded, headers)
        done, started = 0, time.perf_counter()
        while (spent := time.perf_counter() - started) < seconds:
            done += int(decoder.decode(encoded, headers).decoded.sum())
        rates[f"batch {size}"] = round(done / spent, 1)
    return rates


def compare_decoders(
    index: int, images: list[Encoded], seconds: float = 2.0, libraries: tuple[Any, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """Measure each decoder and each set of options that we may choose: decode alone, and what it says of damaged files."""
    from mlcls_ray.engines.card.cuda import BACKENDS, OPTIONS, CudaCard, open_decoder

    found: dict[str, dict[str, Any]] = {}
    card = CudaCard(index, libraries)
    decoder = CardDecoder(index, MODELS[:1], card)
    encoded = [pair[0] for pair in (images * GROUP)[:GROUP]]
    for kinds in BACKENDS:
        for options in OPTIONS:
            name = f"{'+'.join(kinds)} {options}"
            try:
                card.decoders = [open_decoder(card.codec, index, kinds, options)]
                card.decode(encoded)
                done, started = 0, time.perf_counter()
                while (spent := time.perf_counter() - started) < seconds:
                    done += sum(image is not None for image in card.decode(encoded))
                    card.synchronize()
                found[name] = {"images_per_s": round(done / spent, 1), "damaged": check_damaged(decoder, images)}
            except Exception as error:  # a set of options that this version does not know is a result, too
                found[name] = {"error": short_message(error)}
    return found


def groups(images: list[Encoded]) -> list[list[Encoded]]:
    return [images[start : start + GROUP] for start in range(0, len(images), GROUP)]


if __name__ == "__main__":
    sys.exit(main())
