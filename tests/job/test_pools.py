"""Pool sizes: on any cluster a whole CPU stays free for Ray Data's own tasks, and what cannot run is refused."""

from __future__ import annotations

import pytest

from mlcls_ray.config import LabelJob
from mlcls_ray.devices import parse_device
from mlcls_ray.errors import UsageError
from mlcls_ray.job.cluster import Node
from mlcls_ray.job.pools import DECODE_S, Pools, size_pools

PIXEL_BYTES = 448 * 448 * 3


def nodes(*cpus: int, **resources: float) -> list[Node]:
    return [Node(count, {"CPU": float(count), **resources}) for count in cpus]


def pools(
    cluster: list[Node],
    rows: int = 10_000,
    device: str = "cpu",
    batch_size: int = 16,
    images_per_s: float | None = None,
    **job: object,
) -> Pools:
    return size_pools(
        LabelJob(device=device, **job), parse_device(device), cluster, rows, PIXEL_BYTES, batch_size, images_per_s
    )


@pytest.mark.parametrize("cpus", [(1,), (2,), (4,), (64,), (4, 4), (2, 16), (1, 8), (64,) * 10])
@pytest.mark.parametrize("placement", ["fused", "split"])
def test_a_cpu_stays_free_and_none_idles(cpus: tuple[int, ...], placement: str) -> None:
    sized = pools(nodes(*cpus), rows=10**6, placement=placement)
    assert sum(pool.workers * pool.cpus for pool in sized.pools) <= sum(cpus) - 1 + 1e-9
    reading = sum(pool.workers for pool in sized.pools[:-1])
    busy = sized.scoring.workers * sized.engine_threads + reading
    assert busy >= sum(count for count in cpus if count > 1 or cpus == (1,))
    assert len(sized.pools) == {"fused": 1, "split": 2}[placement]


def test_auto_placement_follows_the_device() -> None:
    assert pools(nodes(4)).placement == "fused"
    assert pools(nodes(4, GPU=2.0), device="gpu").placement == "split"


def test_accelerators_are_all_used_and_asked_for_as_resources() -> None:
    sized = pools(nodes(16, 16, GPU=4.0), device="gpu")
    assert (sized.scoring.workers, sized.reading.workers) == (8, 30)
    for name in ("gpu", "npu", "mlu"):
        scoring = pools(nodes(8, **{name.upper(): 2.0}), device=name).scoring
        assert scoring.device is not None
        expected = {"num_gpus": 1.0} if name == "gpu" else {"resources": {name.upper(): 1.0}}
        assert scoring.device.ray_options(scoring.share) == expected
    assert pools(nodes(8)).scoring.device is None


def test_named_and_shared_devices() -> None:
    assert pools(nodes(16, 16, GPU=4.0), device="gpu:0,1").scoring.workers == 4
    assert pools(nodes(16, 16, GPU=4.0), device="gpu:0,1,2,3,4,5").scoring.workers == 8
    shared = pools(nodes(16, GPU=4.0), device="gpu", workers_per_device=4).scoring
    assert (shared.workers, shared.share) == (16, 0.25)


def test_fused_workers_on_accelerators_share_their_nodes_cpus() -> None:
    scoring = pools(nodes(9, 5, GPU=2.0), device="gpu", placement="fused").scoring
    assert (scoring.workers, scoring.cpus, scoring.share) == (4, 2.0, 1.0)


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
    assert (sized.scoring.workers, sized.engine_threads) == (1, 64)
    assert pools(nodes(2), rows=40).scoring.workers == 2


@pytest.mark.parametrize("rows", [1, 12, 506, 3000, 10**6, 10**9])
def test_blocks_and_fragments(rows: int) -> None:
    sized = pools(nodes(2), rows=rows)
    assert sized.block_rows % 16 == 0
    assert sized.block_rows <= 512
    assert sized.block_rows <= max(sized.rows_per_fragment, 512)
    split = pools(nodes(2), rows=rows, placement="split")
    assert split.block_rows * PIXEL_BYTES <= (64 << 20) + 16 * PIXEL_BYTES
    assert split.scoring.batch_rows == split.block_rows


@pytest.mark.parametrize(("images_per_s", "expected"), [(0.45, 27), (30.0, 1800), (300.0, 18_000), (10**5, 100_000)])
def test_a_fragment_is_a_minute_of_a_workers_work(images_per_s: float, expected: int) -> None:
    """On accelerators others decode."""
    sized = pools(nodes(64, GPU=1.0), rows=10**9, device="gpu", images_per_s=images_per_s)
    assert sized.rows_per_fragment == expected
    assert sized.block_rows <= max(expected + 16, 16), "no block holds back more than a fragment"


