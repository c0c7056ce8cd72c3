"""Runs exported files in onnxruntime alone.

stock_onnxruntime.py MODELS_OF_DIGITS IMAGES_OF_DIGITS RESNET20 SHARED
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image


def open_session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def check_digits(model: Path, folder: Path) -> None:
    """A model of digits on the shipped images, preprocessed by what the file says."""
    session = open_session(model)
    how = json.loads(session.get_modelmeta().custom_metadata_map["ai.addernet.preprocessing"])
    files = sorted(folder.glob("*/*.png"))
    pixels = np.stack([np.asarray(Image.open(file), np.float32) / 255 for file in files])
    images = ((pixels - how["mean"][0]) / how["std"][0])[:, None].astype(np.float32)
    (logits,) = session.run(None, {"input": images})
    right = sum(int(file.parent.name) == a for file, a in zip(files, logits.argmax(1), strict=True))
    print(f"onnxruntime {onnxruntime.__version__}: {model.name}: {right} of {len(files)}")
    assert right / len(files) >= 0.95


def check_resnet20(model: Path, shared: Path) -> None:
    """The real network against its logits in float64."""
    truth = np.load(shared / "models" / "resnet20_addernet_cifar10_logits.npz")["logits"]
    records = np.fromfile(shared / "cifar10" / "test_batch.bin", np.uint8).reshape(-1, 3073)
    pixels = records[: len(truth), 1:].reshape(-1, 3, 32, 32) / 255
    mean = np.array([0.4914, 0.4822, 0.4465]).reshape(3, 1, 1)
    std = np.array([0.2023, 0.1994, 0.2010]).reshape(3, 1, 1)
    images = ((pixels - mean) / std).astype(np.float32)
    error = np.abs(open_session(model).run(None, {"input": images})[0] - truth).max()
    print(f"onnxruntime {onnxruntime.__version__}: ResNet-20, largest error {error:.1e}")
    assert error < 1e-3


def check_integers(folder: Path) -> None:
    """Graphs of integer nodes give the bits that are written beside them."""
    models = sorted(folder.glob("integers*.onnx"))
    for model in models:
        saved = np.load(model.with_suffix(".npz"))
        session = open_session(model)
        names = [value.name for value in session.get_outputs()]
        feed = {value.name: saved[value.name] for value in session.get_inputs()}
        for name, result in zip(names, session.run(names, feed), strict=True):
            assert (result == saved[name]).all(), f"{model}: {name}"
    print(f"onnxruntime {onnxruntime.__version__}: {len(models)} graphs of integer nodes agree")
    assert models


if __name__ == "__main__":
    try:
        import adder_onnx  # noqa: F401
    except ImportError:
        pass
    else:
        sys.exit("adder_onnx must not be importable here")
    digits, images, resnet20, shared = map(Path, sys.argv[1:])
    for file in sorted(digits.glob("*.onnx")):
        check_digits(file, images)
    check_integers(resnet20.parent)
    if resnet20.is_file():
        check_resnet20(resnet20, shared)
