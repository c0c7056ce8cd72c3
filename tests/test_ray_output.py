"""Files on pyarrow's file systems, and the folder of answers: whole, or resumed, or not there."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from adder_onnx.errors import AdderError, DataError
from adder_onnx.evaluation.dataset import Dataset
from adder_onnx.evaluation.file_systems import Storage
from adder_onnx.evaluation.folder_uri import parse_folder_uri

pytest.importorskip("ray", reason="needs adder-onnx[ray]")
pytest.importorskip("pyarrow", reason="needs adder-onnx[ray]")

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileInfo, FileSelector, FileSystemHandler, FileType, PyFileSystem

from adder_onnx.ray.evaluation import storage
from adder_onnx.ray.evaluation.counts import AnswerCounts
from adder_onnx.ray.evaluation.data import of_dataset
from adder_onnx.ray.evaluation.output import MANIFEST, AnswerFolder, read_part, write_part
from adder_onnx.ray.evaluation.parquet import ParquetColumns, ParquetPiece
from adder_onnx.ray.evaluation.pieces import FilesPiece, fingerprint
from adder_onnx.ray.evaluation.results import PieceResult
from adder_onnx.ray.evaluation.storage import is_uri, place_of
from adder_onnx.ray.evaluation.tars import TarPiece

HOSTILE = "a 'b\" ü\n%41#?&<script>\\"
RUN = {"model_sha256": "m", "data_sha256": "d", "piece_images": 8, "topk": 5}


class _Upload(io.BytesIO):
    """A file that appears when it is closed."""

    def __init__(self, files: dict[str, bytes], path: str) -> None:
        super().__init__()
        self._files, self._path = files, path

    def close(self) -> None:
        if not self.closed:
            self._files[self._path] = self.getvalue()
        super().close()


class ObjectStore(FileSystemHandler):  # type: ignore[misc]
    """As S3: folders are what names begin with, and only files can be moved, one by one.

    Attributes:
        files: what is there, by path.
        moves: how many are left until it cannot be reached any more.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.moves = 1000

    def get_type_name(self) -> str:
        return "store"

    def get_file_info(self, paths: list[str]) -> list[FileInfo]:
        return [self._info(path) for path in paths]

    def _info(self, path: str) -> FileInfo:
        if path in self.files:
            return FileInfo(path, FileType.File, size=len(self.files[path]))
        below = any(name.startswith(f"{path}/") for name in self.files)
        return FileInfo(path, FileType.Directory if below else FileType.NotFound)

    def get_file_info_selector(self, selector: FileSelector) -> list[FileInfo]:
        names = [n for n in self.files if n.startswith(f"{selector.base_dir}/")]
        return [self._info(n) for n in names if selector.recursive or n.count("/") == 2]

    def create_dir(self, path: str, recursive: bool) -> None:
        pass

    def delete_dir(self, path: str) -> None:
        for name in [n for n in self.files if n.startswith(f"{path}/")]:
            del self.files[name]

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        raise NotImplementedError

    def delete_root_dir_contents(self) -> None:
        raise NotImplementedError

    def delete_file(self, path: str) -> None:
        del self.files[path]

    def move(self, src: str, dest: str) -> None:
        if src not in self.files:
            raise OSError("cannot move a folder")
        if self.moves == 0:
            raise OSError("no connection\nto the store")
        self.moves -= 1
        self.files[dest] = self.files.pop(src)

    def copy_file(self, src: str, dest: str) -> None:
        raise NotImplementedError

    def open_input_stream(self, path: str) -> Any:
        return pa.PythonFile(io.BytesIO(self.files[path]), mode="r")

    open_input_file = open_input_stream

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        return pa.PythonFile(_Upload(self.files, path), mode="w")

    def open_append_stream(self, path: str, metadata: Any) -> Any:
        raise NotImplementedError

    def normalize_path(self, path: str) -> str:
        return path


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """What ``store://`` leads to."""
    handler = ObjectStore()
    system = PyFileSystem(handler)
    monkeypatch.setattr(storage, "_OBJECT_STORES", frozenset((system.type_name,)))
    root = Storage(parse_folder_uri("store://bucket"), system, "bucket/")
    monkeypatch.setattr(storage, "_storage", lambda _: root)
    return handler


def result(number: int, images: int = 8) -> PieceResult:
    counts = AnswerCounts()
    counts.add([number % 3] * images, np.arange(images) % 3)
    return PieceResult(
        number, images, 1, images, counts, False, 1.5, 0.5, "10.0.0.1, abc", attempt=number + 1
    )


