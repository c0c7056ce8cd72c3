from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from adder_onnx.errors import AdderError
from adder_onnx.files import (
    check_readable,
    check_writable,
    open_atomically,
    open_scratch,
    same_file,
    write_atomically,
)


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def test_writes_a_new_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "out.bin", b"\x00\xffdata")
    assert (tmp_path / "out.bin").read_bytes() == b"\x00\xffdata"
    assert os.listdir(tmp_path) == ["out.bin"]


@pytest.mark.parametrize("new", [b"", b"short", b"longer than what was there before"])
def test_replaces_an_existing_file_whole(tmp_path: Path, new: bytes) -> None:
    path = tmp_path / "out.bin"
    path.write_bytes(b"the old contents")
    with path.open("rb") as reader:
        write_atomically(path, new)
        assert reader.read() == b"the old contents"
    assert path.read_bytes() == new
    assert os.listdir(tmp_path) == ["out.bin"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    with _umask(mask):
        write_atomically(tmp_path / "out.bin", b"data")
        assert os.umask(mask) == mask
    assert (tmp_path / "out.bin").stat().st_mode & 0o777 == mode


def test_a_full_disk_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    path.write_bytes(b"the old contents")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(AdderError, match=r"cannot write .*out\.bin: File too large"):
            write_atomically(path, bytes(2 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"the old contents"
    assert os.listdir(tmp_path) == ["out.bin"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    def fail(*_: object) -> None:
        raise error

    if step == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    expected = AdderError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        write_atomically(tmp_path / "out.bin", b"data")
    assert os.listdir(tmp_path) == []


def test_a_file_that_is_written_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    path.write_bytes(b"the old contents")
    with open_atomically(path) as file:
        for part in (b"one, ", b"two"):
            file.write(part)
            assert path.read_bytes() == b"the old contents"
    assert path.read_bytes() == b"one, two"
    assert os.listdir(tmp_path) == ["out.bin"]


@pytest.mark.parametrize("error", [ValueError(), OSError(28, "No space"), KeyboardInterrupt()])
def test_a_failure_between_the_parts(tmp_path: Path, error: BaseException) -> None:
    def write() -> None:
        with open_atomically(tmp_path / "out.bin") as file:
            file.write(b"one")
            raise error

    with pytest.raises(AdderError if isinstance(error, OSError) else type(error)):
        write()
    assert os.listdir(tmp_path) == []


def test_a_scratch_file_has_no_name(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "sub" / "out.bin")
    with open_scratch(tmp_path / "link") as file:
        file.write(b"data")
        file.seek(0)
        assert file.read() == b"data"
        assert os.listdir(tmp_path / "sub") == []
        assert os.fstat(file.fileno()).st_dev == tmp_path.stat().st_dev
    with pytest.raises(AdderError, match=r"cannot write .*none/out\.bin: No such file"):
        open_scratch(tmp_path / "none" / "out.bin")


def test_refuses_a_folder_and_a_missing_folder(tmp_path: Path) -> None:
    for function in (check_writable, lambda path: write_atomically(path, b"data")):
        with pytest.raises(AdderError, match=r"sub/out\.bin: there is no folder .*sub"):
            function(tmp_path / "sub" / "out.bin")
        with pytest.raises(AdderError, match="it is a folder"):
            function(tmp_path)
        with pytest.raises(AdderError, match="no folder"):
            function(tmp_path / ("x" * 300) / "out.bin")
    with pytest.raises(AdderError, match="File name too long"):
        write_atomically(tmp_path / ("x" * 300), b"data")
    assert os.listdir(tmp_path) == []


def test_refuses_a_folder_without_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(AdderError, match="no permission"):
        check_writable(tmp_path / "out.bin")


def test_check_writable_creates_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "out.bin")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("exists", [True, False])
def test_a_symbolic_link_stays_one(tmp_path: Path, exists: bool) -> None:
    target = tmp_path / "elsewhere" / "target.bin"
    target.parent.mkdir()
    if exists:
        target.write_bytes(b"old")
    link = tmp_path / "link.bin"
    link.symlink_to(target)
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert os.listdir(target.parent) == ["target.bin"]


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    """As for /dev/stdout and /dev/null, which must survive being a destination."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_atomically(pipe, b"data")
    assert pipe.is_fifo()
    reader.join(10)
    assert received == [b"data"]


def test_what_cannot_be_a_file(tmp_path: Path) -> None:
    for name in ("a" * 300, "a\0b"):
        with pytest.raises(AdderError, match="cannot write"):
            check_writable(tmp_path / name)
        with pytest.raises(AdderError, match="cannot read"):
            check_readable(tmp_path / name, AdderError)
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (circle, pipe, tmp_path, tmp_path / "none", Path("/dev/null")):
        with pytest.raises(AdderError, match="cannot read"):
            check_readable(path, AdderError)
    assert check_readable(tmp_path, AdderError, folder=True) == 0


def test_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    os.link(tmp_path / "a", tmp_path / "c")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for name in ("a", "b", "c", "./a"):
        assert same_file(tmp_path / "a", tmp_path / name)
    for name in ("d", "circle", "a\0", "a" * 300):
        assert not same_file(tmp_path / "a", tmp_path / name)
    assert same_file(tmp_path / "d", tmp_path / ".." / tmp_path.name / "d")
