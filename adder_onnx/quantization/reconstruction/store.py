"""Arrays of values, one for each feed, in files: memory holds those of one feed at a time."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.errors import AdderError

__all__ = ["Store"]


class Store:
    """A temporary folder of arrays by name and number; deleted at the end of a ``with``."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="adder-onnx-calibration-")
        self._numbers: dict[str, int] = {}

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._folder.cleanup()

    def put(self, name: str, number: int, array: NDArray[Any]) -> None:
        """Keeps an array, instead of one of this name and number.

        Raises:
            AdderError: the file cannot be written.
        """
        try:
            np.save(self._path(name, number), array, allow_pickle=False)
        except OSError as error:
            raise AdderError(
                f"calibration keeps values in files in {tempfile.gettempdir()}, which cannot be "
                f"written: {error.strerror or error}; set TMPDIR to a folder with more room"
            ) from error

    def get(self, name: str, number: int) -> NDArray[Any]:
        array: NDArray[Any] = np.load(self._path(name, number), allow_pickle=False)
        return array

    def drop(self, name: str) -> None:
        """Deletes all arrays of a name."""
        for path in Path(self._folder.name).glob(f"{self._numbers.get(name, 'none')}-*.npy"):
            path.unlink()

    def _path(self, name: str, number: int) -> Path:
        own = self._numbers.setdefault(name, len(self._numbers))
        return Path(self._folder.name) / f"{own}-{number}.npy"