def write_parts(folder: AnswerFolder, *numbers: int) -> dict[int, PieceResult]:
    """Writes answers of pieces, each with as many rows as its number."""
    for number in numbers:
        names = pa.array([f"{number}, {row}" for row in range(number)], pa.string())
        table = pa.table({"name": names})
        write_part(folder.incomplete.shown, table, result(number, number))
    return {number: result(number, number) for number in numbers}


def known(results: dict[int, PieceResult]) -> dict[int, dict[str, Any]]:
    return {number: one.as_json() for number, one in results.items()}


def refused(call: Any) -> str:
    """The message, which does without the error's own name."""
    with pytest.raises(AdderError) as error:
        call()
    return str(error.value)


# Files


@pytest.mark.parametrize("uri", [False, True])
def test_files(tmp_path: Path, uri: bool) -> None:
    folder = tmp_path / HOSTILE
    folder.mkdir()
    place = place_of(f"file://{quote(str(folder))}" if uri else str(folder))
    assert place.name == HOSTILE
    assert place.renames
    file = place.below(HOSTILE)
    assert not file.exists()
    for data in (b"one", b""):
        file.write(data)
        assert (folder / HOSTILE).read_bytes() == file.read() == data
        assert place_of(file.shown).read() == data, "what is shown does not lead there"
    assert place.files() == {HOSTILE: 0}
    other = file.beside("other")
    other.write(b"12")
    place.below("deep/er").file_system.create_dir(str(folder / "deep"))
    place.below("deep/er").write(b"")
    assert place.files() == {HOSTILE: 0, "other": 2}
    assert sorted(place.tree()) == sorted([HOSTILE, "deep/er", "other"])
    assert other.tree() == [""]
    assert place.below("none").files() == {}
    assert "does not exist" in refused(place.below("none").tree)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert "cannot write" in refused(lambda: place_of(str(tmp_path / "folder")).write(b"x"))
    assert "cannot write" in refused(lambda: place_of(str(tmp_path / "no" / "x")).write(b"x"))
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]
    with pytest.raises(DataError, match=r"cannot read .*: "):
        place_of(str(tmp_path / "folder")).read()


def test_compressed_files_are_read_as_they_are(tmp_path: Path) -> None:
    place = place_of(str(tmp_path / "x.gz"))
    place.write(b"not compressed")
    assert place.read() == b"not compressed"
    assert (tmp_path / "x.gz").read_bytes() == b"not compressed"


@pytest.mark.parametrize("where", ["a\0b", "\udcff", "nope://x", "file://h/x"])
def test_places_that_are_none(where: str) -> None:
    assert refused(lambda: place_of(where)).isprintable()


def test_what_is_a_uri() -> None:
    assert [is_uri(text) for text in ("s3://b", "/a://b", "a b://c", "C:\\x", "x")] == [
        True,
        False,
        False,
        False,
        False,
    ]


# The folder of answers


def test_a_run_from_beginning_to_end(tmp_path: Path) -> None:
    folder = AnswerFolder(str(tmp_path / HOSTILE))
    folder.check_free(resume=False)
    assert folder.piece_images() is None
    assert folder.begin(RUN) == {}
    assert json.loads((tmp_path / f"{HOSTILE}.incomplete" / "_run.json").read_text()) == {
        "version": 1,
        **RUN,
    }
    results = write_parts(folder, 2, 0, 1)
    assert not folder.is_whole()
    (tmp_path / f"{HOSTILE}.incomplete" / ".part-000001.parquet.0f").write_bytes(b"PAR1")
    folder.commit({**RUN, "labels": ["\udcff"]}, results)
    assert [path.name for path in tmp_path.iterdir()] == [HOSTILE]
    files = sorted(path.name for path in (tmp_path / HOSTILE).iterdir())
    assert files == [MANIFEST, *(f"part-00000{i}.parquet" for i in range(3))]
    manifest = json.loads((tmp_path / HOSTILE / MANIFEST).read_text())
    assert manifest == {
        "version": 1,
        **RUN,
        "labels": ["\udcff"],
        "rows": 3,
        "parts": [{"name": f"part-00000{i}.parquet", "rows": i} for i in range(3)],
    }
    table = pq.read_table(tmp_path / HOSTILE)
    assert table.column("name").to_pylist() == ["1, 0", "2, 0", "2, 1"]
    found = read_part(folder.place.below("part-000002.parquet"))
    assert found.as_json() == result(2, 2).as_json()


