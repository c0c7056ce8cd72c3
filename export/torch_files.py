"""The files of torch.save, whose parts are read as far as they are what the file says.

PyTorch's own reader takes a file at its word: that a storage is as long as a pickle says, that a
tensor lies within its storage, that a compressed entry is small. Here these are checked first.

1. A zip archive: a pickle, ``data.pkl``, and an entry for each storage, in one folder.
2. Before PyTorch 1.6: five pickles, the fourth of which is what was saved, then the storages.
3. Before PyTorch 0.2: a tar archive of storages, tensors, and the pickle.
4. A plain pickle, of pickle.dump, whose storages are files of the second kind in themselves.
"""

from __future__ import annotations

import mmap
import pickle
import struct
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adder_onnx import memory
from adder_onnx.archives.tars import open_tar
from adder_onnx.archives.zips import check_inflated, open_zip
from adder_onnx.errors import CheckpointError
from adder_onnx.export.pickles import (
    PickledStorage,
    PickledTensor,
    StorageKind,
    thawed,
    unpickle,
)

__all__ = ["is_old_tar", "read_torch_file"]

MAGIC = 0x1950A86A20F9469CFC6C
"""The number that files of torch.save begin with where they are no zip archives."""

_MAGIC_BYTES = MAGIC.to_bytes(10, "little")
_ZIP = b"PK\x03\x04"
_PROTOCOL = 1001
_PICKLE = "data.pkl"
_LARGEST_PICKLE = 1 << 30
_LONGEST_NOTE = 64
_FREE = 64 << 20
_CHUNK = 1 << 20
_OLD_PARTS = frozenset({"storages", "tensors", "pickle"})
_MOST_PARTS = 16
_MOST_AXES = 64

_Data = bytes | mmap.mmap


def read_torch_file(path: Path) -> Any:
    """What torch.save or pickle.dump has written, with records for what is no tensor or container.

    Raises:
        CheckpointError: it is no such file as far as a zip archive can tell.
        Exception: it is damaged in another way.
    """
    with path.open("rb") as file:
        zipped = file.read(len(_ZIP)) == _ZIP
    if zipped:
        return _read_zip(path)
    if is_old_tar(path):
        return _read_tar(path)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return thawed(_read_plain(data) if _is_plain(data) else _read_legacy(data))


def _is_plain(data: _Data) -> bool:
    """Whether it is a pickle that pickle.dump has written, not torch.save."""
    start = data[: len(_MAGIC_BYTES) + 16]  # a frame's header may come first
    return start.startswith(b"\x80") and _MAGIC_BYTES not in start


def _read_zip(path: Path) -> Any:
    with open_zip(path, CheckpointError, "a PyTorch checkpoint") as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        check_inflated(archive.infolist(), _FREE)
        (folder,) = [
            name.removesuffix(_PICKLE)
            for name in entries
            if name.endswith(f"/{_PICKLE}") and name.count("/") == 1
        ]
        data = _read_entry(archive, entries[folder + _PICKLE], _LARGEST_PICKLE)
        order = entries.get(f"{folder}byteorder")
        swapped = (
            order is not None
            and _read_entry(archive, order, _LONGEST_NOTE).decode() != sys.byteorder
        )
        storages = _Storages()

        def persistent(saved: Any) -> PickledStorage:
            kind, key, _, count = _parts(saved, 4)
            entry = entries[f"{folder}data/{key}"]
            read = partial(_read_storage, archive, entry, kind.dtype if swapped else None)
            return storages.get(key, kind, count, entry.file_size, read)

        return thawed(unpickle(data, 0, persistent)[0])


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int) -> bytes:
    if entry.file_size > most:
        raise zipfile.BadZipFile(f"{entry.filename!r} has {entry.file_size} bytes")
    memory.require(entry.file_size, f"{entry.filename} in the checkpoint", CheckpointError)
    return archive.read(entry)


