"""Sends images to the service from several clients at once, and checks every answer.

    python load.py MODEL.onnx FOLDER --clients 16 --requests 2000

Each answer must have the label that the image gets in a run of its own, which is found out first.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from classifier import Classifier


@dataclass
class Report:
    """What a load test has seen.

    Attributes:
        seconds: from the first request to the last answer.
        processor: seconds of the processor that the clients took for it.
        latencies: of requests with the right answer, in seconds.
        refused: requests with status 503.
        wrong: what was wrong with others, one line each.
    """

    seconds: float = 0.0
    processor: float = 0.0
    latencies: list[float] = field(default_factory=list)
    refused: int = 0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        ordered = sorted(self.latencies) or [float("nan")]
        p50, p99 = (1000 * ordered[int(share * (len(ordered) - 1))] for share in (0.5, 0.99))
        rate = len(self.latencies) / self.seconds
        return (
            f"{len(self.latencies)} right answers in {self.seconds:.2f} s: {rate:.0f} requests/s; "
            f"latency p50 {p50:.1f} ms, p99 {p99:.1f} ms; "
            f"{self.refused} refused, {len(self.wrong)} errors; "
            f"the clients took {self.processor:.2f} s of the processor"
        )


async def load(
    url: str, images: Sequence[tuple[bytes, str]], clients: int, requests: int
) -> Report:
    """Sends images in turn until there were so many requests.

    Args:
        url: of the service.
        images: bytes and the right label of each.
        clients: that each send one request after the other.
        requests: of all clients together.
    """
    report = Report()
    numbers = iter(range(requests))
    tls = ssl.create_default_context()  # takes longer than a request: one is enough

    async def client() -> None:
        async with httpx.AsyncClient(base_url=url, verify=tls, timeout=60, trust_env=False) as http:
            for i in numbers:
                await _ask(http, *images[i % len(images)], report)

    start, processor = time.perf_counter(), time.process_time()
    await asyncio.gather(*(client() for _ in range(clients)))
    report.seconds = time.perf_counter() - start
    report.processor = time.process_time() - processor
    return report


async def _ask(http: httpx.AsyncClient, data: bytes, label: str, report: Report) -> None:
    begin = time.perf_counter()
    try:
        response = await http.post("/classify", content=data)
    except httpx.HTTPError as error:
        report.wrong.append(f"{type(error).__name__}: {error}")
        return
    if response.status_code == 503:
        report.refused += 1
    elif response.status_code != 200 or response.json()["label"] != label:
        report.wrong.append(f"{response.status_code} {response.text}; not {label}")
    else:
        report.latencies.append(time.perf_counter() - begin)


def main() -> int:
    """Prints what there was to see; returns 1 where an answer was wrong or missing."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL.onnx", help="that the service runs")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="with PNG or JPEG files below")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--clients", metavar="N", type=int, default=16)
    parser.add_argument("--requests", metavar="N", type=int, default=2000)
    options = parser.parse_args()
    classifier = Classifier(options.model)
    files = sorted(f for s in ("png", "jpg", "jpeg") for f in options.folder.rglob(f"*.{s}"))
    if not files:
        parser.error(f"{options.folder} has no PNG or JPEG files")
    images = []
    for file in files:
        data = file.read_bytes()
        images.append((data, classifier.classify([classifier.prepare(data)])[0]["label"]))
    report = asyncio.run(load(options.url, images, options.clients, options.requests))
    print(report)
    for line in report.wrong[:5]:
        print(line, file=sys.stderr)
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
