"""Running one session from several threads at once."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

import adder_onnx

_THREADS = 8


def assert_threads_agree(
    session: adder_onnx.InferenceSession, shapes: list[tuple[int, int, int, int]], runs: int
) -> None:
    """Eight threads run a model with the input X in shapes that change, and get what one gets."""
    rng = np.random.default_rng(5)
    feeds = [{"X": rng.standard_normal(shape).astype(np.float32)} for shape in shapes]
    expected = [session.run(None, feed)[0] for feed in feeds]
    problems: list[Any] = []

    def call(offset: int) -> None:
        try:
            for i in range(runs):
                # Neighbouring threads, and the runs of one, have different shapes.
                which = (i * 5 + offset) % len(feeds)
                if not np.array_equal(session.run(None, feeds[which])[0], expected[which]):
                    problems.append(shapes[which])
        except Exception as error:
            problems.append(error)

    workers = [threading.Thread(target=call, args=(i,)) for i in range(_THREADS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not problems
