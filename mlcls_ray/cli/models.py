"""`mlcls models`."""

from __future__ import annotations

from mlcls_ray.errors import UsageError


def models() -> None:
    """List the models that have a name, with mAP on COCO 2017, input size and download size."""
    from rich.console import Console
    from rich.table import Table

    from mlcls_ray.models.cache import cached_folder
    from mlcls_ray.models.zoo import MIRROR_VARIABLE, PUBLISHED, STARTER, STARTER_MAP, STARTER_SIZE

    table = Table(box=None, pad_edge=False)
    for column in ("name", "mAP %", "input", "download", "on this machine"):
        table.add_column(column, justify="right" if column in ("mAP %", "input", "download") else "left")
    table.add_row(STARTER, f"{STARTER_MAP:.1f}*", str(STARTER_SIZE), "–", "ships with the package")
    for name, model in PUBLISHED.items():
        folder = cached_folder(name)
        facts = (f"{model.mean_average_precision:.2f}", str(model.input_size), f"{model.download_mb:.0f} MB")
        table.add_row(name, *facts, str(folder) if folder else "no")
    console = Console()
    console.print(table)
    console.print(
        f"\n`mlcls models pull NAME` fetches one; {MIRROR_VARIABLE} replaces the server. "
        "*On a sample of 167 COCO images, not the full set.",
        highlight=False,
    )


def pull(name: str) -> None:
    """Fetch an official model into this machine's cache.

    Parameters
    ----------
    name
        One of the names that `mlcls models` lists.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from mlcls_ray.errors import suggest
    from mlcls_ray.models import cache
    from mlcls_ray.models.zoo import PUBLISHED, STARTER

    if name == STARTER:
        print(f"'{STARTER}' ships with the package: nothing to fetch")
        return
    if name not in PUBLISHED:
        raise UsageError(f"unknown model '{name}'{suggest(name, PUBLISHED)}")
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=None)
        folder = cache.pull(name, lambda done, total: progress.update(task, completed=done, total=total))
    print(folder)
