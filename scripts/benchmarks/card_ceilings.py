"""What a card, or this machine's CPUs in its place, can do at most. Each ceiling has a process of its own, whose memory then is free.

`card_ceilings.py decode INDEX FOLDER SECONDS MODEL`
`card_ceilings.py score DEVICE MODEL PRECISION SECONDS BATCH …`
`card_ceilings.py together INDEX FOLDER SECONDS MODEL PRECISION BATCH`
Each prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from mlcls_ray.devices import parse_device
from mlcls_ray.engines.card.decoder import MAX_CARD_PIXELS
from mlcls_ray.engines.load import load_engine
from mlcls_ray.engines.onnxruntime_device import put_on_card
from mlcls_ray.errors import MlclsError, short_message
from mlcls_ray.images.jpeg_header import JpegHeader, can_decode_on_card, read_jpeg_header
from mlcls_ray.models.cache import open_model

READ = 512
"""Images that are read for the ceiling of decoding: more would not fit a processor's cache anyway."""


def rate(work: Callable[[], int], seconds: float) -> float:
    """Call `work`, which returns how many images it has done, for some seconds; returns images per second."""
    work()
    done, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < seconds:
        done += work()
    return round(done / spent, 1)


def card_images(folder: Path) -> list[tuple[bytes, JpegHeader]]:
    """Read the images of a folder that a card can decode, with their headers."""
    encoded = [path.read_bytes() for path in sorted(folder.iterdir())[:READ]]
    pairs = [(data, header) for data in encoded if (header := read_jpeg_header(data)) is not None]
    return [pair for pair in pairs if can_decode_on_card(pair[1], MAX_CARD_PIXELS)]


def decode_ceiling(index: int, folder: Path, seconds: float, model: str) -> dict[str, Any]:
    """Measure the card's decoder alone, and with the resize to the model's input size."""
    from mlcls_ray.engines.card.cuda import CudaCard, has_jpeg_engines
    from mlcls_ray.engines.card.decoder import GROUP, CardDecoder

    pairs = card_images(folder)
    groups = [pairs[start : start + GROUP] for start in range(0, len(pairs), GROUP)]
    card = CudaCard(index)
    decoder = CardDecoder(index, (open_model(model).preprocess,), card)

    def decode() -> int:
        done = 0
        for group in groups:
            done += sum(image is not None for image in card.decode([pair[0] for pair in group]))
            card.synchronize()
        return done

    def decode_and_resize() -> int:
        return sum(
            int(decoder.decode([pair[0] for pair in group], [pair[1] for pair in group]).decoded.sum())
            for group in groups
        )

    return {
        "card": card.name,
        "jpeg_engines": has_jpeg_engines(index),
        "images": len(pairs),
        "decode": rate(decode, seconds),
        "decode_and_resize": rate(decode_and_resize, seconds),
    }


def score_ceiling(device: str, model: str, precision: str, seconds: float, batches: Sequence[int]) -> dict[str, Any]:
    """Measure an engine with its input where it computes: on the card, or in host memory. Returns images per second by batch size."""
    where = parse_device(device)
    opened = open_model(model)
    width, height = opened.preprocess.input_size
    started = time.perf_counter()
    engine = load_engine("onnxruntime", opened, where, 1, precision)  # type: ignore[arg-type]
    rates: dict[str, float] = {}
    for batch in batches:
        engine.warm_up(batch)
        pixels: Any = np.random.default_rng(0).integers(0, 256, (batch, height, width, 3), np.uint8)
        if not where.is_cpu:
            pixels = put_on_card(pixels, where.index)
        rates[f"batch {batch}"] = rate(lambda pixels=pixels: len(engine.score(pixels)), seconds)
    spent = time.perf_counter() - started - seconds * len(batches)
    return {"images_per_s": max(rates.values()), **rates, "start_s": round(spent, 1)}


def together_ceiling(
    index: int, folder: Path, seconds: float, model: str, precision: str, batch: int
) -> dict[str, Any]:
    """Measure decoding and scoring of the same images, in turns by one thread, and at once by two, where both want the card's cores."""
    from mlcls_ray.engines.card.decoder import CardDecoder

    opened = open_model(model)
    pairs = card_images(folder)[:batch]
    encoded, headers = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    decoder = CardDecoder(index, (opened.preprocess,))
    engine = load_engine("onnxruntime", opened, parse_device(f"gpu:{index}"), 1, precision)  # type: ignore[arg-type]
    engine.warm_up(len(pairs))
    pixels = decoder.decode(encoded, headers).pixels[0]

    def decode() -> int:
        return int(decoder.decode(encoded, headers).decoded.sum())

    def score() -> int:
        return len(engine.score(pixels))

    def both() -> int:
        return len(engine.score(decoder.decode(encoded, headers).pixels[0]))

    result = {"decode": rate(decode, seconds), "score": rate(score, seconds), "in_turns": rate(both, seconds)}
    with ThreadPoolExecutor(2) as threads:
        at_once = [threads.submit(rate, work, seconds) for work in (decode, score)]
    return {**result, "decode_at_once": at_once[0].result(), "score_at_once": at_once[1].result()}


def main(words: Sequence[str]) -> int:
    try:
        if words[0] == "decode":
            result = decode_ceiling(int(words[1]), Path(words[2]), float(words[3]), words[4])
        elif words[0] == "together":
            result = together_ceiling(int(words[1]), Path(words[2]), float(words[3]), words[4], words[5], int(words[6]))
        else:
            result = score_ceiling(words[1], words[2], words[3], float(words[4]), [int(word) for word in words[5:]])
    except (MlclsError, MemoryError, RuntimeError) as error:
        result = {"error": short_message(error)}
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
