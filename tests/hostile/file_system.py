"""A file system that has everything but files, and takes nothing; processes with too little."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.hostile.case import Case

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits"
MODEL, CHECKPOINT, DATA = (
    DIGITS / n for n in ("resnet8_digits.onnx", "resnet8_digits.pth", "test")
)


def cases(rng: np.random.Generator, folder: Path) -> Iterator[Case]:
    """Everything in every place, then limits of all sizes."""
    yield from _strange_inputs(folder / "inputs")
    yield from _strange_outputs(folder / "outputs")
    yield from _strange_folders(folder / "folders")
    yield from _small_processes(rng, folder / "limits")


def calls(
    model: Path, checkpoint: Path, data: Path, output: Path
) -> list[tuple[str, tuple[str, ...]]]:
    """Each command with these files."""
    written = str(output)
    return [
        ("adder-run", (str(model), "--data", str(data), "--limit", "4", "--json", written)),
        ("adder-run", (str(model), "--data", str(data), "--limit=4", "--output", f"{written}.csv")),
        ("adder-run", (str(model), "--data", str(data), "--limit=4", "--output", f"{written}.npz")),
        ("adder-inspect", (str(model), "--json", written)),
        ("adder-bench", (str(model), "--seconds=0.01", "--json", written)),
        ("adder-export", (str(checkpoint), written, "--input-shape=1,8,8", "--no-verify")),
        ("adder-quantize", (str(model), written, "--data", str(data), "--samples=4")),
        ("adder-compile", (str(model), written, "--chains", f"{written}.chains")),
    ]


def _strange_inputs(folder: Path) -> Iterator[Case]:
    folder.mkdir()
    things = _things(folder)
    for name, thing in things.items():
        for i, (place, files) in enumerate(
            {
                "model": (thing, thing, DATA),
                "data": (MODEL, CHECKPOINT, thing),
            }.items()
        ):
            for j, (command, words) in enumerate(calls(*files, folder / f"out{i}")):
                is_used = {
                    "model": command != "adder-export" or j == 5,
                    "data": command in ("adder-run", "adder-quantize"),
                }
                if is_used[place]:
                    yield Case(f"{name} as {place}", command, words)
        for option in ("--labels-csv", "--class-map"):
            words = (str(MODEL), "--data", str(DATA), "--limit=4", option, str(thing))
            yield Case(f"{name} as {option}", "adder-run", words)
        words = (str(CHECKPOINT), str(folder / "x.onnx"), "--labels", str(thing))
        yield Case(f"{name} as --labels", "adder-export", words)


def _things(folder: Path) -> dict[str, Path]:
    """What may lie where a file is expected."""
    fifo, empty, loop, dangling = (folder / n for n in ("fifo", "empty", "loop", "dangling"))
    os.mkfifo(fifo)
    empty.mkdir()
    loop.symlink_to(loop)
    dangling.symlink_to(folder / "nothing")
    (folder / "zero.bin").touch()
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(folder / "socket"))
    bound.close()
    sparse = folder / "test_batch.bin"
    with sparse.open("wb") as file:
        file.truncate(30 << 30)
    undecodable = Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.onnx"))
    undecodable.write_bytes(b"\x08\x07")
    return {
        "a pipe": fifo,
        "a pipe by a link": _link(folder / "to_fifo", fifo),
        "an empty folder": empty,
        "a link to itself": loop,
        "a link to nothing": dangling,
        "an empty file": folder / "zero.bin",
        "a socket": folder / "socket",
        "a file of 30 GB": sparse,
        "a name that is not text": undecodable,
        "/dev/zero": Path("/dev/zero"),
        "a link to /dev/zero": _link(folder / "to_zero", Path("/dev/zero")),
        "/dev/null": Path("/dev/null"),
        "/dev/stdin": Path("/dev/stdin"),
        "/proc/self/mem": Path("/proc/self/mem"),
        "/proc": Path("/proc/sys"),
        "a name of 300 characters": folder / ("x" * 300),
        "a path of 6000 characters": folder / ("y/" * 3000),
        "a file as a folder": MODEL / "in",
        "a name with a line break": folder / "a\nb\x1b[31m.onnx",
    }


def _link(path: Path, target: Path) -> Path:
    path.symlink_to(target)
    return path


def _strange_outputs(folder: Path) -> Iterator[Case]:
    folder.mkdir()
    for i in range(len(calls(MODEL, CHECKPOINT, DATA, folder))):
        own = folder / f"{i}"
        own.mkdir()
        places = {
            "a full device": Path("/dev/full"),
            "a link to itself": _link(own / "loop", own / "loop"),
            "a link into no folder": _link(own / "dangling", own / "none" / "x"),
            "a folder": own,
            "a file's inside": MODEL / "out",
            "a name of 300 characters": own / ("x" * 300),
            "a name of 255 characters": own / ("z" * 251),
            "/proc": Path("/proc/out"),
            "a device's inside": Path("/dev/null/out"),
        }
        for name, place in places.items():
            yield Case(f"{name} as output", *calls(MODEL, CHECKPOINT, DATA, place)[i])
        for size in (0, 1, 100, 5000, 20_000):
            command, words = calls(MODEL, CHECKPOINT, DATA, own / f"{size}")[i]
            limit = (("RLIMIT_FSIZE", size),)
            yield Case(f"a disk that takes {size} bytes", command, words, limit)


def _strange_folders(folder: Path) -> Iterator[Case]:
    """Folders and files that may not be read, or not be written to."""
    folder.mkdir()
    folder.chmod(0o755)
    for i, name in enumerate(("class", "image", "data", "model", "checkpoint", "output")):
        own = folder / name
        own.mkdir()
        data, model, checkpoint = own / "classes", own / "model.onnx", own / "checkpoint.pth"
        shutil.copytree(DATA, data)
        shutil.copy(MODEL, model)
        shutil.copy(CHECKPOINT, checkpoint)
        writable = own / "writable"
        writable.mkdir()
        writable.chmod(0o777)
        classes, images = sorted(data.iterdir()), sorted(data.glob("*/*"))
        (classes[0], images[0], data, model, checkpoint, writable)[i].chmod(0)
        for j in range(len(calls(model, checkpoint, data, writable))):
            command, words = calls(model, checkpoint, data, writable / f"out{j}")[j]
            yield Case(f"{name} may not be used", command, words, unprivileged=True)


def _small_processes(rng: np.random.Generator, folder: Path) -> Iterator[Case]:
    """Too few descriptors, threads and bytes, wherever that is met."""
    folder.mkdir()
    folder.chmod(0o777)
    for i in range(100_000):
        which = ("RLIMIT_NOFILE", "RLIMIT_AS", "RLIMIT_NPROC", "RLIMIT_FSIZE")[i % 4]
        value = {
            "RLIMIT_NOFILE": int(rng.integers(3, 60)),
            "RLIMIT_AS": int(rng.integers(0, 400 << 20)),
            "RLIMIT_NPROC": int(rng.integers(0, 3)),
            "RLIMIT_FSIZE": int(rng.integers(0, 40_000)),
        }[which]
        all_calls = calls(MODEL, CHECKPOINT, DATA, folder / f"out{i}")
        command, words = all_calls[int(rng.integers(len(all_calls)))]
        name = f"{which.removeprefix('RLIMIT_')} {value}"
        yield Case(name, command, words, ((which, value),), unprivileged=which == "RLIMIT_NPROC")
