"""The command `browse`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from mlcls_ray.cli.flags import NO_FLAGS, Output, S3Flags, Vanished, s3_options

Switch = Annotated[bool, Parameter(negative=(), show_default=False)]


def browse(
    out: Output,
    *,
    port: int = 8765,
    host: str = "127.0.0.1",
    read_only: Switch = False,
    user: str | None = None,
    compare: Annotated[list[str] | None, Parameter(negative=())] = None,
    allow_private_urls: Switch = False,
    vanished: Vanished = False,
    s3: S3Flags = NO_FLAGS,
) -> None:
    """Look at the labels in a web browser: find pictures, correct their labels, see what another threshold would change.

    Prints an address with a secret token; nobody can use the page without it. Corrections are kept in OUT/corrections.

    Parameters
    ----------
    port
        Port to listen on. 0: any that is free.
    host
        Address to listen on. Default: this machine only.
    read_only
        Do not take corrections.
    user
        Name to write into corrections. Default: the login name.
    compare
        Another output folder, to find images with other labels. Can be given several times.
    allow_private_urls
        Also show images from private, loopback and link-local addresses.
    """
    import getpass

    from mlcls_ray.explore.browse.server import check_installed, serve

    check_installed()
    from mlcls_ray.explore.browse.session import Subject

    if user is None:
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # no such user on this machine, as in some containers
            user = "unknown"
    subject = Subject(
        out=out,
        s3=s3_options(s3),
        others=tuple(compare or ()),
        corrected_by=user,
        is_read_only=read_only,
        with_vanished=vanished,
        allow_private_urls=allow_private_urls,
    )
    serve(subject, host, port)
