"""Makes the table in docs/gpu.md from the results in benchmarks/results.

    python -m benchmarks.cuda.table [--check]

With --check nothing is written, and the exit status is 1 where the table is not up to date.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks.documents import ROOT, results_of, update_table

__all__ = ["main", "table"]

COMMAND = "python -m benchmarks.cuda.table"
NOT_MEASURED = "Not yet measured.\n"

_COLUMNS = {
    "ours, float32": "float32",
    "ours, float16": "float16",
    "ours, uint8": "uint8",
    "naive": "naive",
    "torch.cdist": "cdist",
    "cuDNN float32": "conv float32",
    "cuDNN TF32": "conv tf32",
    "cuDNN float16": "conv float16",
}


def table(results: list[dict[str, Any]]) -> str:
    """Markdown for results of `benchmarks.cuda`, one section for each device."""
    return "\n".join(_section(result) for result in results) if results else NOT_MEASURED


def _section(result: dict[str, Any]) -> str:
    quick = ", a quick run" if result.get("quick") else ""
    lines = [
        f"**{result['device']}**, driver {result['driver_and_clocks'].partition(',')[0]}, "
        f"commit {result['commit'][:12] or 'unknown'}, {result['date']}{quick}.",
        "",
    ]
    if result["layers"]:
        bound = ", ".join(f"{r / 1e12:.1f} in {t}" for t, r in result["bound"].items())
        lines[0] += f" The bound is {bound} Ttaps/s."
        lines += _layers(result["layers"])
    if result.get("borders"):
        lines += _borders(result["borders"])
    if result["networks"]:
        lines += _networks(result["networks"])
    return "\n".join(lines)


def _layers(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| layer, batch | " + " | ".join(_COLUMNS) + " | of the bound, float32 / uint8 |",
        "| --- |" + " ---: |" * (len(_COLUMNS) + 1),
    ]
    for row in rows:
        rates = [
            f"{row['taps'] / row['seconds'][name]['median'] / 1e12:.2f}"
            if name in row["seconds"]
            else "–"
            for name in _COLUMNS.values()
        ]
        shares = row["share_of_bound"]
        share = " / ".join(f"{100 * shares[t]:.0f} %" for t in ("float32", "uint8") if t in shares)
        title = f"{row['network']} {' '.join(row['layer'].split())}, {row['batch']}"
        lines.append(f"| {title} | {' | '.join(rates)} | {share} |")
    return [*lines, "", "10¹² taps or multiply-accumulates per second, medians.", ""]


def _borders(rows: list[dict[str, Any]]) -> list[str]:
    lines = ["| conversion at a chain's border | µs | GB/s |", "| --- | ---: | ---: |"]
    for row in rows:
        title = (
            f"{row['network']}, batch {row['batch']}, {row['direction']}, "
            f"{' × '.join(map(str, row['shape'][1:]))}, {row['type']}"
        )
        micro = f"{row['seconds']['median'] * 1e6:.1f}"
        lines.append(f"| {title} | {micro} | {row['bytes_per_second'] / 1e9:.0f} |")
    return [*lines, ""]


def _networks(rows: list[dict[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row["seconds"]))
    lines = [
        "| images/s | standard nodes on | " + " | ".join(names) + " |",
        "| --- | --- |" + " ---: |" * len(names),
    ]
    for row in rows:
        rates = [
            f"{row['batch'] / row['seconds'][name]['median']:.0f}"
            if name in row["seconds"]
            else "–"
            for name in names
        ]
        title = f"{row['network']}, batch {row['batch']}"
        lines.append(f"| {title} | {row['standard_nodes']} | {' | '.join(rates)} |")
    return [*lines, ""]


def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(argv)
    return update_table(
        root / "docs" / "gpu.md",
        COMMAND,
        table(results_of("cuda", root)),
        check=options.check,
    )


if __name__ == "__main__":
    sys.exit(main())
