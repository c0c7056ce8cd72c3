"""Checkpoints that say what is not so."""

from __future__ import annotations

import contextlib
import io
import pickle
import resource
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from adder_onnx.errors import CheckpointError
from adder_onnx.export.checkpoint import read_checkpoint
from adder_onnx.export.torch_files import is_old_tar, read_torch_file
from adder_onnx.memory import limited
from tests.hostile import checkpoints, pickles

_HOLDERS = ("alone", "zipped", "legacy", "old")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _refused(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    before = _peak()
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert _peak() - before < 1 << 30
    assert len(str(caught.value)) < 2000
    return str(caught.value)


@pytest.mark.parametrize("holder", _HOLDERS)
@pytest.mark.parametrize("what", pickles.bombs())
def test_bombs(tmp_path: Path, what: str, holder: str) -> None:
    _refused(tmp_path / "net.pth", pickles._HOLDERS[holder](pickles.bombs()[what]))


def _tensor(offset: Any, size: Any, stride: Any) -> bytes:
    return checkpoints.saved({"a": checkpoints._tensor(offset, size, stride)})


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (5,), (1,)),
        (4, (1,), (1,)),
        (1 << 62, (1,), (1,)),
        (-1, (1,), (1,)),
        (0, (-1,), (1,)),
        (3, (2,), (-1,)),
        (0, (2, 2), (2, 2)),
        (0, (2,), (1, 1)),
        (0, ("2",), (1,)),
        (0, (2.0,), (1,)),
        (0, (1,) * 65, (1,) * 65),
        (0, (2**20,) * 4, (0,) * 4),
    ],
)
def test_tensors_beyond_their_storage(tmp_path: Path, offset: Any, size: Any, stride: Any) -> None:
    assert "not a PyTorch checkpoint" in _refused(
        tmp_path / "net.pth", _tensor(offset, size, stride)
    )