def test_what_is_done_is_known_again(tmp_path: Path) -> None:
    folder = AnswerFolder(str(tmp_path / "x"))
    folder.begin(RUN)
    results = write_parts(folder, 3, 5)
    again = AnswerFolder(str(tmp_path / "x"))
    assert "is of a run that was broken off: --resume" in refused(
        lambda: again.check_free(resume=False)
    )
    again.check_free(resume=True)
    assert again.piece_images() == 8
    assert known(again.begin(RUN)) == known(results)
    results |= write_parts(again, 4)
    again.commit(RUN, results)
    whole = AnswerFolder(str(tmp_path / "x"))
    assert "there is something already" in refused(lambda: whole.check_free(resume=False))
    whole.check_free(resume=True)
    assert whole.piece_images() == 8
    assert known(whole.begin(RUN)) == known(results)
    before = (tmp_path / "x" / MANIFEST).read_bytes()
    whole.commit(RUN, results)
    assert (tmp_path / "x" / MANIFEST).read_bytes() == before


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("key", RUN)
def test_another_run_is_not_resumed(tmp_path: Path, key: str, whole: bool) -> None:
    folder = AnswerFolder(str(tmp_path / "x"))
    folder.begin(RUN)
    results = write_parts(folder, 0)
    if whole:
        folder.commit(RUN, results)
    other = {**RUN, key: 16}
    again = AnswerFolder(str(tmp_path / "x"))
    again.check_free(resume=True)
    name = "x" if whole else "x.incomplete"
    assert refused(lambda: again.begin(other)).startswith(
        f"{tmp_path}/{name} is of another run, with {key} {RUN[key]!r} instead of 16: give the same"
    )
    assert "is of another run" in refused(lambda: again.begin({**RUN, "more": True}))


def test_files_that_are_gone(tmp_path: Path) -> None:
    folder = AnswerFolder(str(tmp_path / "x"))
    folder.begin(RUN)
    results = write_parts(folder, 0, 1, 2)
    (tmp_path / "x.incomplete" / "part-000001.parquet").unlink()
    message = refused(lambda: folder.commit(RUN, results))
    assert message == f"{tmp_path}/x.incomplete/part-000001.parquet is gone: --resume"
    assert known(AnswerFolder(str(tmp_path / "x")).begin(RUN)) == known(
        {0: results[0], 2: results[2]}
    )
    (tmp_path / "x.incomplete" / "part-000001.parquet").write_bytes(b"no parquet")
    assert "part-000001.parquet" in refused(lambda: folder.begin(RUN))
    pq.write_table(pa.table({"a": [1]}), tmp_path / "x.incomplete" / "part-000001.parquet")
    assert "is no file of answers" in refused(lambda: folder.begin(RUN))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot read {run}: "),
        (b"\xff", "cannot read {run}: "),
        (b"[" * 100_000, "cannot read {run}: "),
        (b"[]", "{run} is none of this version of adder-onnx"),
        (b'{"version": 2, "piece_images": 8}', "{run} is none of this version of adder-onnx"),
        (b'{"version": 1}', "{run} is none of this version of adder-onnx"),
        (b'{"version": 1, "piece_images": "8"}', "{run} is none of this version of adder-onnx"),
        (b'{"version": 1, "piece_images": 0}', "{run} is none of this version of adder-onnx"),
    ],
)
def test_other_files_in_the_place_of_ours(tmp_path: Path, content: bytes, message: str) -> None:
    folder = AnswerFolder(str(tmp_path / "x"))
    run = tmp_path / "x.incomplete" / "_run.json"
    run.parent.mkdir()
    run.write_bytes(content)
    for resume in (False, True):
        found = refused(lambda r=resume: folder.check_free(resume=r))
        assert message.format(run=run) in found
    run.parent.rename(tmp_path / "x")
    (tmp_path / "x" / "_run.json").rename(tmp_path / "x" / MANIFEST)
    assert message.format(run=tmp_path / "x" / MANIFEST) in refused(folder.piece_images)


