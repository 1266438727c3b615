"""The card's decoder on a card made of host memory: the CPU's pixels, what is left to the CPU, and the card's faults."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from mlcls_ray.engines.card.decoder import GROUP, MAX_CARD_PIXELS, CardBatch, CardDecoder
from mlcls_ray.engines.failures import is_out_of_memory
from mlcls_ray.errors import DeviceLostError, UsageError
from mlcls_ray.images.decode import decode
from mlcls_ray.images.jpeg_header import JpegHeader, read_jpeg_header
from mlcls_ray.images.preprocess import Preprocess
from tests.engines.card.host_card import HostCard, decode_jpeg
from tests.engines.card.test_resize import noise

SMALL = Preprocess(size=(24, 24), backend="pil", interpolation="BILINEAR")
CROPPED = Preprocess(resize_short=32, crop=(28, 28), backend="pil", interpolation="BICUBIC")


def jpeg(
    width: int, height: int, orientation: int = 1, mode: str = "RGB", progressive: bool = False, **options: int
) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    Image.fromarray(noise(width, height)).convert(mode).save(out, "JPEG", exif=exif, progressive=progressive, **options)
    return out.getvalue()


def headers_of(images: list[bytes]) -> list[JpegHeader]:
    headers = [read_jpeg_header(image_bytes) for image_bytes in images]
    return [header for header in headers if header is not None]


def decode_on(decoder: CardDecoder, images: list[bytes]) -> CardBatch:
    return decoder.decode(images, headers_of(images))


def expected_pixels(images: list[bytes], preprocess: Preprocess) -> np.ndarray:
    return np.stack([preprocess.to_pixels(decode(image_bytes).image) for image_bytes in images])


def test_the_pixels_are_the_cpus_for_each_preprocessing_from_one_decode() -> None:
    images = [
        *(jpeg(40 + turn, 30, orientation=turn) for turn in range(1, 9)),
        jpeg(50, 60, mode="L"),
        jpeg(64, 48, progressive=True),
        jpeg(33, 35, subsampling=0),
    ]
    card = HostCard(row_padding=5)
    decoder = CardDecoder(0, (SMALL, CROPPED), card)
    card.calls.clear()
    batch = decode_on(decoder, images)
    assert batch.decoded.all() and card.calls == [len(images)]
    for preprocess, pixels in zip((SMALL, CROPPED), batch.pixels, strict=True):
        np.testing.assert_array_equal(pixels, expected_pixels(images, preprocess))


def test_what_the_card_cannot_decode_is_left_to_the_cpu() -> None:
    good, damaged = jpeg(40, 30), jpeg(41, 31)
    card = HostCard(decode=lambda image_bytes: None if image_bytes == damaged else decode_jpeg(image_bytes))
    batch = decode_on(CardDecoder(0, (SMALL,), card), [good, damaged, good])
    assert batch.decoded.tolist() == [True, False, True]
    assert not batch.pixels[0][1].any()
    batch.put(0, np.array([1]), expected_pixels([damaged], SMALL))
    np.testing.assert_array_equal(batch.pixels[0], expected_pixels([good, damaged, good], SMALL))


def test_an_image_of_another_size_than_its_header_is_left_to_the_cpu() -> None:
    card = HostCard()
    decoder = CardDecoder(0, (SMALL,), card)
    image = jpeg(40, 30)
    (header,) = headers_of([image])
    assert not decoder.decode([image], [header._replace(width=41)]).decoded.any()


@pytest.mark.parametrize(
    "changes",
    [{"width": 8001, "height": MAX_CARD_PIXELS // 8000}, {"orientation": 0}, {"width": 60_000, "height": 1}],
    ids=["more pixels than the card takes", "an orientation that is not certain", "too large when it is resized"],
)
def test_these_never_reach_the_card(changes: dict[str, int]) -> None:
    card = HostCard()
    decoder = CardDecoder(0, (SMALL, CROPPED), card)
    card.calls.clear()
    image = jpeg(40, 30)
    (header,) = headers_of([image])
    batch = decoder.decode([image, b""], [header._replace(**changes), None])
    assert not batch.decoded.any() and card.calls == []
    assert not batch.pixels[0].any()


def test_a_batch_is_decoded_in_groups() -> None:
    card = HostCard()
    decoder = CardDecoder(0, (SMALL,), card)
    card.calls.clear()
    images = [jpeg(20, 10)] * (2 * GROUP + 3)
    assert decode_on(decoder, images).decoded.all()
    assert card.calls == [GROUP, GROUP, 3]
    card.calls.clear()
    decoder.group_bytes = 5 * 40_000  # five images of 200x50 and what their resize needs
    assert decode_on(decoder, [jpeg(200, 50)] * 12).decoded.all()
    assert card.calls == [5, 5, 2]


def test_no_images() -> None:
    batch = CardDecoder(0, (SMALL,), HostCard()).decode([], [])
    assert batch.pixels[0].shape == (0, 24, 24, 3) and batch.decoded.shape == (0,)


def test_a_full_card_gets_smaller_groups_and_keeps_them() -> None:
    card = HostCard()
    decoder = CardDecoder(0, (SMALL,), card)
    card.calls.clear()
    card.room = 3
    images = [jpeg(100 + number, 80) for number in range(8)]
    batch = decode_on(decoder, images)
    assert batch.decoded.all() and card.calls == [8, 4, 2, 2, 4, 2, 2]
    np.testing.assert_array_equal(batch.pixels[0], expected_pixels(images, SMALL))
    card.calls.clear()
    assert decode_on(decoder, images).decoded.all()
    assert max(card.calls) <= 4


def test_an_image_that_does_not_fit_a_full_card_is_left_to_the_cpu() -> None:
    card = HostCard()
    decoder = CardDecoder(0, (SMALL,), card)
    card.room = 0
    batch = decode_on(decoder, [jpeg(100, 80)] * 3)
    assert not batch.decoded.any() and not batch.pixels[0].any()


class FullCard(HostCard):
    """No room for the pixels of more images than two."""

    room_for = 2

    def empty(self, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
        if len(shape) == 4 and shape[0] > self.room_for:
            raise MemoryError("gpu:0 (host memory) is out of memory: Out of memory allocating 5,184 bytes")
        return super().empty(shape, dtype)


def test_no_room_for_the_batch_is_what_a_scorer_halves_batches_for() -> None:
    decoder = CardDecoder(0, (SMALL,), FullCard())
    with pytest.raises(MemoryError) as raised:
        decode_on(decoder, [jpeg(40, 30)] * 3)
    assert is_out_of_memory(raised.value)
    assert decode_on(decoder, [jpeg(40, 30)] * 2).decoded.all()


def test_a_card_without_any_room_is_refused_at_the_start() -> None:
    class NoRoom(FullCard):
        room_for = 0

    for card in (HostCard(room=0), NoRoom()):
        with pytest.raises(UsageError, match="out of memory.*choose another"):
            CardDecoder(0, (SMALL,), card)


def test_a_decoder_that_falls_silent_is_a_lost_card() -> None:
    """nvImageCodec gives None for each image where its library failed, as for a damaged image."""
    card = HostCard()
    decoder = CardDecoder(0, (SMALL,), card)
    damaged = [jpeg(40, 30)] * 9
    card.decode_image = lambda image_bytes: None if image_bytes in damaged else decode_jpeg(image_bytes)
    assert not decode_on(decoder, damaged).decoded.any()  # a batch of damaged images: the decoder still answers
    card.decode_image = lambda image_bytes: None
    with pytest.raises(DeviceLostError, match="stopped answering"):
        decode_on(decoder, damaged)


def test_a_card_that_decodes_nothing_is_refused_at_the_start() -> None:
    with pytest.raises(UsageError, match=r"no JPEG on the card.*pip install 'mlcls-ray\[gpu\]'"):
        CardDecoder(0, (SMALL,), HostCard(decode=lambda image_bytes: None))


def black(image_bytes: bytes) -> np.ndarray | None:
    image = decode_jpeg(image_bytes)
    return None if image is None else np.zeros_like(image)


def garbled_where_larger(image_bytes: bytes) -> np.ndarray | None:
    """As if an image kept the row length of the last one in its memory."""
    image = decode_jpeg(image_bytes)
    return np.roll(image.reshape(-1), 99_999).reshape(image.shape) if image is not None and len(image) == 400 else image


@pytest.mark.parametrize("decoder", [black, garbled_where_larger])
def test_a_card_that_decodes_something_else_is_refused_at_the_start(
    decoder: Callable[[bytes], np.ndarray | None],
) -> None:
    with pytest.raises(UsageError, match="differ from the CPU's"):
        CardDecoder(0, (SMALL,), HostCard(decode=decoder))


def test_a_preprocessing_of_opencv_is_refused_at_the_start() -> None:
    with pytest.raises(UsageError, match="OpenCV's resize.*placement 'split'"):
        CardDecoder(0, (Preprocess(size=(8, 8), backend="cv2"),), HostCard())
