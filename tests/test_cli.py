"""The command as a user meets it: help, config, and one clear line with exit code 2 for all that is wrong."""

from __future__ import annotations

import contextlib
import inspect
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cyclopts import App
from rich.console import Console

from mlcls_ray.cli import COMMANDS, _reason, app, docstring, main
from mlcls_ray.errors import ImageError, Status
from mlcls_ray.table.compact import ROWS
from tests.conftest import ROOT, run_cli, run_installed


def commands(parent: App, *names: str) -> Iterator[tuple[str, ...]]:
    """The words of each command and subcommand."""
    for name in parent:
        if not name.startswith("-"):
            yield (*names, name)
            yield from commands(parent[name], *names, name)


ALL = list(commands(app))


def find(words: tuple[str, ...]) -> App:
    command = app
    for word in words:
        command = command[word]
    return command


def test_all_commands_are_under_a_heading() -> None:
    assert [words[0] for words in ALL if len(words) == 1] == [name for group in COMMANDS.values() for name in group]
    assert {words for words in ALL if len(words) == 2} == {
        ("models", "pull"), ("models", "prepare"),
        ("dataset", "check"), ("dataset", "split"), ("dataset", "from-labelstudio"), ("dataset", "from-table"),
    }  # fmt: skip


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_help_describes_every_option(words: tuple[str, ...]) -> None:
    command = find(words)
    assert command.help
    if command.default_command is None:
        return
    arguments = [argument for argument in command.assemble_argument_collection(parse_docstring=True) if argument.show]
    assert [argument.name for argument in arguments if not (argument.parameter.help or "").strip()] == []
    assert [name for argument in arguments for name in argument.negatives if name.startswith("--empty-")] == []
    text = io.StringIO()
    app.help_print(list(words), console=Console(file=text, width=200))
    assert text.getvalue().startswith(f"Usage: mlcls {' '.join(words)}")
    assert all(argument.name in text.getvalue() for argument in arguments if argument.name.startswith("--"))


def test_the_overview_names_all_commands() -> None:
    text = run_cli("--help", env={"COLUMNS": "120"}).stdout
    for heading, group in COMMANDS.items():
        assert heading in text
        assert all(f"│ {name} " in text for name in group)


def test_the_help_without_an_import_is_that_of_the_function() -> None:
    for group in COMMANDS.values():
        for name, target in group.items():
            if not target.endswith(":app"):
                assert docstring(target) == inspect.getdoc(app[name].default_command)


def test_every_command_on_an_output_takes_s3_options() -> None:
    for words in ALL:
        command = find(words)
        arguments = command.assemble_argument_collection() if command.default_command else []
        if any("output folder of `mlcls label`" in (argument.parameter.help or "") for argument in arguments):
            names = {name for argument in arguments for name in argument.names}
            assert {"--s3.endpoint-url", "--s3.region", "--s3.profile", "--s3.anonymous", "--s3.timeout-s"} <= names, (
                words
            )


def test_the_help_of_compact_names_its_default() -> None:
    assert f"Default: {ROWS:,}." in docstring("maintain:compact")


def test_print_config_is_a_config(tmp_path: Path) -> None:
    """Also a test of the command as it is installed."""
    words = ("label", "photos", "--out", "o", "--threshold", "0.5,person=0.7", "--annotate", "3", "--print-config")
    printed = run_cli(*words).stdout
    (tmp_path / "job.yaml").write_text(printed)
    loaded = yaml.safe_load(printed)
    assert (loaded["inputs"], loaded["annotate"]) == (["photos"], 3)
    assert loaded["threshold"] == {"default": 0.5, "classes": {"person": 0.7}, "per_class": None}
    assert run_cli("label", "--config", tmp_path / "job.yaml", "--print-config").stdout == printed


def printed_config(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    with contextlib.suppress(SystemExit):
        main([*words, "--print-config"])
    loaded: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    return loaded


def test_every_form_of_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "label", "a", "b", "--models", "x,y", "--threshold", "0.5", "--threshold", "cat=0.7", "--annotate", "all", "--max-failures", "1%",
        "--embeddings", "--dedupe", "--s3.endpoint-url", "http://s", "--s3.anonymous", "--workers", "2", "--device", "GPU:1",
    )  # fmt: skip
    loaded = printed_config(capsys, *words)
    assert (loaded["inputs"], loaded["models"], loaded["annotate"]) == (["a", "b"], ["x", "y"], "all")
    assert loaded["threshold"] == {"default": 0.5, "classes": {"cat": 0.7}, "per_class": None}
    assert (loaded["max_failures"], loaded["embeddings"], loaded["dedupe"], loaded["workers"]) == ("1%", True, True, 2)
    assert (loaded["s3"]["endpoint_url"], loaded["s3"]["anonymous"], loaded["device"]) == ("http://s", True, "gpu:1")


def test_a_flag_with_the_default_as_its_value_overrides_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job.yaml").write_text("engine: paddle\nbatch_size: 4\n")
    loaded = printed_config(capsys, "label", "--config", str(tmp_path / "job.yaml"), "--engine", "auto")
    assert (loaded["engine"], loaded["batch_size"]) == ("auto", 4)


def test_flags_override_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    config = ROOT / "configs" / "label_s3.yaml"
    loaded = printed_config(capsys, "label", "--config", str(config), "--batch-size", "3")
    assert (loaded["batch_size"], loaded["device"]) == (3, "gpu")


