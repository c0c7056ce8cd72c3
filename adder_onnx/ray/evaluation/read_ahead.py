"""Reading what comes next, while what came before is worked on."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

__all__ = ["read_ahead"]

_Item = TypeVar("_Item")
_END: Any = object()


def read_ahead(items: Iterator[_Item], count: int) -> Generator[_Item, None, None]:
    """The same items, of which another thread fetches up to ``count`` before they are asked for.

    What the iterator raises is raised in its place.
    """
    with ThreadPoolExecutor(1) as reader:
        pending = deque(reader.submit(next, items, _END) for _ in range(count))
        try:
            while True:
                item = pending.popleft().result()
                if item is _END:
                    return
                pending.append(reader.submit(next, items, _END))
                yield cast("_Item", item)
        finally:
            reader.shutdown(cancel_futures=True)