def _read_storage(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, swapped: torch.dtype | None
) -> torch.UntypedStorage:
    values = torch.empty(entry.file_size, dtype=torch.uint8)
    array, at = values.numpy(), 0
    with archive.open(entry) as file:
        while chunk := file.read(_CHUNK):
            array[at : at + len(chunk)] = np.frombuffer(chunk, np.uint8)
            at += len(chunk)
    if at != entry.file_size:
        raise zipfile.BadZipFile(f"{entry.filename!r} has {at} bytes")
    storage = values.untyped_storage()
    if swapped is not None:
        storage.byteswap(swapped)  # type: ignore[no-untyped-call]
    return storage


class _Storages:
    """The storages that a pickle has named so far, by key, and their bytes in all."""

    def __init__(self) -> None:
        self._found: dict[Any, PickledStorage] = {}
        self._total = 0

    def __getitem__(self, key: Any) -> PickledStorage:
        return self._found[key]

    def __contains__(self, key: object) -> bool:
        return key in self._found

    def add(self, key: Any, storage: PickledStorage) -> PickledStorage:
        self._total += storage.size
        memory.require(self._total, "what the checkpoint holds", CheckpointError)
        return self._found.setdefault(key, storage)

    def get(
        self,
        key: Any,
        kind: StorageKind,
        count: Any,
        size: int,
        read: Callable[[], torch.UntypedStorage],
    ) -> PickledStorage:
        """The storage of a key, which must have so many values, and all its bytes."""
        if type(count) is not int or count != size // kind.dtype.itemsize:
            raise pickle.UnpicklingError(f"a storage of {size} bytes, said to be of {count} values")
        found = self._found.get(key)
        if found is None:
            return self.add(key, PickledStorage(kind.dtype, read, size))
        if found.dtype != kind.dtype:
            return PickledStorage(kind.dtype, lambda: found.values, size)
        return found


def _parts(saved: Any, count: int) -> tuple[Any, ...]:
    """What follows ``storage`` in a persistent id, the kind of the storage first."""
    if type(saved) is not tuple or len(saved) != count + 1 or _text(saved[0]) != "storage":
        raise pickle.UnpicklingError("a persistent id of another kind")
    if not isinstance(saved[1], StorageKind) or not isinstance(saved[2], str | int | bytes):
        raise pickle.UnpicklingError("a storage of no kind, or without a key")
    return saved[1:]


def _text(value: Any) -> Any:
    return value.decode("ascii") if isinstance(value, bytes) else value


def _read_plain(data: _Data) -> Any:
    known: dict[bytes, Any] = {}

    def nested(inner: bytes) -> Any:
        if inner not in known:
            known[inner] = _read_legacy(bytes(inner))
        return known[inner]

    return unpickle(data, 0, None, nested)[0]


def _read_legacy(data: _Data) -> Any:
    at = 0
    for expected in (MAGIC, _PROTOCOL):
        value, at = unpickle(data, at)
        if value != expected:
            raise pickle.UnpicklingError("another number where torch.save writes its own")
    _, at = unpickle(data, at)  # of the system
    wanted: dict[Any, tuple[StorageKind, int]] = {}
    places: dict[Any, tuple[int, int]] = {}
    storages, views = _Storages(), _Storages()

    def read(key: Any) -> torch.UntypedStorage:
        start, size = places[key]
        return _storage_of(data, start, size)

    def persistent(saved: Any) -> Any:
        if type(saved) is tuple and len(saved) > 1 and _text(saved[0]) == "module":
            return saved[1]
        kind, key, _, count, view = _parts(saved, 5)
        if type(count) is not int or count < 0:
            raise pickle.UnpicklingError("a storage of no size")
        wanted.setdefault(key, (kind, count))
        # At most what the file has: it is compared below with what is there.
        size = count * kind.dtype.itemsize
        if size > len(data):
            raise pickle.UnpicklingError("a storage that is larger than the file")
        root = storages.get(key, kind, count, size, partial(read, key))
        if view is None:
            return root
        name, offset, length = view
        return views[name] if name in views else views.add(name, root.part(offset, length))

    result, at = unpickle(data, at, persistent)
    keys, at = unpickle(data, at)
    for key in keys:
        kind, count = wanted.pop(key)
        size = count * kind.dtype.itemsize
        (found,) = struct.unpack("<q", data[at : at + 8])
        at += 8
        if found != count or at + size > len(data):
            raise pickle.UnpicklingError(f"a storage of {found} values, said to be of {count}")
        places[key] = (at, size)
        at += size
    if wanted:
        raise pickle.UnpicklingError("a storage that is not in the file")
    return result


