"""The verdict about a run: has what came in with it moved from what came in before?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from mlcls_ray.errors import Status, first_names
from mlcls_ray.labels.stability import psi, psi_noise, share_noise
from mlcls_ray.storage.store import Store
from mlcls_ray.storage.uris import redact_url
from mlcls_ray.table.drift.counts import MOST_IMAGES, Counts, ErrorKind, RunCounts, Sides, count_rows
from mlcls_ray.table.drift.options import DriftOptions
from mlcls_ray.table.drift.runs import Compared, LeftOut, choose_runs, kept_scores

Verdict = Literal["stable", "drift", "unknown"]


class Shift(BaseModel):
    """One distribution before and now, with its population stability index. `noise`: the PSI that chance alone seldom exceeds."""

    model_config = ConfigDict(frozen=True)

    before: tuple[int, ...]
    now: tuple[int, ...]
    psi: float
    noise: float
    moved: bool


class Share(BaseModel):
    """The images or inputs with something before and now, and their shares of all."""

    model_config = ConfigDict(frozen=True)

    name: str
    before: int
    now: int
    share_before: float
    share_now: float


class LabelShift(Share):
    """One label: the images that have it, and the shift of its scores.

    `scores`: counts in ten bins from 0 to 1, and one for scores that were not kept; if none were kept, the images with and without the
    label. None if a side has no labeled image.
    """

    threshold: float
    scores: Shift | None

    @property
    def psi(self) -> float:
        return self.scores.psi if self.scores else 0.0

    @property
    def moved(self) -> bool:
        return self.scores is not None and self.scores.moved


class StatusShift(Share):
    """One status: the inputs with it, among those that were tried for the first time."""

    rose: bool


class DriftReport(BaseModel):
    """The comparison of one run with runs before it.

    `verdict` is "unknown" if there is too little to compare; `sentence` says why. `labels` are those that moved most first.
    `labels_per_image`: images with 0, 1 … 4, and 5 or more labels. `images_*` were labeled, `tried_*` were tried for the first time.
    `is_sampled`: all counts are of a part of the rows. `notes` say what else changed between the runs.
    """

    model_config = ConfigDict(frozen=True)

    out: str
    run_id: str
    against: tuple[str, ...]
    verdict: Verdict
    sentence: str
    options: DriftOptions
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    images_before: int
    images_now: int
    tried_before: int
    tried_now: int
    is_sampled: bool
    labels: tuple[LabelShift, ...]
    labels_per_image: Shift | None
    statuses: tuple[StatusShift, ...]
    errors: tuple[ErrorKind, ...]
    runs: tuple[RunCounts, ...]

    @property
    def moved(self) -> list[LabelShift]:
        """The labels whose scores moved, the one that moved most first."""
        return [label for label in self.labels if label.moved]


def find_drift(store: Store, options: DriftOptions | None = None, most_images: int = MOST_IMAGES) -> DriftReport:
    """Compare a run with those before it. Only committed runs are read; memory does not grow with them.

    Raises:
        UsageError: no run is committed, or the options name one that is not there or cannot be compared.
    """
    chosen = options or DriftOptions()
    compared = choose_runs(store, chosen.run_id, chosen.against)
    counts = count_rows(store, compared, most_images)
    images, tried = counts.labels_per_image, counts.tried
    can_judge_labels = min(sum(images.before), sum(images.now)) >= chosen.min_images
    can_judge_statuses = min(sum(tried.before), sum(tried.now)) >= chosen.min_images
    labels = _label_shifts(compared, counts, chosen.threshold_psi if can_judge_labels else None)
    per_image = _shift(images, chosen.threshold_psi if can_judge_labels else None)
    statuses = _status_shifts(counts.statuses, tried, chosen.threshold_status if can_judge_statuses else None)
    reasons = list(_reasons(labels, per_image, statuses))
    verdict: Verdict = "drift" if reasons else "stable" if can_judge_labels else "unknown"
    numbers = (sum(images.before), sum(images.now), len(compared.before))
    return DriftReport(
        out=redact_url(store.root),
        run_id=compared.now.record.run_id,
        against=tuple(run.record.run_id for run in compared.before),
        verdict=verdict,
        sentence=f"run {compared.now.record.run_id}: {_conclude(reasons, verdict, numbers, labels, chosen.min_images)}",
        options=chosen,
        left_out=tuple(compared.left_out),
        notes=tuple(_notes(compared)),
        images_before=sum(images.before),
        images_now=sum(images.now),
        tried_before=sum(tried.before),
        tried_now=sum(tried.now),
        is_sampled=counts.is_sampled,
        labels=tuple(labels),
        labels_per_image=per_image,
        statuses=tuple(statuses),
        errors=tuple(counts.errors),
        runs=tuple(counts.runs),
    )


def _label_shifts(compared: Compared, counts: Counts, threshold: float | None) -> list[LabelShift]:
    """Compare each class of the vocabulary; `threshold` None: nothing is said to have moved."""
    images = Sides([sum(counts.labels_per_image.before)], [sum(counts.labels_per_image.now)])
    shifts = []
    for class_id, (name, cut) in enumerate(compared.now.record.thresholds.items()):
        with_it = counts.labels.get(class_id, Sides([0], [0]))
        without = Sides([images.before[0] - with_it.before[0]], [images.now[0] - with_it.now[0]])
        both = Sides(with_it.before + without.before, with_it.now + without.now)
        shifts.append(
            LabelShift(
                name=name,
                before=with_it.before[0],
                now=with_it.now[0],
                share_before=with_it.before[0] / max(images.before[0], 1),
                share_now=with_it.now[0] / max(images.now[0], 1),
                threshold=cut,
                scores=_shift(counts.scores.get(class_id, both), threshold),
            )
        )
    return sorted(
        shifts,
        key=lambda label: (not label.moved, -label.psi, -abs(label.share_now - label.share_before), label.name),
    )


def _shift(sides: Sides, threshold: float | None) -> Shift | None:
    """Compare two histograms; None if one of them is empty."""
    if not sum(sides.before) or not sum(sides.now):
        return None
    value, noise = psi(sides.before, sides.now), psi_noise(sides.before, sides.now)
    moved = threshold is not None and value > threshold + noise
    return Shift(before=tuple(sides.before), now=tuple(sides.now), psi=value, noise=noise, moved=moved)


def _status_shifts(statuses: Mapping[str, Sides], tried: Sides, threshold: float | None) -> list[StatusShift]:
    """Compare the share of each status. Errors that became fewer are no reason to look."""
    before, now = max(sum(tried.before), 1), max(sum(tried.now), 1)
    shifts = []
    for name, ((old,), (new,)) in statuses.items():
        rise = new / now - old / before - share_noise((old, before), (new, now))
        rose = threshold is not None and name != Status.OK.value and rise > threshold
        shifts.append(
            StatusShift(name=name, before=old, now=new, share_before=old / before, share_now=new / now, rose=rose)
        )
    return sorted(shifts, key=lambda status: (-status.now, -status.before, status.name))


def _reasons(labels: Sequence[LabelShift], per_image: Shift | None, statuses: Sequence[StatusShift]) -> Iterator[str]:
    """Say what has moved."""
    moved = [label for label in labels if label.moved]
    if moved:
        names = first_names([f"{label.name} (PSI {label.psi:.2f})" for label in moved], most=3)
        yield f"the scores of {len(moved)} label{'s' if len(moved) > 1 else ''} moved: {names}"
    if per_image and per_image.moved:
        yield f"images have other numbers of labels (PSI {per_image.psi:.2f}; {_largest_change(per_image)})"
    for status in statuses:
        if status.rose:
            yield f"'{status.name}' rose from {status.share_before:.1%} to {status.share_now:.1%}"


def _largest_change(per_image: Shift) -> str:
    """Name the number of labels whose share of the images changed most."""
    shares = [[count / sum(side) for count in side] for side in (per_image.before, per_image.now)]
    number = max(range(len(per_image.now)), key=lambda place: abs(shares[1][place] - shares[0][place]))
    name = f"{number} or more" if number == len(per_image.now) - 1 else str(number)
    return f"with {name}: {shares[0][number]:.1%} → {shares[1][number]:.1%}"


def _conclude(
    reasons: Sequence[str], verdict: Verdict, numbers: tuple[int, int, int], labels: Sequence[LabelShift], least: int
) -> str:
    before, now, runs = numbers
    scope = f"{now:,} labeled images against {before:,} of {runs} run{'' if runs == 1 else 's'}"
    if verdict == "drift":
        return f"{'; '.join(reasons)} ({scope})"
    if verdict == "stable":
        return f"nothing moved; the highest PSI is {labels[0].psi:.2f}, of {labels[0].name} ({scope})"
    if not runs:
        return "there is no earlier run to compare it with"
    return f"too few images to tell: {scope}, and both sides need {least:,}"


def _notes(compared: Compared) -> Iterator[str]:
    """Say what else changed between the runs, which may be why something moved."""
    now = compared.now.record
    cut = [
        name
        for run in compared.before
        for name, value in run.record.thresholds.items()
        if value != now.thresholds[name]
    ]
    if names := list(dict.fromkeys(cut)):
        how = (
            f"labels are counted at those of {now.run_id}"
            if kept_scores(now) != "all_scores: none"
            else "labels are as each run gave them, because scores were not kept"
        )
        yield f"thresholds changed ({first_names(names, most=3)}): {how}"
    engines = {f"{run.record.engine.engine} {run.record.engine.precision}" for run in compared.before}
    if others := sorted(engines - {f"{now.engine.engine} {now.engine.precision}"}):
        yield f"the engine is {now.engine.engine} {now.engine.precision}; before: {', '.join(others)}"
