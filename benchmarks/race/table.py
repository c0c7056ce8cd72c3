"""Makes the tables in docs/benchmarks.md and README.md and the plot from the results of races.

    python -m benchmarks.race.table [--check]

With --check nothing is written, and the exit status is 1 where a table is not up to date.
Contenders of few levels are never named without what a network loses by them, which is read from
the results of `benchmarks.quantization`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.documents import ROOT, results_of, update_table
from benchmarks.race.contenders import CONTENDERS, LEVELS

__all__ = ["main", "summary", "table"]

COMMAND = "python -m benchmarks.race.table"
OURS = tuple(name for name, (kind, _) in CONTENDERS.items() if kind == "ours")
MEMORY_THREADS = 2
SUMMARY = {"resnet20": 128, "resnet50": 8}
"""Batch sizes of the short table, two threads, by network."""

FEWEST_LEVELS = 8
"""Of a contender in the short table: with fewer, a network loses what nobody would give."""

NAMES = {"resnet20": "ResNet-20", "resnet50": "ResNet-50"}


TRAINED = "ResNet-20, CIFAR-10"
"""The trained network whose accuracy is told; of ResNet-50 there is none."""


def accuracies(quantization: dict[str, Any]) -> dict[str, str]:
    """What contenders of few levels have right, by name, from benchmarks.quantization's results."""
    network = quantization[TRAINED]
    rights = {row["levels"]: row["right"] for row in network["rows"] if "levels" in row}
    return {
        name: f"the trained ResNet-20 has {rights[levels]} of {network['images']} right, "
        f"{network['float32']} in float32"
        for name, levels in LEVELS.items()
    }


def table(results: list[dict[str, Any]], accuracy: dict[str, str]) -> str:
    """Markdown for results of `benchmarks.race`, one section for each machine.

    Args:
        results: of races.
        accuracy: as `accuracies` gives it.
    """
    if not results:
        return "Not yet measured.\n"
    return "\n".join(_section(result, accuracy) for result in results)


def summary(results: list[dict[str, Any]], accuracy: dict[str, str]) -> str:
    """Markdown: images per second of large batches, columns for each machine side by side.

    Args:
        results: of races.
        accuracy: as `accuracies` gives it.
    """
    heads = [
        f"{_machine(result)}: {NAMES[network]}, batch {batch}"
        for result in results
        for network, batch in SUMMARY.items()
    ]
    lines = [f"| images/s, 2 threads | {' | '.join(heads)} |", "| --- |" + " ---: |" * len(heads)]
    races = [_races(result) for result in results]
    for name in CONTENDERS:
        rows = [found.get((*race, 2), {}).get(name) for found in races for race in SUMMARY.items()]
        if not any(rows) or LEVELS.get(name, FEWEST_LEVELS) < FEWEST_LEVELS:
            continue
        rates = [_rate(row["images_per_second"]) if row else "–" for row in rows]
        row_of = "**{}**" if name in OURS else "{}"
        cells = [row_of.format(cell) for cell in (_title(name, accuracy), *rates)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _machine(result: dict[str, Any]) -> str:
    name = f"{result['cpu']}, {result['isa']}"
    return f"{name}, held to {result['held_to']}" if "held_to" in result else name


def _title(name: str, accuracy: dict[str, str]) -> str:
    return f"{name} ({accuracy[name]})" if name in LEVELS else name


def _section(result: dict[str, Any], accuracy: dict[str, str]) -> str:
    versions, races = result["versions"], _races(result)
    names = [name for name in CONTENDERS if any(name in rows for rows in races.values())]
    lines = [
        f"**{_machine(result)}, {result['cores']} cores**; "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + f"; commit {result['commit'][:12]}, {result['date']}.",
        "",
        *_head("images/s (10th to 90th percentile)", [_title(name, accuracy) for name in names]),
    ]
    for key, rows in races.items():
        network, batch, threads = key
        title = f"{network}, batch {batch}, {threads} thread{'s' * (threads > 1)}"
        lines.append(f"| {title} | {' | '.join(_cell(name, rows) for name in names)} |")
    lines += ["", *_head("peak memory in MB", names)]
    for (network, batch, threads), rows in races.items():
        if threads == MEMORY_THREADS:
            cells = [_memory(name, rows) for name in names]
            lines.append(f"| {network}, batch {batch} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _head(title: str, names: list[str]) -> list[str]:
    return [f"| {title} | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]


def _races(result: dict[str, Any]) -> dict[tuple[str, int, int], dict[str, Any]]:
    races: dict[tuple[str, int, int], dict[str, Any]] = {}
    for row in result["rows"]:
        key = (row["network"], row["batch"], row["threads"])
        races.setdefault(key, {})[row["contender"]] = row
    return races


def _cell(name: str, rows: dict[str, Any]) -> str:
    """The rate, its spread, where it was held the free one, and for others how ours compare."""
    row = rows.get(name)
    if row is None:
        return "–"
    seconds = row["seconds"]
    low, high = row["batch"] / seconds["p90"], row["batch"] / seconds["p10"]
    text = f"{_rate(row['images_per_second'])} ({_rate(low)} … {_rate(high)})"
    if "free" in row:
        text += f", free {_rate(row['free']['images_per_second'])}"
    if name in OURS:
        return f"**{text}**"
    ratios = [
        rows[ours]["images_per_second"] / row["images_per_second"] for ours in OURS if ours in rows
    ]
    return f"{text}<br>ours {' / '.join(f'{ratio:.2f}' for ratio in ratios)} ×"


def _memory(name: str, rows: dict[str, Any]) -> str:
    row = rows.get(name)
    if row is None or "peak_bytes" not in row:
        return "–"
    text = _rate(row["peak_bytes"] / 1e6)
    return f"**{text}**" if name in OURS else text


def _rate(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _plot(results: list[dict[str, Any]], path: Path) -> None:
    """Bars of the images per second at two threads, of each machine; few levels are left out."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "adder-onnx"
    import matplotlib.pyplot as plt

    races = [
        (f"{network}\nbatch {batch}\n{result.get('held_to', result['isa'])}", rows)
        for result in results
        for (network, batch, threads), rows in _races(result).items()
        if threads == 2
    ]
    figure, axes = plt.subplots(figsize=(max(10, len(races)), 4.5), layout="constrained")
    names = [name for name in CONTENDERS if name not in LEVELS]
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        places = [j + (i - len(names) / 2 + 0.5) * width for j in range(len(races))]
        rates = [rows[name]["images_per_second"] if name in rows else 0 for _, rows in races]
        axes.bar(places, rates, width, label=name, color=f"C{i}")
    axes.set_yscale("log")
    axes.set_ylabel("images per second (logarithmic)")
    axes.set_xticks(range(len(races)), [title for title, _ in races])
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(argv)
    results = results_of("race", root)
    quantization = json.loads((root / "benchmarks" / "results" / "quantization.json").read_text())
    accuracy = accuracies(quantization)
    tables = {
        root / "docs" / "benchmarks.md": table(results, accuracy),
        root / "README.md": summary(results, accuracy),
    }
    status = max(
        update_table(document, COMMAND, text, check=options.check)
        for document, text in tables.items()
    )
    if results and not options.check:
        _plot(results, root / "docs" / "race.svg")
    return status


if __name__ == "__main__":
    sys.exit(main())
