"""A folder of Parquet files with a model's answers, which is whole or not there.

1. While a run goes on, answers are in a folder beside, called ``NAME.incomplete``: a file for each
   piece that is done, ``part-000012.parquet``, which appears at once and whole, and ``_run.json``,
   which says what the run is of.
2. A run that was broken off is resumed if it is of the same model, the same images in the same
   pieces and the same kind of answers. Pieces that have a file are not run again.
3. At the end ``_manifest.json`` is written, which names every file and its rows, and the folder
   gets its name. Where a file system cannot rename folders, as that of S3 cannot, files are moved
   one by one, and the manifest comes last: without it, a folder is not whole, and a run that was
   broken off there is resumed, too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adder_onnx.errors import AdderError, DataError
from adder_onnx.evaluation.file_systems import explained
from adder_onnx.files import check_writable
from adder_onnx.ray.evaluation.results import PieceResult
from adder_onnx.ray.evaluation.storage import Place, is_uri, place_of

if TYPE_CHECKING:
    from pyarrow import Table

__all__ = ["MANIFEST", "AnswerFolder", "read_part", "write_part"]

MANIFEST = "_manifest.json"
"""What names all files of a folder that is whole."""

_RUN = "_run.json"
_VERSION = 1
_RESULT = b"ai.addernet.piece"


class AnswerFolder:
    """Where answers are written.

    Args:
        where: a path or a URI.

    Attributes:
        place: where they are in the end.
        incomplete: where they are until then.
    """

    def __init__(self, where: str) -> None:
        self.place = place_of(where)
        self.incomplete = self.place.beside(f"{self.place.name}.incomplete")

    def check_free(self, *, resume: bool) -> None:
        """Finds out before the work whether answers can be written.

        Raises:
            AdderError: there is something already, or an earlier run, which is not to be resumed.
        """
        started = self._started() is not None
        own = self.is_whole() or (started and not self.place.renames)
        if self.place.exists() and not (resume and own):
            raise AdderError(f"cannot write {self.place.shown}: there is something already")
        if started and not resume:
            raise AdderError(
                f"{self.incomplete.shown} is of a run that was broken off: --resume goes on with "
                "it; or remove it"
            )
        if not started and any(not name.startswith(".") for name in self.incomplete.files()):
            raise AdderError(f"{self.incomplete.shown} is there, and is of no run: remove it")
        if not is_uri(self.place.shown) and not self.incomplete.exists():
            check_writable(Path(self.incomplete.path))

    def is_whole(self) -> bool:
        """Whether all answers are there."""
        return self.place.below(MANIFEST).exists()

    def piece_images(self) -> int | None:
        """How many images a piece of the run has that was broken off; None where there is none.

        Raises:
            AdderError: it is of another version.
        """
        run = self._manifest() if self.is_whole() else self._started()
        return None if run is None else run["piece_images"]

    def begin(self, run: Mapping[str, Any]) -> dict[int, PieceResult]:
        """Begins a run, or goes on with one.

        Args:
            run: what it is of: all on which the answers and their order depend.

        Returns:
            What is known of the pieces that are done, by number.

        Raises:
            AdderError: the run that is there is of something else, or nothing can be written.
        """
        run = {"version": _VERSION, **run}
        whole = self.is_whole()
        before = self._manifest() if whole else self._started()
        if before is None:
            with explained(self.incomplete.shown, "write"):
                self.incomplete.file_system.create_dir(self.incomplete.path, recursive=False)
            self.incomplete.below(_RUN).write(json.dumps(run, indent=1).encode())
            return {}
        folder = self.place if whole else self.incomplete
        for key, value in run.items():
            if before.get(key) != value:
                raise AdderError(
                    f"{folder.shown} is of another run, with {key} {before.get(key)!r} instead of "
                    f"{value!r}: give the same data, model and options, or another --output"
                )
        parts = self._parts() if not whole else dict.fromkeys(self.place.files(), self.place)
        found = [read_part(f.below(name)) for name, f in parts.items() if name.endswith(".parquet")]
        return {result.number: result for result in found}

    def commit(self, run: Mapping[str, Any], results: Mapping[int, PieceResult]) -> None:
        """Gives the folder its name, now that all pieces are done.

        Args:
            run: what `begin` was given, and what else readers may want to know.
            results: of all pieces, by number.

        Raises:
            AdderError: files are missing, or cannot be moved.
        """
        if self.is_whole():
            return
        names = {_part_name(number): results[number].images for number in sorted(results)}
        there = self._parts()
        missing = set(names) - set(there)
        if missing:
            raise AdderError(f"{self.incomplete.below(min(missing)).shown} is gone: --resume")
        parts = [{"name": name, "rows": rows} for name, rows in names.items()]
        manifest = {"version": _VERSION, **run, "rows": sum(names.values()), "parts": parts}
        data = json.dumps(manifest, indent=1).encode()
        system = self.place.file_system
        if self.place.renames:
            self.incomplete.below(MANIFEST).write(data)
            with explained(self.place.shown, "write"):
                for name in set(there) - {MANIFEST, _RUN, *names}:  # of what was killed as it wrote
                    system.delete_file(self.incomplete.below(name).path)
                system.move(self.incomplete.path, self.place.path)
                system.delete_file(self.place.below(_RUN).path)
            return
        with explained(self.place.shown, "write"):
            for name in names:
                if there[name] is self.incomplete:
                    system.move(self.incomplete.below(name).path, self.place.below(name).path)
        self.place.below(MANIFEST).write(data)
        with explained(self.incomplete.shown, "write"):
            system.delete_dir(self.incomplete.path)

    def _parts(self) -> dict[str, Place]:
        """The files of a run that is not whole, and the folder that each is in."""
        moved = {} if self.place.renames else dict.fromkeys(self.place.files(), self.place)
        return moved | dict.fromkeys(self.incomplete.files(), self.incomplete)

    def _started(self) -> dict[str, Any] | None:
        return self._read(self.incomplete.below(_RUN))

    def _manifest(self) -> dict[str, Any]:
        return self._read(self.place.below(MANIFEST)) or {}

    @staticmethod
    def _read(place: Place) -> dict[str, Any] | None:
        if not place.exists():
            return None
        try:
            found = json.loads(place.read())
        except (RecursionError, ValueError) as error:
            raise AdderError(f"cannot read {place.shown}: {error}") from error
        known = isinstance(found, dict) and found.get("version") == _VERSION
        if not known or type(found.get("piece_images")) is not int or found["piece_images"] < 1:
            raise AdderError(f"{place.shown} is none of this version of adder-onnx")
        return dict(found)


def write_part(folder: str, table: Table, result: PieceResult) -> None:
    """Writes the answers of a piece, whole or not at all.

    Args:
        folder: a path or a URI.
        table: a row for each image.
        result: what is known of the piece, which the file keeps.

    Raises:
        AdderError: the file cannot be written.
    """
    from pyarrow import BufferOutputStream, parquet

    kept = table.replace_schema_metadata({_RESULT: json.dumps(result.as_json())})
    with BufferOutputStream() as stream:
        parquet.write_table(kept, stream)
    place_of(folder).below(_part_name(result.number)).write(stream.getvalue())


def read_part(place: Place) -> PieceResult:
    """What a file of answers says of its piece.

    Raises:
        DataError: it is no such file.
    """
    from pyarrow import ArrowException, parquet

    try:
        with explained(place.shown, "read"):
            opened = place.file_system.open_input_file(place.path)
            metadata = parquet.read_schema(opened).metadata
        return PieceResult.from_json(json.loads(metadata[_RESULT]))
    except (ArrowException, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{place.shown} is no file of answers: {error}") from error


def _part_name(number: int) -> str:
    return f"part-{number:06}.parquet"
