"""The planned run of the job's tests."""

from tests.job.conftest import run

__all__ = ["run"]
