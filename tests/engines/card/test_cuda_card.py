"""`CudaCard` over stand-ins for CuPy and nvImageCodec: what it asks of them, and what it makes of their failures."""

from __future__ import annotations

import numpy as np
import pytest

from mlcls_ray.engines.card.cuda import BACKENDS, KEPT_BYTES, OPTIONS, POOL_BYTES, CudaCard
from mlcls_ray.engines.card.decoder import CardDecoder
from mlcls_ray.engines.card.probe import probes
from mlcls_ray.errors import DeviceLostError, UsageError
from tests.engines.card.host_cuda import Codec, Cupy
from tests.engines.card.test_decoder import CROPPED, SMALL, decode_on, expected_pixels, jpeg


def test_a_batch_is_the_cpus_pixels() -> None:
    card = CudaCard(0, (Cupy(), Codec()))
    decoder = CardDecoder(0, (SMALL, CROPPED), card)
    images = [jpeg(40 + turn, 30, orientation=turn) for turn in range(1, 9)]
    batch = decode_on(decoder, images)
    assert batch.decoded.all() and card.name == "gpu:0 (NVIDIA Host)"
    for preprocess, pixels in zip((SMALL, CROPPED), batch.pixels, strict=True):
        np.testing.assert_array_equal(card.download(pixels), expected_pixels(images, preprocess))
    batch.put(0, np.array([2, 5]), expected_pixels(images[:2], SMALL))
    np.testing.assert_array_equal(card.download(batch.pixels[0])[[2, 5]], expected_pixels(images[:2], SMALL))


def test_its_memory_has_a_limit() -> None:
    cupy = Cupy()
    CudaCard(0, (cupy, Codec()))
    assert cupy.limit == POOL_BYTES


def test_the_decoders_memory_is_used_again_and_given_back_where_it_grew() -> None:
    card = CudaCard(0, (Cupy(), Codec()))
    card.decode([jpeg(64, 48)] * 3)
    kept = list(card.kept)
    decoded = card.decode([jpeg(20, 10), b"\xff\xd8\xff no image"])
    assert len(kept) == 3 and card.kept == kept  # what was not decoded keeps its memory for the next image
    assert decoded[0] is not None and decoded[0].owner is kept[0] and decoded[1] is None
    kept[2].memory = np.empty(KEPT_BYTES + 1, np.uint8)  # pages that nobody touches take no memory
    card.decode([jpeg(20, 10)])
    assert card.kept == []


def test_the_jpeg_engines_decode_what_they_can_and_the_cores_the_rest() -> None:
    codec = Codec()
    card = CudaCard(0, (Cupy(), codec))
    assert codec.opened == [(kinds, OPTIONS[0]) for kinds in BACKENDS] and card.options == (OPTIONS[0], OPTIONS[0])
    assert not any("CPU_ONLY" in kinds for kinds in BACKENDS)
    codec.asked.clear()
    baseline, progressive = probes()[:2]
    assert all(card.decode([baseline, progressive, baseline]))
    assert codec.asked == [(("HW_GPU_ONLY",), 3), (("HYBRID_CPU_GPU",), 1)]
    codec.asked.clear()
    card.decode([baseline])
    assert codec.asked == [(("HW_GPU_ONLY",), 1)]  # nothing is left


def test_a_card_without_jpeg_engines_decodes_on_its_cores() -> None:
    codec = Codec(kinds=("HYBRID_CPU_GPU",))
    card = CudaCard(0, (Cupy(), codec))
    codec.asked.clear()
    assert all(card.decode(probes()[:2])) and codec.asked == [(("HYBRID_CPU_GPU",), 2)]


def test_a_library_that_knows_no_strict_streams_is_used_without() -> None:
    codec = Codec(refuses_strict=True)
    assert CudaCard(0, (Cupy(), codec)).options == (OPTIONS[1], OPTIONS[1])


def test_a_decoder_of_baseline_jpegs_only_is_used_for_those() -> None:
    codec = Codec()
    codec.none.add(probes()[1])
    decoder = CardDecoder(0, (SMALL,), CudaCard(0, (Cupy(), codec)))
    assert decode_on(decoder, [jpeg(30, 20)]).decoded.all()


@pytest.mark.parametrize("codec", [Codec(kinds=()), Codec(kinds=("CPU_ONLY",))], ids=["nothing", "its CPU decoder"])
def test_a_decoder_without_nvjpeg_is_refused(codec: Codec) -> None:
    with pytest.raises(UsageError, match=r"nvJPEG library may be missing: pip install 'mlcls-ray\[gpu\]'"):
        CudaCard(0, (Cupy(), codec))


@pytest.mark.parametrize(
    "codec", [Codec(kinds=()), Codec()], ids=["its decoder does not open", "its decoder finds no room"]
)
def test_a_full_card_is_refused_as_such(codec: Codec) -> None:
    cupy = Cupy(free=90 << 20)
    codec.none.update(probes())
    with pytest.raises(UsageError, match=r"gpu:0 \(NVIDIA Host\) is out of memory.*choose another card"):
        CardDecoder(0, (SMALL,), CudaCard(0, (cupy, codec)))


def test_a_card_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match=r"gpu:3 cannot be used: cudaErrorInvalidDevice.*mlcls doctor"):
        CudaCard(3, (Cupy(), Codec()))


def test_a_lost_card_is_not_a_batch_of_damaged_images() -> None:
    """nvImageCodec returns None for each image then; the next call of CUDA has the error."""
    cupy, codec, image = Cupy(), Codec(), jpeg(30, 20)
    decoder = CardDecoder(0, (SMALL,), CudaCard(0, (cupy, codec)))
    codec.none.add(image)
    assert not decode_on(decoder, [image]).decoded.any()
    cupy.lost = True
    with pytest.raises(DeviceLostError, match=r"gpu:0 \(NVIDIA Host\) stopped answering: cudaErrorLaunchFailure"):
        decode_on(decoder, [image])


def test_images_that_found_no_room_are_tried_again_in_smaller_groups() -> None:
    cupy, codec, images = Cupy(), Codec(), [jpeg(30 + number, 20) for number in range(4)]
    decoder = CardDecoder(0, (SMALL,), CudaCard(0, (cupy, codec)))
    codec.none.add(images[2])
    cupy.free = 100 << 20
    assert decode_on(decoder, images).decoded.tolist() == [True, True, False, True]
    assert cupy.released == 2  # for the four, and for the second half; one image alone is left to the CPU


def test_a_batch_that_does_not_fit_the_pool_is_an_error_of_memory() -> None:
    cupy = Cupy()
    decoder = CardDecoder(0, (SMALL,), CudaCard(0, (cupy, Codec())))
    cupy.limit = 3 * 24 * 24 * 4
    with pytest.raises(MemoryError, match="Out of memory"):
        decode_on(decoder, [jpeg(30, 20)] * 5)
