"""Items of many callers, handed on together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Batcher"]

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass
class _Waiting(Generic[Item, Answer]):
    item: Item
    answer: asyncio.Future[Answer]
    since: float


class Batcher(Generic[Item, Answer]):
    """Calls a function with the items of several callers, one batch after the other.

    A batch is begun as soon as the one before it has ended, with what waits by then: at most
    ``most`` items, in the order in which they came. Where there are fewer, it waits for more until
    the first has waited for ``wait`` seconds. How many wait is for the callers to bound.

    Args:
        function: gives an answer for each item; called in a thread of its own.
        most: items in a batch.
        wait: seconds.
    """

    def __init__(
        self, function: Callable[[Sequence[Item]], Sequence[Answer]], most: int, wait: float
    ) -> None:
        self._function = function
        self._most = most
        self._wait = wait
        self._queue: asyncio.Queue[_Waiting[Item, Answer]] = asyncio.Queue()

    async def __call__(self, item: Item) -> Answer:
        """The answer for one item, or whatever the function raised for its batch.

        A caller that is cancelled leaves its place, unless its batch has begun.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(item, loop.create_future(), loop.time())
        self._queue.put_nowait(waiting)
        return await waiting.answer

    async def serve(self) -> None:
        """Makes batches until it is cancelled."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "batches") as thread:
            while True:
                batch = [waiting for waiting in await self._collect() if not waiting.answer.done()]
                if not batch:
                    continue
                items = [waiting.item for waiting in batch]
                try:
                    answers = await loop.run_in_executor(thread, self._function, items)
                except Exception as error:
                    for waiting in batch:
                        if not waiting.answer.done():
                            waiting.answer.set_exception(error)
                    continue
                for waiting, answer in zip(batch, answers, strict=True):
                    if not waiting.answer.done():
                        waiting.answer.set_result(answer)

    async def _collect(self) -> list[_Waiting[Item, Answer]]:
        batch = [await self._queue.get()]
        end = batch[0].since + self._wait
        while len(batch) < self._most:
            left = end - asyncio.get_running_loop().time()
            if not self._queue.empty():
                batch.append(self._queue.get_nowait())
            elif left > 0:
                try:
                    batch.append(await asyncio.wait_for(self._queue.get(), left))
                except asyncio.TimeoutError:
                    break
            else:
                break
        return batch