def test_views_within_a_storage(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    base = torch.arange(24.0)
    state = {
        "whole": base,
        "part": base[3:7],
        "steps": base[1::5],
        "columns": base.view(4, 6).T,
        "expanded": base[2].expand(3, 2),
        "scalar": base[5],
        "empty": base[24:],
        "bytes": torch.arange(3, dtype=torch.uint8),
        "bfloat16": torch.ones(3, dtype=torch.bfloat16),
        "bool": torch.tensor([True, False]),
        "double": torch.ones(2, 2, dtype=torch.float64),
        "parameter": nn.Parameter(torch.ones(2)),
    }
    for zipped in (True, False):
        torch.save(state, path, _use_new_zipfile_serialization=zipped)
        _same(read_checkpoint(path).state, state)
    path.write_bytes(pickle.dumps(state))
    _same(read_checkpoint(path).state, state)


def _same(found: dict[str, torch.Tensor], state: dict[str, torch.Tensor]) -> None:
    assert list(found) == list(state)
    for name, tensor in state.items():
        torch.testing.assert_close(found[name], tensor.detach(), rtol=0, atol=0)
        assert found[name].stride() == tensor.stride()


def test_other_byte_order(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save({"a": torch.arange(3.0)}, path)
    data = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(data, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("/byteorder"):
                content = b"big"
            if name.endswith("data/0"):
                content = np.frombuffer(content, "<f4").astype(">f4").tobytes()
            new.writestr(name, content)
    path.write_bytes(data.getvalue())
    assert read_checkpoint(path).state["a"].tolist() == [0, 1, 2]


def test_archive_that_was_packed_anew(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    data = checkpoints.saved({"a": torch.arange(3.0)})
    deflated = zipfile.ZIP_DEFLATED
    path.write_bytes(checkpoints._rezipped(data, lambda name, content: (content, deflated)))
    assert read_checkpoint(path).state["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("end", "content"),
    [
        ("data.pkl", None),
        ("data/0", None),
        ("data/0", b""),
        ("data/0", b"abc"),
        ("data/0", bytes(4000)),
        ("data/0", bytes(100 << 20)),
        ("byteorder", b"middle\xff"),
        ("byteorder", bytes(100)),
    ],
)
def test_archives_that_are_not_what_they_say(
    tmp_path: Path, end: str, content: bytes | None
) -> None:
    whole = checkpoints.saved({"a": torch.arange(30.0)})
    data = checkpoints._rezipped(
        whole,
        lambda name, old: (content if name.endswith(end) else old, zipfile.ZIP_DEFLATED),
    )
    _refused(tmp_path / "net.pth", data)


def test_network_larger_than_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(_tensor(0, (10**6, 10**6), (0, 0)))
    with pytest.raises(CheckpointError, match=r"the network takes 3\.6 TiB of memory"):
        read_checkpoint(path)
    path.write_bytes(checkpoints.saved({"a": torch.zeros(100_000)}))
    with limited(300_000), pytest.raises(CheckpointError, match=r"net\.pth takes 3.. KiB"):
        read_checkpoint(path)


def test_a_checkpoint_in_itself(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    state: dict[str, Any] = {"model": {"a": torch.zeros(1)}}
    state["again"] = state
    torch.save(state, path)
    assert list(read_checkpoint(path).state) == ["a"]


class _Hiding:
    """Is pickled as a dictionary whose method ``items`` is a number."""

    def __reduce__(self) -> Any:
        return OrderedDict, (), {"items": 5}, None, iter([("a", torch.zeros(1))])


def test_attributes_that_hide_those_of_a_dictionary(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save({"model": _Hiding()}, path)
    assert list(read_checkpoint(path).state) == ["a"]


@pytest.mark.parametrize("what", checkpoints._networks())
def test_networks_that_are_odd(tmp_path: Path, what: str) -> None:
    path = tmp_path / "net.pth"
    network = checkpoints._networks()[what]
    try:
        torch.save(network, path)
    except RecursionError:
        pytest.skip("too deep for PyTorch to save")
    with contextlib.suppress(CheckpointError):  # read or refused
        state = read_checkpoint(path).state
        assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())


@pytest.mark.parametrize(
    "names",
    [["a" * 1001], ["module." * 1000 + "a"], [str(i) for i in range(100_001)]],
    ids=["long", "prefixes", "many"],
)
def test_names_beyond_those_of_networks(tmp_path: Path, names: list[str]) -> None:
    data = checkpoints.saved(dict.fromkeys(names, torch.zeros(1)))
    assert "a network has at most 100000 and 1000" in _refused(tmp_path / "net.pth", data)


@pytest.mark.parametrize(
    "what", sorted(checkpoints._headers().keys() - {"good", "a shape of 1000 axes"})
)
def test_safetensors_that_are_not_what_they_say(tmp_path: Path, what: str) -> None:
    _refused(tmp_path / "net.pth", checkpoints._headers()[what])


def test_old_tar(tmp_path: Path) -> None:
    """As PyTorch before 0.2 has saved {'a': tensor}."""
    path = tmp_path / "net.pth"
    path.write_bytes(_old_tar(0, (2, 2), (2, 1)))
    assert is_old_tar(path)
    assert torch.load(path, weights_only=False)["a"].tolist() == [[0, 1], [2, 3]]
    assert read_torch_file(path)["a"].tolist() == [[0, 1], [2, 3]]
    assert read_checkpoint(path).state["a"].tolist() == [[0, 1], [2, 3]]
    for wrong in ((1, (2, 2), (2, 1)), (-1, (1,), (1,)), (0, (1 << 40,), (1,))):
        _refused(path, _old_tar(*wrong))


def _old_tar(offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    import struct
    import tarfile

    storage = b"\x80\x02(X\x01\x00\x00\x00sX\x03\x00\x00\x00cpuctorch\nFloatStorage\nt."
    values = struct.pack("<q4f", 4, 0, 1, 2, 3)
    tensor = b"\x80\x02(K\x07X\x01\x00\x00\x00sctorch\nFloatTensor\nt."
    numbers = struct.pack(f"<ii{2 * len(size) + 1}q", len(size), 0, *size, *stride, offset)
    parts = {
        "sys_info": pickle.dumps({}, 2),
        "pickle": b"\x80\x02}X\x01\x00\x00\x00aX\x01\x00\x00\x007Qs.",
        "tensors": pickle.dumps(1, 2) + tensor + numbers,
        "storages": pickle.dumps(1, 2) + storage + values + pickle.dumps([], 2),
    }
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in parts.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()
