"""The starter's ONNX graph without weights of its own: `python -m starter.onnx_graph FOLDER`. See `models.convert.onnx.shipped_onnx`.

So a first job needs no Paddle: to load it takes seconds of each worker.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import onnx

from mlcls_ray.models.artifact import load_model
from mlcls_ray.models.convert.onnx import ONNX, to_onnx

SMALL = 64
"""Bytes of a tensor that stays in the graph, such as a shape."""


def main(folder: Path) -> None:
    """Convert the model of a folder, and write the graph beside it."""
    model = load_model(folder)
    with tempfile.TemporaryDirectory() as work:
        to_onnx(model, Path(work, ONNX))
        graph = onnx.load(str(Path(work, ONNX)))
    share_weights(graph, model.parameters)
    onnx.save(graph, str(folder / ONNX))


def share_weights(graph: onnx.ModelProto, parameters: Path) -> None:
    """Replace each tensor by its place in Paddle's file, which holds the same bytes.

    Raises:
        ValueError: it does not hold them.
    """
    content = parameters.read_bytes()
    for tensor in graph.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor).tobytes()
        if len(values) >= SMALL:
            offset = content.index(values)
            del tensor.external_data[:]
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in {"location": parameters.name, "offset": offset, "length": len(values)}.items():
                tensor.external_data.add(key=key, value=str(value))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
