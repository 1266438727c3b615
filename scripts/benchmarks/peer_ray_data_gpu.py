"""The plain Ray Data script on a card, as Ray teaches it: `peer_ray_data_gpu.py GRAPH IMAGES OUT WIDTH HEIGHT BATCH [cpu]`.

`GRAPH` is the ONNX graph that `mlcls label` scores with: uint8 [N, H, W, 3] in, scores out. With `cpu` as the last word it runs on CPUs,
to try the script.
"""

from __future__ import annotations

import sys

import numpy as np
import ray


class Predictor:
    """ONNX Runtime as its documentation sets it up."""

    def __init__(self, graph: str, provider: str) -> None:
        import onnxruntime

        if provider == "CUDAExecutionProvider":
            onnxruntime.preload_dlls()
        self.session = onnxruntime.InferenceSession(graph, providers=[provider])
        if self.session.get_providers()[0] != provider:
            raise RuntimeError(f"the session came up on {self.session.get_providers()[0]}")

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        pixels = np.ascontiguousarray(batch["image"], dtype=np.uint8)
        scores = self.session.run(None, {self.session.get_inputs()[0].name: pixels})[0]
        return {"path": batch["path"], "scores": scores}


def main() -> None:
    graph, images, out, width, height, batch, *rest = sys.argv[1:]
    on_cpu = rest == ["cpu"]
    ray.init("local", include_dashboard=False, log_to_driver=False)
    rows = ray.data.read_images(images, size=(int(height), int(width)), mode="RGB", include_paths=True)
    arguments = (graph, "CPUExecutionProvider" if on_cpu else "CUDAExecutionProvider")
    pool = ray.data.ActorPoolStrategy(size=1)
    share = {} if on_cpu else {"num_gpus": 1}
    rows.map_batches(
        Predictor, fn_constructor_args=arguments, batch_size=int(batch), compute=pool, **share
    ).write_parquet(out)


if __name__ == "__main__":
    main()
