"""Messages of errors: one line each, with a hint or the way to resume."""

from __future__ import annotations

from mlcls_ray.errors import MESSAGE_LIMIT, LeaseError, RunError, ray_cause, resumable_error, short_message, suggest

RAY_MESSAGE = """ray::MapWorker(MapBatches(Score)).submit() (pid=7, ip=10.0.0.1)
  File "/x/score.py", line 3, in __call__
    raise RuntimeError("inner")
mlcls_ray.errors.RunError: the engine failed: out of memory

The above exception was the direct cause of the following exception:
  File "/x/ray.py", line 9, in submit
    yield from _map_task()
Set RAY_X=1 for more.
"""


def test_a_mistyped_name_gets_the_closest_one_or_the_list() -> None:
    assert suggest("Persn", ["person", "cat"]) == ": did you mean 'person'?"
    assert suggest("xyz", ["person", "cat"]) == "; known: person, cat"
    assert suggest("xyz", [str(number) for number in range(20)]).endswith("10, 11, …")


def test_a_short_message_is_one_line_of_limited_length() -> None:
    assert short_message(ValueError("line 1:\n   ^\nbad")) == "line 1: ^ bad"
    assert short_message(ValueError()) == "ValueError"
    long = short_message(ValueError("x" * 1000))
    assert (len(long), long[-1]) == (MESSAGE_LIMIT, "…")


def test_the_cause_of_a_ray_error_is_the_innermost_exception() -> None:
    assert ray_cause(RuntimeError(RAY_MESSAGE)) == "mlcls_ray.errors.RunError: the engine failed: out of memory"
    assert ray_cause(RuntimeError("first\nlast")) == "last"
    assert ray_cause(RuntimeError()) == "RuntimeError"


def test_the_error_of_a_stopped_run_says_how_to_resume() -> None:
    error = resumable_error("r", "stopped: disk full", LeaseError)
    assert isinstance(error, RunError)
    assert error.exit_code == 4
    assert (
        str(error) == "run 'r' stopped: disk full. What is written is kept; the same command (or --run-id r) resumes it"
    )
