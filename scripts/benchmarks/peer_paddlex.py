"""Runs in PaddleX's own venv: `peer_paddlex.py MODEL_FOLDER IMAGES BATCH`. Prints images per second, loading not counted."""

import os
import sys
import time
from pathlib import Path

os.environ["PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK"] = "True"

import yaml
from paddlex import create_model


def main() -> None:
    folder, images, batch = Path(sys.argv[1]), sorted(Path(sys.argv[2]).iterdir()), int(sys.argv[3])
    name = yaml.safe_load((folder / "inference.yml").read_text())["Global"]["model_name"]
    model = create_model(model_name=name, model_dir=str(folder), device="cpu", batch_size=batch)
    paths = [str(path) for path in images]
    list(model.predict(paths[: 2 * batch]))
    began = time.perf_counter()
    count = sum(1 for _ in model.predict(paths))
    print(count / (time.perf_counter() - began))


if __name__ == "__main__":
    main()
