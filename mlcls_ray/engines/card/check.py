"""What this machine's cards can decode, for `mlcls doctor` and for the plan of a job."""

from __future__ import annotations

from mlcls_ray.engines.card.cuda import OPTIONS, load_libraries, open_decoder
from mlcls_ray.engines.card.decoder import CardDecoder
from mlcls_ray.engines.card.probe import probes
from mlcls_ray.errors import UsageError, short_message
from mlcls_ray.images.preprocess import Preprocess


def decoder_problem(index: int) -> str | None:
    """Try the JPEG decoder and the kernels of a card on this machine. Takes seconds: do it in a process that ends.

    Returns:
        None: they work. Otherwise one line that says what is wrong and what to install.
    """
    try:
        CardDecoder(index, (Preprocess(size=(224, 224), backend="pil", interpolation="BILINEAR"),))
    except Exception as error:  # whatever it is, it keeps the card from being used
        return short_message(error)
    return None


def has_jpeg_engines(index: int) -> bool:
    """Tell whether a card has JPEG engines (A100, H100, H200 …) that answer. Others decode on their cores, about half as fast."""
    try:
        _, codec = load_libraries()
        decoder = open_decoder(codec, index, ("HW_GPU_ONLY",), OPTIONS[-1])
        return decoder.decode([probes()[0]])[0] is not None
    except (UsageError, RuntimeError):
        return False
