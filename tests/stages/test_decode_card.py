"""DecodeRest and DecodeOnCard: together they give what Decode gives, whatever the card refuses."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from hostile_corpus import write_corpus

from mlcls_ray import schema
from mlcls_ray.engines.failures import is_out_of_memory
from mlcls_ray.errors import DeviceLostError
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.stages.decode import Decode
from mlcls_ray.stages.decode_card import DecodeOnCard
from mlcls_ray.stages.decode_rest import DecodeRest
from mlcls_ray.stages.read import Read
from mlcls_ray.stages.spec import Batch, RunSpec, pixels_column
from tests.conftest import encode, picture
from tests.images.test_jpeg_header import mutated, oriented
from tests.stages.faked_card import FakedCard, decoder_on
from tests.stages.specs import PREPROCESS, model_spec, run_spec
from tests.stages.test_decode import batch_of
from tests.stages.test_read import manifest

OTHER = Preprocess(resize_short=20, crop=(16, 16), backend="pil", interpolation="BICUBIC")
IMAGES = [
    encode(picture(seed=1)), encode(picture(300, 200), progressive=True), encode(picture(), "PNG"), oriented(6),
    encode(picture().convert("L")), encode(picture().convert("CMYK")), encode(picture(300, 200))[:2000], b"<html>", b"",
    encode(picture(5000, 1)), encode(picture(seed=2)),
]  # fmt: skip


def spec_of(**job: object) -> RunSpec:
    """Two models with other preprocessings. `exact`: so that the CPU's pixels are those of the full size, like the card's."""
    return run_spec(model_spec("a"), model_spec("b", OTHER), **{"decode": "exact", **job})


def on_card(spec: RunSpec, batch: Batch, card: FakedCard | None = None) -> Batch:
    return DecodeOnCard(spec, decoder_on(card or FakedCard(), spec.preprocesses))(DecodeRest(spec)(batch))


def assert_equal(actual: Batch, expected: Batch) -> None:
    assert set(actual) == set(expected)
    for name, column in expected.items():
        values = actual[name]
        is_equal = (
            np.array_equal(values, column) if name.startswith(schema.PIXELS) else values.tolist() == column.tolist()
        )
        assert is_equal, name


@pytest.mark.parametrize("refuse", [0, 1, 2])
@pytest.mark.parametrize("annotate", ["none", "all", 3])
def test_the_batch_is_that_of_the_cpus(annotate: str | int, refuse: int) -> None:
    spec = spec_of(annotate=annotate, max_pixels=10**5)._replace(rows=len(IMAGES))
    card = FakedCard(refuse)
    assert_equal(on_card(spec, batch_of(*IMAGES), card), Decode(spec)(batch_of(*IMAGES)))
    assert card.seen == 5, (
        "all but PNG, CMYK, the cut one, text, nothing, and the one that is too long when it is resized"
    )


def test_rows_that_failed_before_keep_their_status() -> None:
    spec = spec_of(annotate="all")
    uris = ["/nowhere.jpg"]
    card = FakedCard()
    actual = on_card(spec, Read(spec)(manifest(uris)), card)
    assert_equal(actual, Decode(spec)(Read(spec)(manifest(uris))))
    assert actual["status"].tolist() == ["missing"]
    assert card.seen == 0


def test_only_rows_that_the_cpus_decoded_carry_pixels() -> None:
    """Not zeros for every row of the card: these would fill the object store."""
    spec = spec_of()
    batch = DecodeRest(spec)(batch_of(*IMAGES[:3]))
    assert [bool(header) for header in batch[schema.JPEG_HEADER]] == [True, True, False]
    assert [len(pixels) for pixels in batch[pixels_column(PREPROCESS)]] == [0, 0, 32 * 24 * 3]
    assert [len(image_bytes) for image_bytes in batch[schema.IMAGE_BYTES]] == [len(IMAGES[0]), len(IMAGES[1]), 0]
    assert all(column.dtype == object for name, column in batch.items() if name.startswith(schema.PIXELS))


@pytest.mark.parametrize("count", [300, pytest.param(2000, marks=pytest.mark.slow)])
def test_no_damage_is_lost_on_a_card_that_says_nothing_of_it(count: int) -> None:
    images = mutated(count, seed=1)
    spec = spec_of()
    card = FakedCard()
    assert_equal(on_card(spec, batch_of(*images), card), Decode(spec)(batch_of(*images)))
    assert card.seen > count / 10


def test_hostile_corpus(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_corpus(tmp_path / "corpus")
    paths = [path for path in sorted((tmp_path / "corpus").rglob("*")) if path.is_file() and "endless" not in path.name]
    spec = spec_of()
    images = [path.read_bytes() for path in paths]
    card = FakedCard()
    assert_equal(on_card(spec, batch_of(*images), card), Decode(spec)(batch_of(*images)))
    assert card.seen > 20


def test_a_card_without_memory_says_so_and_changes_nothing() -> None:
    spec = spec_of()
    batch = DecodeRest(spec)(batch_of(*IMAGES))
    before = {name: column.copy() for name, column in batch.items()}
    with pytest.raises(MemoryError) as caught:
        DecodeOnCard(spec, decoder_on(FakedCard(rows=4), spec.preprocesses))(batch)
    assert is_out_of_memory(caught.value)
    assert_equal(batch, before)


def test_an_image_with_which_cards_are_lost_is_kept_from_the_card() -> None:
    poison = encode(picture(), comment=b"poison")
    spec = spec_of()
    with pytest.raises(DeviceLostError):
        on_card(spec, batch_of(IMAGES[0], poison), FakedCard(poison=b"poison"))
    card = FakedCard(poison=b"poison")
    actual = on_card(spec._replace(suspects=frozenset({1})), batch_of(IMAGES[0], poison), card)
    assert_equal(actual, Decode(spec)(batch_of(IMAGES[0], poison)))
    assert card.seen == 1


def test_a_batch_of_rays_that_is_read_only() -> None:
    spec = spec_of()
    batch = DecodeRest(spec)(batch_of(*IMAGES))
    for column in batch.values():
        column.flags.writeable = False
    actual = DecodeOnCard(spec, decoder_on(FakedCard(refuse=2), spec.preprocesses))(batch)
    assert_equal(actual, Decode(spec)(batch_of(*IMAGES)))
