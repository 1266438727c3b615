"""read_images, map_batches with a predictor, write_parquet, as Ray teaches it: `peer_ray_data.py MODEL_FOLDER IMAGES OUT`."""

import sys

import numpy as np
import ray


class Predictor:
    """Paddle Inference as its documentation sets it up on a CPU."""

    def __init__(self, folder: str) -> None:
        from paddle import inference

        config = inference.Config(f"{folder}/inference.json", f"{folder}/inference.pdiparams")
        config.disable_gpu()
        config.enable_mkldnn()
        config.set_cpu_math_library_num_threads(1)
        self.predictor = inference.create_predictor(config)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        tensor = (batch["image"].astype(np.float32) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        tensor = np.ascontiguousarray(tensor.transpose(0, 3, 1, 2), dtype=np.float32)
        handle = self.predictor.get_input_handle(self.predictor.get_input_names()[0])
        handle.reshape(tensor.shape)
        handle.copy_from_cpu(tensor)
        self.predictor.run()
        scores = self.predictor.get_output_handle(self.predictor.get_output_names()[0]).copy_to_cpu()
        return {"path": batch["path"], "scores": scores}


def main() -> None:
    folder, images, out = sys.argv[1:]
    ray.init("local", include_dashboard=False, log_to_driver=False)
    rows = ray.data.read_images(images, size=(448, 448), mode="RGB", include_paths=True)
    # One of two cores for the pool: with both, nothing is left for reading, and Ray Data waits for ever.
    pool = ray.data.ActorPoolStrategy(size=max(1, int(ray.cluster_resources()["CPU"]) - 1))
    rows.map_batches(Predictor, fn_constructor_args=(folder,), batch_size=16, compute=pool).write_parquet(out)


if __name__ == "__main__":
    main()
