"""Options that are chosen by the number of training images."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlcls_ray.errors import UsageError
from mlcls_ray.train.config import Augment, Distill, FinetuneJob
from mlcls_ray.train.sized_job import SizedJob, say_size, size_job
from mlcls_ray.train.sizes import by_size


def job(**changes: object) -> FinetuneJob:
    return FinetuneJob.model_validate({"data": Path("data"), "out": Path("out"), **changes})


def test_few_images_get_small_careful_steps() -> None:
    few, some, many = (size_job(job(), images, is_trained=True) for images in (60, 339, 5_000))
    assert [sized.batch_size for sized in (few, some, many)] == [4, 8, 16]
    assert few.learning_rate < some.learning_rate < many.learning_rate == 1e-3
    assert [sized.freeze_batchnorm for sized in (few, some, many)] == [True, True, False]
    assert (few.augment.randaugment_n, few.augment.cutout) == (0, 0.0)
    assert many.augment.model_dump() == {
        "randaugment_n": 2, "randaugment_m": 7, "cutout": 0.3, "min_crop_area": 0.7,
    }  # fmt: skip
    assert size_job(job(), 100_000, is_trained=True).epochs < few.epochs


def test_what_is_given_stays() -> None:
    given = job(batch_size=32, epochs=3, freeze_batchnorm=False, learning_rate=0.5, augment=Augment(cutout=0.2), seed=7)
    sized = size_job(given, 60, is_trained=True)
    assert (sized.batch_size, sized.epochs, sized.freeze_batchnorm, sized.learning_rate) == (32, 3, False, 0.5)
    assert (sized.augment.cutout, sized.augment.randaugment_n, sized.seed) == (0.2, 0, 7)


def test_random_weights_have_nothing_to_keep() -> None:
    sized = size_job(job(), 60, is_trained=False)
    assert (sized.batch_size, sized.learning_rate, sized.freeze_fraction, sized.freeze_batchnorm) == (4, 1e-3, 0, False)
    assert sized.augment.randaugment_n == 2


def test_score_maps_belong_to_whole_images() -> None:
    sized = size_job(job(distill=Distill(local_weight=1.0)), 5_000, is_trained=True)
    assert (sized.augment.randaugment_n, sized.augment.min_crop_area) == (0, 1.0)


def test_workers_need_an_image_each() -> None:
    assert size_job(job(workers=6), 60, is_trained=True).batch_size == 6
    with pytest.raises(UsageError, match="batch_size 4 is less than workers 6"):
        size_job(job(workers=6, batch_size=4), 60, is_trained=True)


def test_what_was_chosen_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    for given in (job(epochs=2, batch_size=16), job()):
        say_size(given, size_job(given, 60, is_trained=True), 60)
    first, second = capsys.readouterr().err.split("60 training images, so: ")[1:]
    assert "learning_rate 0.0001, freeze_fraction 0.75, freeze_batchnorm false" in first
    assert "3 steps an epoch, 12 images left out of each epoch, others each time; 6 in all" in first
    assert "6 steps are few" in first
    assert (
        "batch_size 4, epochs 20, learning_rate 0.0001, freeze_fraction 0.75, freeze_batchnorm true, augment.randaugment_n 0"
        in second
    )
    assert "15 steps an epoch; 300 in all" in second


def test_the_rule_is_told_in_words() -> None:
    assert by_size("batch_size") == "4 below 200 images, 8 below 1,000, else 16"


def test_a_sized_job_has_no_open_options() -> None:
    open_options = {name for name, value in size_job(job(), 60, is_trained=True).model_dump().items() if value is None}
    assert open_options == {"name", "init_from", "head", "input_size", "early_stopping_patience"}
    assert SizedJob.model_fields.keys() == FinetuneJob.model_fields.keys()


@pytest.mark.parametrize("name", ["a/b", "", ".", " x", "a\nb", "..", "x" * 101])
def test_a_name_is_that_of_a_folder(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        job(name=name)
    assert job(name="Möwen am Strand 2").name
