"""A program for PaddleX's own venv: `parity_paddlex.py MODEL_FOLDER LIST OUT` writes one JSON line for each path in LIST."""

import json
import os
import sys
from pathlib import Path

os.environ["PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK"] = "True"

import yaml
from paddlex import create_model


def main() -> None:
    folder, paths, out = sys.argv[1:]
    name = yaml.safe_load(Path(folder, "inference.yml").read_text())["Global"]["model_name"]
    model = create_model(model_name=name, model_dir=folder, device="cpu", batch_size=1)
    with Path(out).open("w") as stream:
        for path in Path(paths).read_text(encoding="utf-8", errors="surrogateescape").split("\0"):
            outcome: dict[str, object] = {"path": path}
            try:
                page, *_ = model.predict(path, threshold=0.0)
                scores = zip(page["class_ids"], page["scores"], strict=True)
                outcome["scores"] = {str(class_id): float(score) for class_id, score in scores}
            except BaseException as error:  # PaddleX raises whatever OpenCV and its own asserts raise
                outcome["error"] = f"{type(error).__name__}: {error}"[:200]
            stream.write(json.dumps(outcome) + "\n")


if __name__ == "__main__":
    main()
