"""A Ray that others use too: a job waits for a free CPU or device with a word about it, and uses what is free."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler

import pytest
import ray

from mlcls_ray.devices import Device
from mlcls_ray.errors import UsageError
from mlcls_ray.job.capacity import wait_for_room
from mlcls_ray.job.cluster import check_reachable
from mlcls_ray.job.ray_private import has_autoscaler, names_groups
from tests.conftest import Handler, reply

CPU = Device("cpu")


@ray.remote
class Holder:
    """Another job's worker: it holds what it was started with."""

    def is_there(self) -> bool:
        return True


def hold(**options: object) -> ray.actor.ActorHandle:
    holder = Holder.options(**options).remote()  # type: ignore[attr-defined]
    assert ray.get(holder.is_there.remote())
    return holder


@pytest.mark.usefixtures("loopback_ray")
def test_a_free_cluster_is_used_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    (node,) = wait_for_room(CPU, None, 0)
    assert node.cpus == 2
    (node,) = wait_for_room(Device("npu"), None, 0)
    assert (node.cpus, node.resources["NPU"]) == (2, 2)
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("loopback_ray")
def test_the_rest_of_a_cluster_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    holder = hold(num_cpus=1, resources={"NPU": 1})
    (node,) = wait_for_room(Device("npu"), None, 0, settle_s=0.5)
    assert (node.cpus, node.resources["NPU"]) == (1, 1)
    assert capsys.readouterr().err == "other jobs hold 1 of the cluster's 2 CPUs; this one uses what is free\n"
    ray.kill(holder)


@pytest.mark.usefixtures("loopback_ray")
@pytest.mark.parametrize(("device", "held"), [(CPU, {"num_cpus": 2}), (Device("gpu"), {"num_cpus": 0, "num_gpus": 2})])
def test_a_full_cluster(device: Device, held: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    holder = hold(**held)
    with pytest.raises(UsageError, match=rf"no free {device.resource} within 1 s: .*--wait-for-resources"):
        wait_for_room(device, None, 1, settle_s=0.5)
    assert f"the cluster has no free {device.resource}: waiting for other jobs to end" in capsys.readouterr().err
    threading.Timer(0.5, ray.kill, [holder]).start()
    (node,) = wait_for_room(device, None, 60, settle_s=0.2)
    assert node.cpus > 0
    assert node.resources[device.resource] > 0


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ([], False),
        ([""], False),
        (["node_1f", "node_2e"], False),
        (["head-group"], True),
        (["node_1f", "node_gpu"], True),
    ],
)
def test_what_a_cluster_with_an_autoscaler_says_of_its_nodes(types: list[str], expected: bool) -> None:
    assert names_groups(types, ["1f", "2e", "3d"]) is expected


@pytest.mark.usefixtures("loopback_ray")
def test_a_ray_without_an_autoscaler() -> None:
    assert not has_autoscaler()


@pytest.mark.usefixtures("loopback_ray")
def test_the_address_of_a_head_node() -> None:
    check_reachable(ray.get_runtime_context().gcs_address, timeout_s=10)


def test_the_port_of_something_else(http_server: Callable[[Handler], str]) -> None:
    def answer(request: SimpleHTTPRequestHandler) -> None:
        reply(request, b"not Ray")

    for address in (http_server(answer).removeprefix("http://"), "localhost:1"):
        with pytest.raises(UsageError, match=f"the Ray cluster at '{address}'"):
            check_reachable(address, timeout_s=5)


def test_a_port_that_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UsageError, match="no head node of Ray answers there; its port is 6379"):
            check_reachable(address, timeout_s=1)
