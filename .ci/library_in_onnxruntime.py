"""Compares what a stock onnxruntime gives, with our library and without, with our own runtime.

library_in_onnxruntime.py prepare FOLDER            answers of our runtime, beside the models there
library_in_onnxruntime.py check FOLDER LIBRARY      the same models in onnxruntime
"""

import sys
import threading
from pathlib import Path

import numpy as np

IMAGES = 5
TOLERANCE = 1e-5
"""Of float32 logits, relative to the largest, for the compiled file with the library."""
BODIES = 1e-4
"""The same where sums are made otherwise: by function bodies, or with nodes one by one."""


def prepare(folder: Path) -> None:
    """Writes inputs and answers for each model that is not compiled; prints the library's path."""
    import adder_onnx

    for path in models(folder):
        session = adder_onnx.InferenceSession(str(path))
        (value,) = session.get_inputs()
        shape = (IMAGES, *value.shape[1:])
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        np.savez(path.with_suffix(".npz"), x=x, y=session.run(None, {value.name: x})[0])
    print(adder_onnx.get_library_path())


def models(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.glob("*.onnx")) if not p.name.endswith(".compiled.onnx")]


def check(folder: Path, library: str) -> None:
    import onnxruntime

    assert not any(name.startswith("adder_onnx") for name in sys.modules)
    for path in models(folder):
        with np.load(path.with_suffix(".npz")) as saved:
            x, truth = saved["x"], saved["y"]
        for file in (path, path.with_suffix(".compiled.onnx")):
            for with_library in (True, False):
                options = onnxruntime.SessionOptions()
                options.intra_op_num_threads = 2
                if with_library:
                    options.register_custom_ops_library(library)
                session = onnxruntime.InferenceSession(
                    str(file), options, providers=["CPUExecutionProvider"]
                )
                feed = {session.get_inputs()[0].name: x}
                (y,) = session.run(None, feed)
                error = float(np.abs(y - truth).max() / np.abs(truth).max())
                is_compiled = file != path and with_library
                limit = 0 if "uint8" in path.name else TOLERANCE if is_compiled else BODIES
                what = "library" if with_library else "bodies"
                print(f"onnxruntime {onnxruntime.__version__}: {file.name}, {what}: {error:.1e}")
                assert error <= limit
                if with_library:
                    check_threads(session, feed, y)


def check_threads(session, feed, expected) -> None:
    """Eight threads at once get the same."""
    wrong = []

    def work() -> None:
        wrong.extend(i for i in range(20) if not (session.run(None, feed)[0] == expected).all())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare(Path(sys.argv[2]))
    else:
        check(Path(sys.argv[2]), sys.argv[3])
