"""Pool sizes: on any cluster a whole CPU stays free for Ray Data's own tasks, and what cannot run is refused."""

from __future__ import annotations

import pytest

from mlcls_ray.config import LabelJob
from mlcls_ray.devices import parse_device
from mlcls_ray.errors import UsageError
from mlcls_ray.job.cluster import Node
from mlcls_ray.job.pools import Measured, Pools, size_pools

PIXEL_BYTES = 448 * 448 * 3


def nodes(*cpus: int, **resources: float) -> list[Node]:
    return [Node(count, {"CPU": float(count), **resources}) for count in cpus]


def pools(cluster: list[Node], rows: int = 10_000, device: str = "cpu", **job: object) -> Pools:
    return size_pools(LabelJob(**job), parse_device(device), cluster, rows, PIXEL_BYTES)


@pytest.mark.parametrize("cpus", [(1,), (2,), (4,), (64,), (4, 4), (2, 16), (1, 8), (64,) * 10])
@pytest.mark.parametrize("placement", ["fused", "split"])
def test_a_cpu_stays_free_and_none_idles(cpus: tuple[int, ...], placement: str) -> None:
    sized = pools(nodes(*cpus), rows=10**6, placement=placement)
    asked = sized.score_workers * sized.score_cpus + sized.read_workers * sized.read_cpus
    assert asked <= sum(cpus) - 1 + 1e-9
    busy = sized.score_workers * sized.engine_threads + sized.read_workers
    assert busy >= sum(count for count in cpus if count > 1 or cpus == (1,))
    if placement == "fused":
        assert sized.read_workers == 0


def test_auto_placement_follows_the_device() -> None:
    assert pools(nodes(4)).placement == "fused"
    assert pools(nodes(4, GPU=2.0), device="gpu").placement == "split"


def test_accelerators_are_all_used_and_shown_as_resources() -> None:
    sized = pools(nodes(16, 16, GPU=4.0), device="gpu")
    assert (sized.score_workers, sized.score_resources, sized.read_workers) == (8, {"GPU": 1.0}, 30)
    assert pools(nodes(8, NPU=2.0), device="npu").score_resources == {"NPU": 1.0}
    assert pools(nodes(8, MLU=2.0), device="mlu").score_resources == {"MLU": 1.0}


def test_named_and_shared_cards() -> None:
    assert pools(nodes(16, 16, GPU=4.0), device="gpu:0,1").score_workers == 4
    assert pools(nodes(16, 16, GPU=4.0), device="gpu:0,1,2,3,4,5").score_workers == 8
    shared = pools(nodes(16, GPU=4.0), device="gpu", workers_per_device=4)
    assert (shared.score_workers, shared.score_resources) == (16, {"GPU": 0.25})


def test_fused_workers_on_accelerators_share_their_nodes_cpus() -> None:
    sized = pools(nodes(9, 5, GPU=2.0), device="gpu", placement="fused")
    assert (sized.score_workers, sized.score_cpus, sized.score_resources) == (4, 2.0, {"GPU": 1.0})


def test_what_cannot_run_is_refused() -> None:
    with pytest.raises(UsageError, match="has no GPU"):
        pools(nodes(8), device="gpu")
    with pytest.raises(UsageError, match="has no NPU .it has: CPU, GPU."):
        pools(nodes(8, GPU=1.0), device="npu")
    with pytest.raises(UsageError, match="""--resources '{"XPU": 8}'"""):
        pools(nodes(8), device="xpu")
    with pytest.raises(UsageError, match="has no CPU"):
        pools([Node(0, {})])


def test_a_small_job_starts_few_workers_and_uses_all_their_threads() -> None:
    sized = pools(nodes(64), rows=12)
    assert (sized.score_workers, sized.engine_threads) == (1, 64)
    assert pools(nodes(2), rows=40, batch_size=16).score_workers == 2


@pytest.mark.parametrize("rows", [1, 12, 506, 3000, 10**6, 10**9])
def test_blocks_and_fragments(rows: int) -> None:
    sized = pools(nodes(2), rows=rows)
    assert sized.block_rows % 16 == 0
    assert sized.block_rows <= 512
    assert sized.block_rows <= max(sized.rows_per_fragment, 512)
    split = pools(nodes(2), rows=rows, placement="split")
    assert split.block_rows * PIXEL_BYTES <= (64 << 20) + 16 * PIXEL_BYTES


@pytest.mark.parametrize(("rate", "expected"), [(0.45, 27), (30.0, 1800), (300.0, 18_000), (10**5, 100_000)])
def test_a_fragment_is_a_minute_of_a_workers_work(rate: float, expected: int) -> None:
    sized = size_pools(LabelJob(), parse_device("cpu"), nodes(64), 10**9, PIXEL_BYTES, Measured(rate))
    assert sized.rows_per_fragment == expected
    assert sized.block_rows <= max(expected + 16, 16), "no block holds back more than a fragment"


def measured(decode_s: float, score_s: float, **job: object) -> Pools:
    device = parse_device(str(job.pop("device", "cpu")))
    cluster = nodes(16, 16, GPU=1.0)
    return size_pools(LabelJob(**job), device, cluster, 10**6, PIXEL_BYTES, Measured(50.0, decode_s, score_s))


def test_the_decode_pool_follows_what_was_measured() -> None:
    """Two cards that take 1 ms an image need five decoders of 2 ms and a quarter more; slow decoding takes every CPU, as before."""
    assert measured(0.002, 0.001, device="gpu").read_workers == 5
    assert measured(0.0001, 0.01, device="gpu").read_workers == 1
    assert measured(0.05, 0.001, device="gpu").read_workers == 30
    assert measured(0.0, 0.0, device="gpu").read_workers == 30


def test_split_cpus_follow_what_was_measured() -> None:
    sized = measured(0.001, 0.003, placement="split")
    assert (sized.score_workers, sized.read_workers) == (24, 8)
    assert measured(0.1, 0.0001, placement="split").score_workers == 1


def test_blocks_are_whole_batches_of_the_size_that_was_chosen() -> None:
    cluster, device = nodes(2), parse_device("cpu")
    for batch_size in (4, 8, 32):
        sized = size_pools(LabelJob(), device, cluster, 10**6, PIXEL_BYTES, None, batch_size)
        assert sized.block_rows % batch_size == 0
    assert pools(nodes(4, GPU=1.0), device="gpu").block_rows == 128, "on cards batches are of 64"


def test_what_the_job_says_wins() -> None:
    sized = pools(nodes(8), workers=3, block_rows=5, rows_per_fragment=7)
    assert (sized.score_workers, sized.block_rows, sized.rows_per_fragment) == (3, 5, 7)