def _storage_of(data: _Data, start: int, size: int) -> torch.UntypedStorage:
    if not size:
        return torch.UntypedStorage(0)  # type: ignore[no-untyped-call]
    values = torch.frombuffer(bytearray(data[start : start + size]), dtype=torch.uint8)
    return values.untyped_storage()


def is_old_tar(path: Path) -> bool:
    """Whether a file is a checkpoint of PyTorch before 0.2, a tar archive."""
    return _read_parts(path).keys() >= _OLD_PARTS


def _read_parts(path: Path, *, contents: bool = False) -> Mapping[str, bytes]:
    """The first files of a tar archive, empty without ``contents``; none where it is no such."""
    parts: dict[str, bytes] = {}
    try:
        with path.open("rb") as file, open_tar(file) as archive:
            for _, member in zip(range(_MOST_PARTS), archive, strict=False):
                if contents and member.name in _OLD_PARTS:
                    memory.require(member.size, "what the checkpoint holds", CheckpointError)
                    found = archive.extractfile(member)
                    parts[member.name] = b"" if found is None else found.read()
                else:
                    parts[member.name] = b""
    except (tarfile.TarError, EOFError, ValueError, RecursionError):
        return parts
    return parts


def _read_tar(path: Path) -> Any:
    parts = _read_parts(path, contents=True)
    objects: dict[Any, Any] = _old_storages(parts["storages"])
    _old_tensors(parts["tensors"], objects)

    def persistent(saved: Any) -> Any:
        return saved[0] if isinstance(saved, tuple) else objects[int(saved)]

    return thawed(unpickle(parts["pickle"], 0, persistent)[0])


def _old_storages(data: bytes) -> dict[Any, Any]:
    """Storages by key: how many, then of each a pickle, its length and its values; then views."""
    count, at = unpickle(data, 0)
    storages: dict[Any, PickledStorage] = {}
    for _ in range(count):
        (key, _, kind), at = unpickle(data, at)
        (length,) = struct.unpack("<q", data[at : at + 8])
        at, size = at + 8, length * kind.dtype.itemsize
        if length < 0 or at + size > len(data):
            raise pickle.UnpicklingError("a storage goes beyond the file")
        storages[key] = PickledStorage(kind.dtype, partial(_storage_of, data, at, size), size)
        at += size
    views, _ = unpickle(data, at)
    for key, root, offset, length in views:
        storages[key] = storages[root].part(offset, length)
    return storages


def _old_tensors(data: bytes, objects: dict[Any, Any]) -> None:
    """Adds the tensors: how many, then of each a pickle, the rank, sizes, strides, the offset."""
    count, at = unpickle(data, 0)
    for _ in range(count):
        (key, storage, _), at = unpickle(data, at)
        (rank,) = struct.unpack("<i", data[at : at + 4])
        if not 0 <= rank <= _MOST_AXES:
            raise pickle.UnpicklingError(f"a tensor of {rank} axes")
        numbers = struct.unpack(f"<{2 * rank + 1}q", data[at + 8 : at + 16 + 16 * rank])
        objects[key] = PickledTensor(
            objects[storage], numbers[-1], numbers[:rank], numbers[rank : 2 * rank]
        )
        at += 16 + 16 * rank
