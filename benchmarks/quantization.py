"""Accuracy of quantized networks, by width and calibration.

    python -m benchmarks.quantization [--check]

The trained ResNet-20 for CIFAR-10: ranges from the first 64 of its 500 images, accuracy on the
other 436; and the digits demo, whose ranges come from 64 of its 360 images. Both are evaluated in
our runtime. Writes the table in docs/quantisation.md, and benchmarks/results/quantization.json;
with --check only compares the table with the latter. The checkpoint and images of ResNet-20 are
looked for in ../shared, or in the folder that ADDER_ONNX_SHARED names.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

import adder_onnx
from adder_onnx.evaluation import open_dataset
from adder_onnx.evaluation.inference import load_inputs
from adder_onnx.files import write_atomically
from adder_onnx.metadata import ModelMetadata
from adder_onnx.quantization import quantize
from benchmarks.documents import ROOT, update_table

RESULT = ROOT / "benchmarks" / "results" / "quantization.json"
DOCUMENT = ROOT / "docs" / "quantisation.md"
COMMAND = "python -m benchmarks.quantization"
BITS = (8, 7, 6, 5, 4, 3, 2)
CALIBRATIONS = ("mse", "percentile", "minmax")
SAMPLES = 64
DIGITS = ROOT / "examples" / "digits"


def load(model: Path, data: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """All inputs and labels of a data set."""
    session = adder_onnx.InferenceSession(model)
    metadata = ModelMetadata.from_props(session.metadata)
    how = metadata.preprocessing
    dataset = open_dataset(data, inputs=session.get_inputs(), preprocessing=how)
    inputs = [load_inputs(dataset, i, how)[0] for i in range(dataset.images)]
    assert dataset.labels is not None
    return np.stack(inputs), dataset.labels


def classes(data: bytes, images: NDArray[np.float32]) -> NDArray[np.int64]:
    """A model's answers."""
    session = adder_onnx.InferenceSession(data)
    logits = [
        session.run(None, {"input": images[i : i + 32]})[0] for i in range(0, len(images), 32)
    ]
    return np.concatenate(logits).argmax(axis=1)


def measure(model: Path, data: Path, first: bool) -> dict[str, Any]:
    """Right and changed answers by width and calibration."""
    images, labels = load(model, data)
    if not first:  # the images are sorted by class
        order = np.random.default_rng(0).permutation(len(images))
        images, labels = images[order], labels[order]
    feeds = [{"input": images[i : i + 16]} for i in range(0, SAMPLES, 16)]
    rest, labels = images[SAMPLES:], labels[SAMPLES:]
    proto = onnx.load(model)
    exact = classes(proto.SerializeToString(), rest)
    rows = []
    for bits in BITS:
        for calibration in CALIBRATIONS:
            quantized = quantize(proto, feeds, bits=bits, calibration=calibration)
            answers = classes(quantized.model.SerializeToString(), rest)
            rows.append(
                {
                    "bits": bits,
                    "calibration": calibration,
                    "right": int((answers == labels).sum()),
                    "changed": int((answers != exact).sum()),
                }
            )
            print(model.name, rows[-1], flush=True)
    return {"images": len(rest), "float32": int((exact == labels).sum()), "rows": rows}


def table(result: dict[str, Any]) -> str:
    """Markdown: right answers, and in brackets those that differ from float32's."""
    lines = []
    for name, found in result.items():
        lines += [
            f"**{name}**: of {found['images']} images float32 has {found['float32']} right.",
            "",
            "| bits | " + " | ".join(CALIBRATIONS) + " |",
            "| ---: |" + " ---: |" * len(CALIBRATIONS),
        ]
        for bits in BITS:
            rows = {r["calibration"]: r for r in found["rows"] if r["bits"] == bits}
            cells = [f"{rows[c]['right']} ({rows[c]['changed']})" for c in CALIBRATIONS]
            lines.append(f"| {bits} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if options.check:
        result = json.loads(RESULT.read_text())
    else:
        shared = Path(os.environ.get("ADDER_ONNX_SHARED", ROOT.parent / "shared"))
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / "resnet20.onnx"
            checkpoint = shared / "models" / "resnet20_addernet_cifar10.pt"
            export = [sys.executable, "-m", "adder_onnx.cli.export", str(checkpoint), str(model)]
            subprocess.run(export, check=True, stdout=subprocess.DEVNULL)
            result = {
                "ResNet-20, CIFAR-10": measure(model, shared / "cifar10", first=True),
                "ResNet-8, digits": measure(
                    DIGITS / "resnet8_digits.onnx", DIGITS / "test", first=False
                ),
            }
        write_atomically(RESULT, (json.dumps(result, indent=1) + "\n").encode())
    return update_table(DOCUMENT, COMMAND, table(result), check=options.check)


if __name__ == "__main__":
    sys.exit(main())
