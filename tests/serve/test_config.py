"""The service's configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlcls_ray.config_file import load_config
from mlcls_ray.errors import UsageError
from mlcls_ray.serve.config import ServeConfig
from tests.conftest import ROOT, run_cli


def test_the_sample_file_shows_the_defaults() -> None:
    assert load_config(ServeConfig, ROOT / "configs" / "serve.yaml", {}) == ServeConfig()


def test_flags_override_the_file_and_are_printed(tmp_path: Path) -> None:
    (tmp_path / "serve.yaml").write_text("port: 9000\nmodel: starter\n")
    printed = run_cli("serve", "--config", tmp_path / "serve.yaml", "--port", "9001", "--print-config").stdout
    assert "port: 9001\n" in printed
    assert "host: 127.0.0.1\n" in printed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot: 1", "unknown field 'prot': did you mean 'port'"),
        ("port: 70000", "port: .*65535"),
        ("engine: fast", "engine"),
        ("map: {person: 3}", "map: person: 3: a label is text"),
    ],
)
def test_wrong_values_are_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "serve.yaml").write_text(text)
    with pytest.raises(UsageError, match=message):
        load_config(ServeConfig, tmp_path / "serve.yaml", {})
