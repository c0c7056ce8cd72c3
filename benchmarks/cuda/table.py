"""Makes the table in docs/gpu.md from the results in benchmarks/results.

    python -m benchmarks.cuda.table [--check]

A row that was measured at another commit than the rest of its result names it.

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

_PARTS = ("networks", "layers", "borders")

_TYPES = ("float32", "float16", "uint8")


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
    if any("commit" in row for part in _PARTS for row in result.get(part, [])):
        lines[0] += " Rows that name a commit are of that one."
    if result["networks"]:
        lines += _networks(result["networks"])
    if result["layers"]:
        lines += _sums(result["layers"])
    if result.get("borders"):
        lines += _borders(result["borders"])
    if result["layers"]:
        lines += _layers(result["layers"])
    return "\n".join(lines)


def _sums(rows: list[dict[str, Any]]) -> list[str]:
    """Of all adder layers of a network, each as often as it is there."""
    lines = [
        "| all adder layers, ms | " + " | ".join(_COLUMNS) + " |",
        "| --- |" + " ---: |" * len(_COLUMNS),
    ]
    for network, batch in dict.fromkeys((row["network"], row["batch"]) for row in rows):
        of_network = [row for row in rows if (row["network"], row["batch"]) == (network, batch)]
        cells = []
        for name in _COLUMNS.values():
            if any(name not in row["seconds"] for row in of_network):
                cells.append("–")
                continue
            milli = 1e3 * sum(r["count"] * r["seconds"][name]["median"] for r in of_network)
            cells.append(f"{milli:.2f}" if milli < 10 else f"{milli:.1f}")
        title = f"{network}, batch {batch}{_at(of_network)}"
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return [*lines, ""]


def _layers(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "<details><summary>Each layer: 10¹² taps or multiply-accumulates per second</summary>",
        "",
        "| layer, batch | " + " | ".join(_COLUMNS) + f" | of the bound, {' / '.join(_TYPES)} |",
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
        share = " / ".join(f"{100 * shares[t]:.0f} %" for t in _TYPES if t in shares)
        title = f"{row['network']} {' '.join(row['layer'].split())}, {row['batch']}{_at([row])}"
        lines.append(f"| {title} | {' | '.join(rates)} | {share} |")
    return [*lines, "", "</details>", ""]


def _borders(rows: list[dict[str, Any]]) -> list[str]:
    lines = ["| conversion at a chain's border | µs | GB/s |", "| --- | ---: | ---: |"]
    for row in rows:
        title = (
            f"{row['network']}, batch {row['batch']}, {row['direction']}, "
            f"{' × '.join(map(str, row['shape'][1:]))}, {row['type']}{_at([row])}"
        )
        micro = f"{row['seconds']['median'] * 1e6:.1f}"
        lines.append(f"| {title} | {micro} | {row['bytes_per_second'] / 1e9:.0f} |")
    return [*lines, ""]


def _networks(rows: list[dict[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row["seconds"]))
    lines = [
        "| images/s | standard nodes on | " + " | ".join(map(_title, names)) + " |",
        "| --- | --- |" + " ---: |" * len(names),
    ]
    for row in rows:
        rates = [
            f"{row['batch'] / row['seconds'][name]['median']:.0f}"
            if name in row["seconds"]
            else "–"
            for name in names
        ]
        title = f"{row['network']}, batch {row['batch']}{_at([row])}"
        lines.append(f"| {title} | {row['standard_nodes']} | {' | '.join(rates)} |")
    return [*lines, ""]


def _at(rows: list[dict[str, Any]]) -> str:
    """The commits of rows that name one."""
    commits = dict.fromkeys(row["commit"][:7] for row in rows if "commit" in row)
    if not commits:
        return ""
    part = "" if all("commit" in row for row in rows) else "in part "
    return f" ({part}{', '.join(commits)})"


def _title(name: str) -> str:
    """Of a contender among networks: those of convolutions are torch's."""
    ours = name.removeprefix("adder ")
    return f"ours, {ours}" if ours != name else name.replace("conv", "torch, convolutions,", 1)


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