def test_a_fused_worker_decodes_with_the_cpu_that_scores() -> None:
    assert pools(nodes(2), images_per_s=1 / DECODE_S).rows_per_fragment == round(60 / (2 * DECODE_S))
    assert pools(nodes(2), images_per_s=1.0).rows_per_fragment == 60
    assert pools(nodes(2), images_per_s=1.0, fragment_seconds=10).rows_per_fragment == 10
    assert pools(nodes(2)).rows_per_fragment == 500, "a rate that is not known"


def test_the_decode_pool_follows_the_rate() -> None:
    """Two devices that take 1 ms an image need decoders for 4 ms an image, and a quarter more; slow decoding takes every CPU."""
    assert pools(nodes(16, 16, GPU=1.0), device="gpu", images_per_s=1000).reading.workers == 10
    assert pools(nodes(16, 16, GPU=1.0), device="gpu", images_per_s=10).reading.workers == 1
    assert pools(nodes(16, 16, GPU=1.0), device="gpu", images_per_s=10_000).reading.workers == 30
    assert pools(nodes(16, 16, GPU=1.0), device="gpu").reading.workers == 30


@pytest.mark.parametrize(
    ("cluster", "reading", "scoring"),
    [(nodes(2, GPU=1.0), 1, 1), (nodes(16, GPU=1.0), 14, 1), (nodes(16, 16, GPU=4.0), 22, 8),
     (nodes(64) + nodes(8, GPU=8.0), 62, 8)],
)  # fmt: skip
def test_on_cards_every_other_cpu_fetches(cluster: list[Node], reading: int, scoring: int) -> None:
    sized = pools(cluster, rows=10**6, device="gpu", batch_size=256, placement="card", images_per_s=5000)
    assert (sized.placement, sized.reading.workers, sized.scoring.workers) == ("card", reading, scoring)
    assert (sized.scoring.cpus, sized.scoring.batch_rows, sized.reading.device) == (0.0, 256, None)
    assert sized.scoring.calls > 1 == sized.reading.calls, "decoding, scoring and selecting overlap"
    assert sum(pool.workers * pool.cpus for pool in sized.pools) <= sum(node.cpus for node in cluster) - 1


@pytest.mark.parametrize(("batch_size", "expected"), [(64, 512), (256, 512), (16, 512), (1000, 1000)])
def test_blocks_of_encoded_images(batch_size: int, expected: int) -> None:
    """Whole batches, and no more bytes than a block of pixels has."""
    sized = pools(nodes(16, GPU=1.0), rows=10**6, device="gpu", batch_size=batch_size, placement="card")
    assert sized.block_rows == expected
    assert sized.scoring.batch_rows == batch_size


@pytest.mark.parametrize(("images_per_s", "expected"), [(None, 60_000), (300.0, 18_000), (5000.0, 100_000)])
def test_fragments_of_a_card_take_about_a_minute(images_per_s: float | None, expected: int) -> None:
    sized = pools(nodes(16, GPU=1.0), rows=10**8, device="gpu", placement="card", images_per_s=images_per_s)
    assert sized.rows_per_fragment == expected


def test_shared_cards_that_decode() -> None:
    scoring = pools(nodes(16, GPU=2.0), device="gpu", placement="card", workers_per_device=3).scoring
    assert scoring.device is not None
    assert (scoring.workers, scoring.device.ray_options(scoring.share)) == (6, {"num_gpus": 1 / 3})


def test_split_cpus_follow_the_rate() -> None:
    sized = pools(nodes(16, 16), placement="split", images_per_s=1 / (3 * DECODE_S))
    assert (sized.scoring.workers, sized.reading.workers) == (24, 8)
    assert pools(nodes(16, 16), placement="split", images_per_s=10**6).scoring.workers == 1


def test_blocks_are_whole_batches_of_the_size_that_was_chosen() -> None:
    for batch_size in (4, 8, 32):
        assert pools(nodes(2), rows=10**6, batch_size=batch_size).block_rows % batch_size == 0


def test_what_the_job_says_wins() -> None:
    sized = pools(nodes(8), workers=3, block_rows=5, rows_per_fragment=7, images_per_s=50.0)
    assert (sized.scoring.workers, sized.block_rows, sized.rows_per_fragment) == (3, 5, 7)
