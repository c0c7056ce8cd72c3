"""A run on a cluster of three nodes, of which one is lost meanwhile.

``python -m tests.ray_cluster FOLDER`` prints as JSON what is found. It is a process of its own, as
one is part of one cluster at most.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from adder_onnx.evaluation.outputs import Classified
from adder_onnx.ray.evaluation.cluster import Pool
from adder_onnx.ray.evaluation.evaluation import Evaluated, evaluate_pieces
from adder_onnx.ray.evaluation.pieces import FilesPiece
from adder_onnx.ray.evaluation.worker import Answering, Work
from tests.ray_pieces import Waiting, wait_for

__all__: list[str] = []

DIGITS = Path(__file__).resolve().parents[1] / "examples" / "digits"
FAST = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 5,
}
"""A node that is gone is noticed within seconds, and not one that waits for a busy machine."""
PIECES = 6


def _pieces(folder: Path) -> list[Waiting]:
    """Of 20 images each; none of them ends before a node is lost."""
    files = sorted((DIGITS / "test").glob("*/*.png"))
    made = []
    for number in range(PIECES):
        its = files[number::PIECES][:20]
        labels = tuple(int(file.parent.name) for file in its)
        inner = FilesPiece(tuple(map(str, its)), "", labels)
        made.append(Waiting(inner, str(folder / "begun"), str(folder / "go")))
    return made


def _run(folder: Path) -> Evaluated:
    answering = Answering("logits", 5, False, None, False, str(folder / "answers"))
    work = Work(Classified("logits", 10), 8, 1, "cpu", "fast", None, False, answering)
    model = (DIGITS / "resnet8_digits.onnx").read_bytes()
    return evaluate_pieces(model, _pieces(folder), work, Pool(2, 1, 0), {}, lambda _: None)


def _lose_a_node(cluster: Cluster, nodes: Sequence[Any], folder: Path) -> None:
    """Once all nodes are in the midst of a piece."""
    for node in nodes:
        wait_for(folder / "begun" / node.node_id)
    here = ray.get_runtime_context().get_node_id()  # of which the command is a part
    lost = next(node for node in nodes if node.node_id != here)
    cluster.remove_node(lost, allow_graceful=False)
    (folder / "go").touch()


def _main(folder: Path) -> None:
    for name in ("begun", "answers"):
        (folder / name).mkdir()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    small = {"object_store_memory": 80_000_000, "include_dashboard": False}
    head = {"num_cpus": 0, "_system_config": FAST, **small}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        nodes = [cluster.add_node(num_cpus=1, **small) for _ in range(2)]
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        ray.data.DataContext.get_current().enable_progress_bars = False
        threading.Thread(target=_lose_a_node, args=(cluster, nodes, folder), daemon=True).start()
        evaluated = _run(folder)
        alive = sum(node["Alive"] for node in ray.nodes())
    finally:
        ray.shutdown()
        cluster.shutdown()
    results = evaluated.results
    found = {
        "alive": alive,
        "images": {number: result.images for number, result in results.items()},
        "labelled": sum(result.counts.images for result in results.values()),
    }
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
