"""Says what is on images, by a model that adder-compile has made, in onnxruntime alone.

    python classify.py MODEL.onnx LIBRARY IMAGE…

LIBRARY is the path that ``adder_onnx.get_library_path()`` gives. Nothing else of adder-onnx is
needed: the library and the model may be copied to where there are NumPy, Pillow and onnxruntime.
Prints each image's class, with its label where the model has labels, and its probability.
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image


def read_image(path: str, how: dict) -> np.ndarray:
    """The input (C, H, W) for an image, as the model's metadata say."""
    image = Image.open(path).convert({1: "L", 3: "RGB"}[how["channels"]])
    height, width = how["height"], how["width"]
    if how["resize"] is not None:
        scale = how["resize"] / min(image.size)
        size = [int(scale * side) for side in image.size]
        size[image.size.index(min(image.size))] = how["resize"]
        image = image.resize(size, Image.Resampling.BILINEAR)
    if how["crop"]:
        left, top = round((image.width - width) / 2), round((image.height - height) / 2)
        image = image.crop((left, top, left + width, top + height))
    pixels = np.asarray(image, np.float32).reshape(height, width, -1) / 255
    return ((pixels - how["mean"]) / how["std"]).transpose(2, 0, 1).astype(np.float32)


def main(model: str, library: str, *paths: str) -> None:
    """Prints a line for each image."""
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(library)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    how = json.loads(metadata["ai.addernet.preprocessing"])
    labels = json.loads(metadata.get("ai.addernet.labels", "null"))

    name = session.get_inputs()[0].name
    for path in paths:
        logits = session.run(None, {name: read_image(path, how)[None]})[0].ravel().astype(float)
        probabilities = np.exp(logits - logits.max())
        best = int(logits.argmax())
        label = f" {labels[best]!r}" if labels else ""  # which may hold control characters
        print(f"class {best}{label}, probability {1 / probabilities.sum():.4f}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
