"""The options of `mlcls drift`. This module loads neither Arrow nor DuckDB: the command's help must not wait for them."""

from __future__ import annotations

from pydantic import Field

from mlcls_ray.config import Options


class DriftOptions(Options):
    """The runs to compare, and the shift that counts as drift."""

    run_id: str | None = Field(default=None, description="Run to look at. Default: the newest one that labeled images.")
    against: str = Field(
        default="7",
        description="What to compare it with: a number (so many runs before it), a date such as 2026-11-27 (the runs before it since "
        "then), or the name of one run.",
    )
    threshold_psi: float = Field(
        default=0.2,
        gt=0,
        allow_inf_nan=False,
        description="PSI above which scores have moved, on top of what chance explains; 0.1 is strict.",
    )
    threshold_status: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Rise in the share of an error status that is drift, on top of what chance explains.",
    )
    min_images: int = Field(
        default=100, ge=1, description="Fewest images on either side; with fewer there is no verdict."
    )
