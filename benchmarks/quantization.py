"""Accuracy of quantized networks, by width and calibration, and with few levels.

    python -m benchmarks.quantization [--check | --table] [--only NAME] [--also NAME MODEL DATA]

The trained ResNet-20 for CIFAR-10: ranges from the first 64 of its 500 images, accuracy on the
other 436; and the digits demo, whose ranges come from 64 of its 360 images. --also measures another
classifier, such as one of your own, on the first 64 of its images and the others; DATA is what
adder-run takes. All are evaluated in our runtime. Writes the table in docs/quantisation.md, and
benchmarks/results/quantization.json, in which networks that are not measured stay as they are; with
--check only compares the table with the latter, with --table only writes the table. The checkpoint
and images of ResNet-20 are looked for in ../shared, or in the folder that ADDER_ONNX_SHARED names.
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
from adder_onnx.quantization.quantize import DEFAULT_BITS_OF_LEVELS as LEVEL_BITS
from adder_onnx.quantization.sensitivity import decibels
from benchmarks.documents import ROOT, update_table

RESULT = ROOT / "benchmarks" / "results" / "quantization.json"
DOCUMENT = ROOT / "docs" / "quantisation.md"
COMMAND = "python -m benchmarks.quantization"
BITS = (8, 7, 6, 5, 4, 3, 2)
LEVELS = (8, 4)
CALIBRATIONS = ("output", "mse", "percentile", "minmax")
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


def run(data: bytes, images: NDArray[np.float32]) -> NDArray[np.float64]:
    """A model's logits."""
    session = adder_onnx.InferenceSession(data)
    (name,) = (value.name for value in session.get_inputs())
    logits = [session.run(None, {name: images[i : i + 32]})[0] for i in range(0, len(images), 32)]
    return np.concatenate(logits).astype(np.float64)


def measure(model: Path, data: Path, first: bool) -> dict[str, Any]:
    """Right and changed answers by width and calibration, and by levels."""
    images, labels = load(model, data)
    if not first:  # the images are sorted by class
        order = np.random.default_rng(0).permutation(len(images))
        images, labels = images[order], labels[order]
    proto = onnx.load(model)
    (name,) = (value.name for value in proto.graph.input)
    feeds = [{name: images[i : i + 16]} for i in range(0, SAMPLES, 16)]
    rest, labels = images[SAMPLES:], labels[SAMPLES:]
    exact = run(proto.SerializeToString(), rest)
    answers = exact.argmax(axis=1)
    rows = []
    kinds: list[dict[str, Any]] = [
        {"bits": b, "calibration": c} for b in BITS for c in CALIBRATIONS
    ]
    kinds += [{"bits": LEVEL_BITS, "levels": n, "calibration": "output"} for n in LEVELS]
    for kind in kinds:
        quantized = quantize(proto, feeds, **kind)
        found = run(quantized.model.SerializeToString(), rest)
        rows.append(
            {
                **kind,
                "right": int((found.argmax(axis=1) == labels).sum()),
                "changed": int((found.argmax(axis=1) != answers).sum()),
                "snr_db": round(decibels((exact**2).sum(), ((found - exact) ** 2).sum()), 2),
            }
        )
        print(model.name, rows[-1], flush=True)
    return {"images": len(rest), "float32": int((answers == labels).sum()), "rows": rows}


def table(result: dict[str, Any]) -> str:
    """Markdown: right answers, and those that differ from float32's, and decibels."""
    lines = []
    for name, found in result.items():
        lines += [
            f"**{name}**: of {found['images']} images float32 has {found['float32']} right.",
            "",
            "| bits | " + " | ".join(CALIBRATIONS) + " |",
            "| ---: |" + " ---: |" * len(CALIBRATIONS),
        ]
        for bits, levels in [*((b, None) for b in BITS), *((LEVEL_BITS, n) for n in LEVELS)]:
            rows = {
                r["calibration"]: r
                for r in found["rows"]
                if (r["bits"], r.get("levels")) == (bits, levels)
            }
            label = bits if levels is None else f"{bits}, {levels} levels"
            if rows:
                cells = [_cell(rows[c]) if c in rows else "–" for c in CALIBRATIONS]
                lines.append(f"| {label} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _cell(row: dict[str, Any]) -> str:
    return f"{row['right']} ({row['changed']}; {row['snr_db']:.1f})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--only", metavar="NAME", action="append", default=[])
    parser.add_argument(
        "--also", nargs=3, metavar=("NAME", "MODEL", "DATA"), action="append", default=[]
    )
    options = parser.parse_args()
    result = json.loads(RESULT.read_text())
    if not (options.check or options.table):
        shared = Path(os.environ.get("ADDER_ONNX_SHARED", ROOT.parent / "shared"))
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / "resnet20.onnx"
            networks: list[tuple[str, Path, Path, bool]] = [
                ("ResNet-20, CIFAR-10", model, shared / "cifar10", True),
                ("ResNet-8, digits", DIGITS / "resnet8_digits.onnx", DIGITS / "test", False),
                *((name, Path(file), Path(data), True) for name, file, data in options.also),
            ]
            chosen = [n for n in networks if not options.only or n[0] in options.only]
            if any(network[1] == model for network in chosen):
                checkpoint = shared / "models" / "resnet20_addernet_cifar10.pt"
                export = [sys.executable, "-m", "adder_onnx.cli.export", str(checkpoint)]
                subprocess.run([*export, str(model)], check=True, stdout=subprocess.DEVNULL)
            for name, file, data, first in chosen:
                result[name] = measure(file, data, first)
                write_atomically(RESULT, (json.dumps(result, indent=1) + "\n").encode())
    return update_table(DOCUMENT, COMMAND, table(result), check=options.check)


if __name__ == "__main__":
    sys.exit(main())
