"""Where a job decodes: on the card if it answers, never where the job asks for the CPU's pixels; what cannot be is refused."""

from __future__ import annotations

import logging.handlers
from collections.abc import Mapping, Sequence

import pytest

from mlcls_ray.config import LabelJob
from mlcls_ray.devices import Device, parse_device
from mlcls_ray.engines.checks.check import Outcome
from mlcls_ray.errors import UsageError
from mlcls_ray.images.preprocess import Preprocess
from mlcls_ray.job.placement import choose_placement, log, preprocess_fingerprint, start_trial
from mlcls_ray.models.artifact import Model

PIL = Preprocess(size=(32, 32), backend="pil", interpolation="BILINEAR")
CV2 = Preprocess(size=(32, 32), backend="cv2", interpolation="AREA")
MISSING = "nvImageCodec is not installed: pip install 'mlcls-ray[gpu]'"


def answers(device: Device) -> None:
    assert device.kind == "gpu"


def is_missing(device: Device) -> str:
    return MISSING


def is_never_asked(device: Device) -> str:
    raise AssertionError("nothing is to be tried on a worker")


def test_card_is_the_default_where_its_decoder_answers() -> None:
    assert choose_placement(LabelJob(device="gpu"), [PIL], answers).placement == "card"
    assert choose_placement(LabelJob(device="gpu:0,1", placement="card"), [PIL], answers).placement == "card"


@pytest.mark.parametrize(
    "fields",
    [{}, {"device": "npu"}, {"device": "gpu", "decode": "exact"}, {"device": "gpu", "placement": "split"},
     {"device": "gpu", "placement": "fused"}, {"device": "dcu"}, {"device": "gpu", "engine": "paddle"}],
)  # fmt: skip
def test_what_decodes_on_cpus_asks_no_card(fields: dict[str, str]) -> None:
    job = LabelJob(**fields)
    assert choose_placement(job, [PIL], is_never_asked) is job
    assert not job.may_decode_on_card


def test_a_decoder_that_does_not_answer() -> None:
    job = LabelJob(device="gpu")
    lines = logging.handlers.BufferingHandler(10)
    log.addHandler(lines)
    assert choose_placement(job, [PIL], is_missing) is job
    log.removeHandler(lines)
    assert [line.getMessage() for line in lines.buffer] == [
        f"images are decoded on the CPUs, not on the card: {MISSING}"
    ]
    with pytest.raises(
        UsageError, match="placement 'card': nvImageCodec is not installed.*pip install.*--placement split"
    ):
        choose_placement(LabelJob(device="gpu", placement="card"), [PIL], is_missing)


def test_a_preprocessing_that_the_card_cannot_do() -> None:
    job = LabelJob(device="gpu")
    assert choose_placement(job, [PIL, CV2], is_never_asked) is job
    with pytest.raises(UsageError, match="placement 'card': .*--placement split"):
        choose_placement(LabelJob(device="gpu", placement="card"), [PIL, CV2], is_never_asked)


def test_the_fingerprint_says_that_a_card_may_decode(tiny_model: Model) -> None:
    """Two levels may change a label: an incremental run must label again what the other decoder's pixels were labeled from."""
    cpu = preprocess_fingerprint(LabelJob(), tiny_model)
    assert cpu == tiny_model.preprocess_fingerprint("auto"), "tables of CPU runs stay valid"
    card = preprocess_fingerprint(LabelJob(device="gpu"), tiny_model)
    assert card == preprocess_fingerprint(LabelJob(device="gpu:1", placement="card"), tiny_model)
    assert card != cpu
    exact = preprocess_fingerprint(LabelJob(decode="exact"), tiny_model)
    assert preprocess_fingerprint(LabelJob(device="gpu", decode="exact"), tiny_model) == exact
    assert preprocess_fingerprint(LabelJob(device="gpu", placement="split"), tiny_model) == cpu
    assert preprocess_fingerprint(LabelJob(device="npu"), tiny_model) == cpu
    by_cv2 = tiny_model.model_copy(update={"preprocess": CV2})
    assert preprocess_fingerprint(LabelJob(device="gpu"), by_cv2) == by_cv2.preprocess_fingerprint("auto")


@pytest.mark.parametrize(
    ("outcome", "problem"),
    [
        (Outcome(0, "a warning\nok\n"), None),
        (Outcome(0, "CuPy is not installed\n"), "CuPy is not installed"),
        (Outcome(-11), "the process ended with signal 11"),
    ],
)
def test_the_decoder_is_tried_in_a_process_of_its_own(outcome: Outcome, problem: str | None) -> None:
    asked: list[Sequence[str]] = []

    def run(words: Sequence[str], environ: Mapping[str, str]) -> Outcome:
        asked.append(words)
        return outcome

    probe = start_trial(parse_device("gpu:3"), run)
    assert probe(parse_device("gpu:3")) == problem and asked == [["decoder", "3"]]
