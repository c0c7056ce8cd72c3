"""The tables of docs/scaling.md."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.documents import ROOT

__all__ = ["COMMAND", "DOCUMENT", "tables"]

COMMAND = "python -m benchmarks.scaling"
DOCUMENT = ROOT / "docs" / "scaling.md"

_MACHINES = 100
_PHOTOS = 100_000_000
_GIGABIT = 1e9 / 8
"""Bytes a second."""
_GPU_RESULT = ROOT / "benchmarks" / "results" / "nvidia-h100-80gb-hbm3.json"


def tables(results: list[dict[str, Any]]) -> str:
    """Markdown of all results."""
    return "\n\n".join(map(_section, results)) or "Not yet measured."


def _section(result: dict[str, Any]) -> str:
    local = next(row for row in result["commands"] if row["engine"] == "local")
    rows = [
        f"| {row['engine']} | {row['data']} | {row['images']} | {row['images_per_second']:.0f} | "
        f"{row['images_per_second'] / local['images_per_second']:.2f} | "
        f"{row['command_seconds']:.0f} s | {row['memory_mib']:.0f} MiB |"
        for row in result["commands"]
    ]
    header = (
        f"**{result['cpu']}, {result['cores']} cores**, Ray {result['versions']['ray']}, commit "
        f"{result['commit'][:12]}, {result['date']}. ResNet-20 in float32, images of 32 × 32.\n\n"
        "| engine | data | images | images/s, decoding included | of the local command | "
        "all of the command | memory of its processes |\n"
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |\n"
    )
    return header + "\n".join(rows) + "\n\n" + _model(result["photograph"])


def _model(photo: dict[str, Any]) -> str:
    """What machines would do, by rates of one core and of a network."""
    gpu = _gpu_rate()
    kinds = [
        ("16 cores, no GPU, 10 Gbit/s", 16, 0, 10),
        ("64 cores, no GPU, 10 Gbit/s", 64, 0, 10),
        ("16 cores, 1 H100, 10 Gbit/s", 16, 1, 10),
        ("128 cores, 8 H100, 100 Gbit/s", 128, 8, 100),
        ("128 cores, 8 H100, 10 Gbit/s", 128, 8, 10),
    ]
    rows = []
    for name, cores, gpus, gigabits in kinds:
        decoding, network = cores / photo["decoding_seconds"], gigabits * _GIGABIT / photo["bytes"]
        both = cores / (photo["decoding_seconds"] + photo["model_seconds"])
        model = gpus * gpu if gpus else cores / photo["model_seconds"]
        limits = {"network": network, "model": model, "decoding": decoding}
        rate = min(network, decoding, model) if gpus else min(network, both)
        narrow = min(limits, key=limits.__getitem__)
        minutes = _PHOTOS / (rate * _MACHINES) / 60
        storage = rate * _MACHINES * photo["bytes"] / 1e9
        rows.append(
            f"| {name} | {decoding:.0f} | {network:.0f} | {model:.0f} | {rate:.0f} | {narrow} | "
            f"{minutes:.0f} min | {storage:.1f} GB/s |"
        )
    return (
        f"| machine | decoding alone, images/s | network alone | model alone | all | narrowest | "
        f"{_PHOTOS // 10**6} million on {_MACHINES} of them | that the storage gives |\n"
        "| --- | ---: | ---: | ---: | ---: | --- | ---: | ---: |\n" + "\n".join(rows)
    )


def _gpu_rate() -> float:
    """Images per second of ResNet-50 at batch 64 on the GPU that was measured."""
    rows = json.loads(_GPU_RESULT.read_text())["networks"]
    (row,) = (row for row in rows if row["network"] == "resnet50" and row["batch"] == 64)
    return float(row["images_per_second"]["adder float32"])
