"""A Ray that a command starts for itself on this machine, without what only a cluster has a use for. By private APIs, as `ray_private`.

Each process of Ray imports Ray, and most of them Ray Data too, with the cores that the first image waits for. Measured with the 12 images
of `mlcls demo` on two cores, other work beside it: 38.8 → 25.2 CPU seconds in all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import ray._private.node
import ray._private.worker
from ray._private.node import Node


class OwnNode(Node):
    """The head node without its autoscaler, its dashboard's server and its log monitor (Ray 2.60).

    Nobody adds machines, the server has no page without a dashboard (`ray.init` waits for it all the same), and nobody reads logs live.
    """

    def __init__(self, ray_params: Any, **options: Any) -> None:
        """Take any free port for the agent: it would try for three seconds to get one that another Ray on this machine has."""
        ray_params.dashboard_agent_listen_port = 0
        super().__init__(ray_params, **options)

    def start_monitor(self) -> None:
        """Start no autoscaler."""

    def start_api_server(self, *, include_dashboard: bool | None, raise_on_failure: bool) -> None:
        """Start no server of a dashboard."""

    def start_log_monitor(self) -> None:
        """Start nothing that sends the workers' logs to this process. They are files all the same."""


@contextlib.contextmanager
def own_node() -> Iterator[None]:
    """Let `ray.init` start an `OwnNode`."""
    with _replaced(ray._private.node, Node=OwnNode):
        yield


@contextlib.contextmanager
def own_execution() -> Iterator[None]:
    """Execute datasets without three actors of Ray Data, where this process has started an `OwnNode` (Ray 2.60).

    They are the statistics for a dashboard; the coordinator of demands on an autoscaler, without whose answer no task starts; and the
    tracker of actors that move to another node, whose answer the scheduling loop waits for.
    """
    if not isinstance(ray._private.worker._global_node, OwnNode):
        yield
        return
    # Not at the top, where it would take seconds before Ray starts.
    from ray.data._internal.execution import streaming_executor
    from ray.data._internal.execution.operators import actor_pool_map_operator as pool
    from ray.data._internal.stats import _StatsManager

    with (
        _replaced(streaming_executor, create_cluster_autoscaler=_fixed_size),
        _replaced(pool, get_or_create_actor_location_tracker=_no_tracker, get_actor_locations=lambda actors: {}),
        _replaced(_StatsManager, register_dataset_to_stats_actor=_nothing, update_execution_metrics=_nothing),
    ):
        yield


def _fixed_size(*_: Any, **__: Any) -> Any:
    """Make a `ClusterAutoscaler` for a machine that is all there will be."""
    from ray.data._internal.cluster_autoscaler import ClusterAutoscaler
    from ray.data._internal.execution.interfaces import ExecutionResources

    class FixedSize(ClusterAutoscaler):
        def __init__(self) -> None:
            self.total = ExecutionResources.from_resource_dict(ray.cluster_resources())

        def try_trigger_scaling(self) -> None: ...

        def on_executor_shutdown(self) -> None: ...

        def get_total_resources(self) -> ExecutionResources:
            return self.total

    return FixedSize()


def _no_tracker() -> Any:
    """Make what a worker tells its place to. The function travels to the worker as code, so that this module need not be imported there."""
    return SimpleNamespace(update_actor_location=SimpleNamespace(remote=lambda actor, node: None))


def _nothing(*_: Any) -> None: ...


@contextlib.contextmanager
def _replaced(owner: Any, **values: Callable[..., Any]) -> Iterator[None]:
    """Replace attributes while the body runs."""
    before = {name: vars(owner)[name] for name in values}
    try:
        for name, value in values.items():
            setattr(owner, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)