def test_places_where_something_is(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for name in ("folder", "file"):
        for resume in (False, True):
            message = refused(
                lambda n=name, r=resume: AnswerFolder(str(tmp_path / n)).check_free(resume=r)
            )
            assert message == f"cannot write {tmp_path}/{name}: there is something already"
    (tmp_path / "x.incomplete").mkdir()
    AnswerFolder(str(tmp_path / "x")).check_free(resume=False)  # a run that ended right there
    (tmp_path / "x.incomplete" / "part-000000.parquet").write_bytes(b"")
    for resume in (False, True):
        message = refused(lambda r=resume: AnswerFolder(str(tmp_path / "x")).check_free(resume=r))
        assert message == f"{tmp_path}/x.incomplete is there, and is of no run: remove it"
    message = refused(lambda: AnswerFolder(str(tmp_path / "no" / "x")).check_free(resume=False))
    assert f"cannot write {tmp_path}/no/x.incomplete: there is no folder" in message


def test_a_commit_that_is_broken_off_loses_nothing(tmp_path: Path) -> None:
    """At any of its steps: what is there then is of the run, or whole."""

    class Step(BaseException):
        pass

    class Breaking:
        """A file system that is gone after so many calls that change something."""

        def __init__(self, system: Any, left: int) -> None:
            self._system, self._left = system, left

        def __getattr__(self, name: str) -> Any:
            if name in ("move", "delete_file", "open_output_stream"):
                if self._left == 0:
                    raise Step
                self._left -= 1
            return getattr(self._system, name)

    for steps in range(5):
        where = str(tmp_path / str(steps))
        folder = AnswerFolder(where)
        folder.begin(RUN)
        results = write_parts(folder, 0, 1)
        system = Breaking(folder.place.file_system, steps)
        folder.place = folder.place._replace(file_system=system)
        folder.incomplete = folder.incomplete._replace(file_system=system)
        try:
            folder.commit(RUN, results)
        except Step:
            pass
        else:
            assert steps == 4
        again = AnswerFolder(where)
        again.check_free(resume=True)
        assert known(again.begin(RUN)) == known(results)
        again.commit(RUN, results)
        assert again.is_whole()
        assert not again.incomplete.exists()
        assert pq.read_table(where).num_rows == 1


def test_stores_that_rename_nothing(store: ObjectStore) -> None:
    folder = AnswerFolder("store://bucket/x")
    assert not folder.place.renames
    folder.check_free(resume=False)
    folder.begin(RUN)
    results = write_parts(folder, 0, 1, 2)
    store.moves = 2
    message = refused(lambda: folder.commit(RUN, results))
    assert message.startswith("cannot write store://bucket/x: ")
    assert sum(name.startswith("bucket/x/part-") for name in store.files) == 2
    assert f"bucket/x/{MANIFEST}" not in store.files, "it says that what it names is there"
    store.moves = 1000
    assert "there is something already" in refused(lambda: folder.check_free(resume=False))
    again = AnswerFolder("store://bucket/x")
    again.check_free(resume=True)
    assert known(again.begin(RUN)) == known(results)
    again.commit(RUN, results)
    assert sorted(store.files) == [
        f"bucket/x/{MANIFEST}",
        *(f"bucket/x/part-00000{i}.parquet" for i in range(3)),
    ]
    assert known(again.begin(RUN)) == known(results)
    assert "there is something already" in refused(lambda: again.check_free(resume=False))


# What a run is of


def test_a_fingerprint_is_of_all_that_a_piece_says() -> None:
    columns = ParquetColumns("i", "l", None, ("a", "b"))
    pieces: list[list[Any]] = [
        [],
        [FilesPiece(("a", "b"), "/x")],
        [FilesPiece(("a",), "/x"), FilesPiece(("b",), "/x")],
        [FilesPiece(("b", "a"), "/x")],
        [FilesPiece(("a", "b"), "/y")],
        [FilesPiece(("a", "b"), "/x", (0, 1))],
        [FilesPiece(("a", "b"), "/x", (1, 0))],
        [FilesPiece(("a", "b"), "/x", ("1", "0"))],
        [FilesPiece(("a", "\udcff"), "/x")],
        [TarPiece("a")],
        [TarPiece("b")],
        [TarPiece("a", 1, (0,))],
        [TarPiece("a", 1, (1,))],
        [ParquetPiece("a", (0,), 0, 2, columns)],
        [ParquetPiece("b", (0,), 0, 2, columns)],
        [ParquetPiece("a", (1,), 0, 2, columns)],
        [ParquetPiece("a", (0,), 1, 2, columns)],
        [ParquetPiece("a", (0,), 0, 3, columns)],
        [ParquetPiece("a", (0,), 0, 2, columns, (0, 1))],
        [ParquetPiece("a", (0,), 0, 2, ParquetColumns("j", "l", None, ("a", "b")))],
        [ParquetPiece("a", (0,), 0, 2, ParquetColumns("i", "l", None, ("b", "a")))],
    ]
    found = [fingerprint(one) for one in pieces]
    assert len(set(found)) == len(found)
    assert found == [fingerprint(one) for one in pieces]


def test_the_folder_of_the_run_counts_only_where_paths_are_below_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of(name: str) -> str:
        dataset = Dataset("images", None, 1, lambda _: (), lambda _: name, files=True)
        return fingerprint(of_dataset(dataset).pieces(1, None))

    names = ("x.png", "/x.png", "s3://b/x.png")
    before = [of(name) for name in names]
    monkeypatch.chdir(tmp_path)
    assert [of(name) == one for name, one in zip(names, before, strict=True)] == [False, True, True]