def test_a_service_and_a_fine_tuning_print_their_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    service = printed_config(capsys, "serve", "--no-visualize", "--port", "9000", "--threshold", "cat=0.5")
    assert (service["visualize"], service["port"], service["threshold"]["classes"]) == (False, 9000, {"cat": 0.5})
    tuning = printed_config(capsys, "finetune", "--data", "d", "--out", "o", "--loss.clip", "0.1")
    assert (tuning["data"], tuning["loss"]["clip"]) == ("d", 0.1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["label", "nowhere", "--out", "o"], "input 'nowhere' does not exist"),
        (["label", "--out", "o"], "no input"),
        (["label", "{images}"], "no output"),
        (["label", "{images}", "--out", "o", "--model", "PP-LCNet"], "did you mean 'PP-LCNet_x1_0_ML'"),
        (["label", "{images}", "--out", "o", "--model", "{images}"], "not a Paddle inference folder"),
        (["label", "{images}", "--out", "o", "--threshold", "persn=0.5"], "did you mean 'person'"),
        (["label", "{images}", "--out", "o", "--threshold", "2"], "between 0 and 1"),
        (["label", "{images}", "--out", "o", "--device", "tpu"], "unknown device 'tpu'"),
        (["label", "{images}", "--out", "o", "--batch-size", "0"], "greater than 0"),
        (["label", "{images}", "--out", "o", "--annotate", "few"], "annotate"),
        (["label", "{images}", "--out", "o", "--config", "none.yaml"], "cannot be read"),
        (["label", "{images}", "--out", "o", "--run-id", "a/b"], "run_id"),
        (["label", "{images}", "--out", "/proc/x"], "cannot be written"),
        (["label", "{images}", "--out", "{images}"], "holds something else"),
        (["label", "{images}", "--out", "ftp://x/y"], "unknown scheme 'ftp'"),
        (["label", "{images}", "--out", "o", "--speed", "11"], "speed"),
        (
            ["label", "{images}", "--out", "o", "--engine", "fast"],
            'Invalid value "fast" for --engine. Choose from: "auto"',
        ),
        (["label", "{images}", "--out", "o", "--limit", "many"], "--limit"),
        (
            ["label", "{images}", "--out", "o", "--workers-per-card", "2"],
            "'workers_per_card' is called workers_per_device now",
        ),
        (["label", "{images}", "--out", "o", "--models", "a,b", "--incremental"], "run the job once for each model"),
        (["finetune", "--out", "o"], "data: this field is required; --data"),
        (["probe", "photos"], "`mlcls probe` is called `mlcls estimate` now"),
        (["evaluate", "--data", "d", "--save", "o"], "or --model, and not both"),
        (["verify", "nowhere"], "holds no runs"),
        (["retry", "nowhere"], "holds no committed run"),
        (["retry", "nowhere", "--status", "timeouts"], "unknown status 'timeouts': did you mean 'timeout'"),
        (["compact", "nowhere", "--run-id", "r"], "run 'r' is not committed"),
        (["verify"], "out"),
        (["lebal"], "lebal"),
        (["lebal", "--verbose"], "lebal"),
        (["predict"], "no input: give images"),
        (["search", "nowhere"], "give --label, --not, --unlabeled, --like"),
        (["search", "nowhere", "--label", "a", "--unlabeled"], "give one of them"),
        (["--pipeline", "x", "--input", "a.jpg"], "`mlcls predict --input …`"),
        (["--input=a.jpg", "--pipeline=x"], "`mlcls predict --input …`"),
        (["--serve", "--pipeline", "x"], "`mlcls serve`"),
        (["--get_pipeline_config", "x"], "`mlcls config NAME`"),
        (["predict", "--get-pipeline-config", "x"], "`mlcls config NAME`"),
        (["--paddle2onnx"], "`mlcls export MODEL --format onnx"),
    ],
)
def test_an_error_is_one_line_with_exit_code_2(
    folder_of_images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main([word.replace("{images}", str(folder_of_images / "a")) for word in words])
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    if "--verbose" in words:
        assert printed.err.startswith("Traceback")
        return
    assert printed.err.startswith("mlcls: ")
    assert len(printed.err.splitlines()) == 1
    assert message.lower() in printed.err.lower()
    assert not (tmp_path / "o").exists() or not any(os.scandir(tmp_path / "o"))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError(2, "No such file", "a.jpg"), "'a.jpg': No such file"),
        (OSError(28, "No space left"), "No space left"),
        (ImageError(Status.CORRUPT, "half of it"), "corrupt: half of it"),
        (KeyError("x"), "KeyError: 'x'"),
    ],
)
def test_an_error_without_a_message_of_ours(error: Exception, reason: str) -> None:
    assert _reason(error) == reason


def test_each_command_takes_verbose() -> None:
    printed = run_cli("models", "starter", "--verbose")
    assert (printed.stdout.splitlines()[15], printed.stderr) == ("cat", "80 classes of starter\n")


def test_a_cluster_that_is_not_there(folder_of_images: Path, tiny_folder: Path, tmp_path: Path) -> None:
    words = ("label", folder_of_images, "--out", tmp_path / "o", "--model", tiny_folder)
    done = run_installed(*words, check=2, env={"RAY_ADDRESS": "127.0.0.1:9"}, timeout=30)
    assert "the Ray cluster at '127.0.0.1:9' cannot be reached" in done.stderr
