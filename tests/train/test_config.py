"""The fields of a fine-tuning: today's names, and the old ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from mlcls_ray.train.config import RENAMED, FinetuneJob

REQUIRED = {"data": Path("data"), "out": Path("out")}


def nested(field: str, value: object) -> dict[str, object]:
    """Make the mapping that sets a field such as `distill.logit_clip`."""
    group, _, name = field.rpartition(".")
    return {group: {name: value}} if group else {field: value}


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_name_is_refused_and_the_new_one_is_a_field(old: str, new: str) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        FinetuneJob.model_validate({**REQUIRED, **nested(old, 0.1)})
    field = new.partition(" ")[0]
    with pytest.raises(ValidationError) as caught:
        FinetuneJob.model_validate({**REQUIRED, **nested(field, ["not", "a", "value"])})
    assert {error["type"] for error in caught.value.errors()}.isdisjoint({"extra_forbidden"})


@pytest.mark.parametrize("values", [{"freeze_fraction": 6}, {"distill": {"logit_clip": 0.5}}, {"ema_decay": 1.0}])
def test_values_outside_of_their_range_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="less than"):
        FinetuneJob.model_validate({**REQUIRED, **values})
