"""The C interface of libadder_onnx, called as a program without Python would call it."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import struct
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

import adder_onnx
from adder_onnx.compilation import compile_model
from adder_onnx.compilation.chain_file import chain_file
from adder_onnx.kernels.cpu import ISA_VARIABLE, _native
from adder_onnx.runtime.chain_description import ChainDescription
from tests.integer_chains import random_chain
from tests.models import W1, W2, adder_conv, image, make_model, node, oracle

FOLDER = Path(_native.__file__).parents[1] / "library"
HEADER = Path(__file__).parents[1] / "kernels" / "library" / "adder_onnx.h"
TYPES = {"float32": 0, "float16": 1, "uint8": 2}


class Shape(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("batch", "channels", "height", "width")]


class Image(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("type", ctypes.c_int), ("shape", Shape)]


Task = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t)
ParallelFor = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t, Task, ctypes.c_void_p)


class Threads(ctypes.Structure):
    _fields_ = [
        ("parallel_for", ParallelFor),
        ("self", ctypes.c_void_p),
        ("count", ctypes.c_int),
    ]


@pytest.fixture(scope="session")
def library() -> Any:
    loaded = ctypes.CDLL(str(next(FOLDER.glob("*adder_onnx.*[sdol]*"))))
    loaded.adder_error.restype = ctypes.c_char_p
    for name in ("adder_input_count", "adder_output_count"):
        getattr(loaded, name).restype = ctypes.c_size_t
        getattr(loaded, name).argtypes = [ctypes.c_void_p]
    for name in ("adder_input_type", "adder_output_type", "adder_input_channels"):
        getattr(loaded, name).argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    loaded.adder_input_channels.restype = ctypes.c_int64
    pointer = ctypes.c_void_p
    loaded.adder_open.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.POINTER(pointer)]
    loaded.adder_open_file.argtypes = [ctypes.c_char_p, ctypes.POINTER(pointer)]
    loaded.adder_close.argtypes = [pointer]
    loaded.adder_close.restype = None
    shapes, images = ctypes.POINTER(Shape), ctypes.POINTER(Image)
    loaded.adder_output_shapes.argtypes = [pointer, shapes, shapes]
    loaded.adder_run.argtypes = [pointer, images, images, ctypes.c_int]
    loaded.adder_run_on.argtypes = [pointer, images, images, ctypes.POINTER(Threads)]
    return loaded


def _network() -> onnx.ModelProto:
    """A chain with a residual, and nothing else."""
    nodes = [
        adder_conv("X", "W1", "A", pads=[1, 1, 1, 1]),
        node("Relu", ["A"], "R"),
        adder_conv("R", "W2", "B", pads=[1, 1, 1, 1]),
        node("Add", ["B", "R"], "Y"),
    ]
    sizes = ["N", 3, "H", "W"], ["N", 20, "H", "W"]
    return make_model(nodes, {"X": sizes[0]}, {"Y": sizes[1]}, {"W1": W1, "W2": W2})


def _part(x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """An array of the shape of ``y`` whose memory begins within that of ``x``."""
    return np.ndarray(
        y.shape, y.dtype, buffer=(ctypes.c_char * y.nbytes).from_address(x.ctypes.data)
    )


def _file(model: Any) -> bytes:
    (chain,) = compile_model(model).chains
    assert chain.description is not None
    return chain_file(chain.description)


@contextmanager
def _opened(library: Any, data: bytes) -> Iterator[ctypes.c_void_p]:
    chain = ctypes.c_void_p()
    assert library.adder_open(data, len(data), ctypes.byref(chain)) == 0, library.adder_error()
    try:
        yield chain
    finally:
        library.adder_close(chain)


def _images(arrays: list[NDArray[Any]]) -> Any:
    return (Image * len(arrays))(
        *(Image(a.ctypes.data, TYPES[str(a.dtype)], Shape(*a.shape)) for a in arrays)
    )


def _run(
    library: Any, chain: ctypes.c_void_p, inputs: list[NDArray[Any]], threads: int | Threads = 2
) -> list[NDArray[Any]]:
    shapes = (Shape * len(inputs))(*(Shape(*x.shape) for x in inputs))
    outputs = (Shape * library.adder_output_count(chain))()
    assert library.adder_output_shapes(chain, shapes, outputs) == 0, library.adder_error()
    types = ["float32", "float16", "uint8"]
    results = [
        np.empty(
            (s.batch, s.channels, s.height, s.width), types[library.adder_output_type(chain, i)]
        )
        for i, s in enumerate(outputs)
    ]
    given = _images(inputs), _images(results)
    if isinstance(threads, int):
        status = library.adder_run(chain, *given, threads)
    else:
        status = library.adder_run_on(chain, *given, ctypes.byref(threads))
    assert status == 0, library.adder_error()
    return results


def _one_by_one(_: Any, count: int, task: Any, argument: Any) -> None:
    for i in range(count):
        task(argument, i)


def _at_once(_: Any, count: int, task: Any, argument: Any) -> None:
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(lambda i: task(argument, i), range(count)))


@pytest.mark.parametrize("seed", range(12))
def test_chains_of_integers_are_equal_to_the_bodies(library: Any, seed: int) -> None:
    """The bodies are executed by stock onnxruntime, the file by the library."""
    model, feed = random_chain(seed)
    expected = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    ).run(None, feed)
    (chain,) = compile_model(model).chains
    inputs = [feed[name] for name in chain.inputs]
    with _opened(library, _file(model)) as opened:
        assert library.adder_input_count(opened) == len(inputs)
        by_name = dict(zip(chain.outputs, _run(library, opened, inputs), strict=True))
        for output, truth in zip(model.graph.output, expected, strict=True):
            np.testing.assert_array_equal(by_name[output.name], truth)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("parallel_for", [_one_by_one, _at_once])
def test_threads_of_the_caller(library: Any, count: int, parallel_for: Any) -> None:
    """Images of several sizes, and batches that are cut into passes and that are not."""
    model = _network()
    threads = Threads(ParallelFor(parallel_for), None, count)
    with _opened(library, _file(model)) as chain:
        for x in (image(1, 3, 9, 8), image(2, 3, 6, 6), image(40, 3, 5, 5), image(0, 3, 5, 5)):
            (own,) = _run(library, chain, [x], 1)
            (theirs,) = _run(library, chain, [x], threads)
            np.testing.assert_array_equal(theirs, own)
            (truth,) = oracle(model, {"X": x})
            np.testing.assert_allclose(own, truth, rtol=1e-5, atol=1e-4)


def test_as_many_calls_as_are_worth_it(library: Any) -> None:
    """Of the caller's threads; passes of a large batch go on 64 at once at most."""
    counts: list[int] = []

    def noted(_: Any, count: int, task: Any, argument: Any) -> None:
        counts.append(count)
        _one_by_one(_, count, task, argument)

    with _opened(library, _file(_network())) as chain:
        for count, batch, wanted in ((1, 4, set()), (3, 2, {3}), (100, 640, {64, 100})):
            counts.clear()
            _run(library, chain, [image(batch, 3, 5, 5)], Threads(ParallelFor(noted), None, count))
            assert set(counts) == wanted


def test_a_value_stays_until_it_has_been_added(library: Any) -> None:
    """A residual that is used long after the layer behind it has read it."""
    shape = ["N", 20, "H", "W"]
    nodes = [adder_conv(x, "W2", y, pads=[1, 1, 1, 1]) for x, y in ("XA", "AB", "BC", "CD")]
    nodes.append(node("Add", ["D", "A"], "Y"))
    model = make_model(nodes, {"X": shape}, {"Y": shape}, {"W2": W2})
    x = image(2, 20, 5, 6)
    with _opened(library, _file(model)) as chain:
        np.testing.assert_allclose(
            _run(library, chain, [x])[0], oracle(model, {"X": x})[0], rtol=1e-5, atol=1e-2
        )


def _channels(library: Any, model: onnx.ModelProto) -> dict[str, int]:
    """Of the inputs of a model's one chain, by name."""
    (chain,) = compile_model(model).chains
    with _opened(library, _file(model)) as opened:
        return {
            name: library.adder_input_channels(opened, i) for i, name in enumerate(chain.inputs)
        }


@pytest.mark.parametrize("seed", range(12))
def test_channels_of_an_input(library: Any, seed: int) -> None:
    model, feed = random_chain(seed)
    assert _channels(library, model) == {name: x.shape[1] for name, x in feed.items()}


def test_channels_in_groups(library: Any) -> None:
    nodes = [adder_conv("X", "W", "Y", group=4)]
    weight = {"W": np.zeros((8, 3, 1, 1), np.float32)}
    model = make_model(nodes, {"X": ["N", 12, 5, 5]}, {"Y": ["N", 8, 5, 5]}, weight)
    assert _channels(library, model) == {"X": 12}


def test_channels_of_a_residual(library: Any) -> None:
    """An input that is only added has those of the filters."""
    nodes = [adder_conv("X", "W1", "A", pads=[1, 1, 1, 1]), node("Add", ["A", "Z"], "Y")]
    shape = ["N", 20, 5, 5]
    model = make_model(nodes, {"X": ["N", 3, 5, 5], "Z": shape}, {"Y": shape}, {"W1": W1})
    assert _channels(library, model) == {"X": 3, "Z": 20}


def _pools(layers: list[int]) -> bytes:
    """A file of 2x2 MaxPools of uint8, one behind the other, and then these layers."""
    count = 2 + (1 if layers else 0)
    pool = [1, 1, 1, 1, 0, 0, 0, 0, 0, 2, 2, 0]
    integers = [1, 1, count, 1, 2, 2, 0, 255, 2, 0, -1, *pool, 2, 1, -1, *pool, *layers]
    floats = [1.0, *([1.0, 1.0, 0.0] if layers else []), 1.0]
    weight, values = np.zeros((4, 7, 1, 1), np.uint8), np.ones(4, np.float32)
    exit_ = [count, 2, 2, 0, 255]
    return chain_file(ChainDescription([*integers, *exit_], floats, [weight, values, values]))


def test_channels_behind_poolings(library: Any) -> None:
    conv = [1, 2, -1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 0, 1, 2, 0, 0, 0, 8]
    with _opened(library, _pools(conv)) as chain:
        assert library.adder_input_channels(chain, 0) == 7
    with _opened(library, _pools([])) as chain:
        assert library.adder_input_channels(chain, 0) == -1
        for channels in (1, 5):
            (y,) = _run(library, chain, [np.ones((1, channels, 8, 8), np.uint8)])
            assert y.shape == (1, channels, 6, 6)


def test_many_threads_run_one_chain(library: Any) -> None:
    batches = [image(n, 3, 9, 8) for n in (1, 2, 5)]
    wrong: list[int] = []
    with _opened(library, _file(_network())) as chain:
        expected = [_run(library, chain, [x], 1)[0] for x in batches]

        def work() -> None:
            for _ in range(30):
                for i, x in enumerate(batches):
                    if not np.array_equal(_run(library, chain, [x])[0], expected[i]):
                        wrong.append(i)

        workers = [threading.Thread(target=work) for _ in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert not wrong


def test_files_are_read_from_their_path(library: Any, tmp_path: Path) -> None:
    path = tmp_path / "ö.adder"
    path.write_bytes(_file(_network()))
    chain = ctypes.c_void_p()
    assert library.adder_open_file(os.fsencode(path), ctypes.byref(chain)) == 0
    library.adder_close(chain)
    assert library.adder_open_file(os.fsencode(tmp_path / "none"), ctypes.byref(chain)) == 1
    assert b"none' cannot be read" in library.adder_error()
    assert not chain


def test_what_does_not_fit_is_told(library: Any) -> None:
    def message(status: int) -> str:
        assert status == 1
        return str(library.adder_error().decode())

    x, y = image(1, 3, 9, 8), np.empty((1, 20, 9, 8), np.float32)
    with _opened(library, _file(_network())) as chain:
        (right,) = _run(library, chain, [x])
        y = np.empty_like(right)
        run = library.adder_run
        assert "null" in message(run(None, _images([x]), _images([y]), 1))
        assert "null" in message(run(chain, None, _images([y]), 1))
        assert "threads" in message(run(chain, _images([x]), _images([y]), 0))
        wide = image(1, 4, 9, 8)
        assert "input has 4" in message(run(chain, _images([wide]), _images([y]), 1))
        integers = np.zeros(x.shape, np.uint8)
        assert "another type" in message(run(chain, _images([integers]), _images([y]), 1))
        small = y[:, :, :-1].copy()
        assert "another type or shape" in message(run(chain, _images([x]), _images([small]), 1))
        assert "shares memory" in message(run(chain, _images([x]), _images([_part(x, y)]), 1))
        huge = Image(x.ctypes.data, 0, Shape(1 << 62, 3, 9, 8))
        assert "too large" in message(run(chain, (Image * 1)(huge), _images([y]), 1))
        negative = Image(x.ctypes.data, 0, Shape(-1, 3, 9, 8))
        assert "negative" in message(run(chain, (Image * 1)(negative), _images([y]), 1))


def test_files_that_lie_are_refused(library: Any) -> None:
    """Cut off anywhere, or with any number replaced: an error, or a chain that runs."""
    data = _file(_network())
    chain = ctypes.c_void_p()
    counts = struct.unpack_from("<3q", data, 8)
    header = 8 + 24 + 8 * counts[0] + 4 * counts[1]
    for length in (*range(0, header, 4), *range(header, len(data), 997), len(data) - 1):
        assert library.adder_open(data[:length], length, ctypes.byref(chain)) == 1, length
    assert library.adder_open(data + b"x", len(data) + 1, ctypes.byref(chain)) == 1
    (compiled,) = compile_model(_network()).chains
    assert compiled.description is not None
    for changes in ({"floats": [*compiled.description.floats, 1.0]}, {"floats": []}):
        bad = chain_file(replace(compiled.description, **changes))
        assert library.adder_open(bad, len(bad), ctypes.byref(chain)) == 1
    refused = 0
    for at in range(0, header, 8):
        for wrong in (-1, 0, 1, 5, 1 << 31, 1 << 62, -(1 << 63)):
            bad = data[:at] + struct.pack("<q", wrong) + data[at + 8 :]
            if library.adder_open(bad, len(bad), ctypes.byref(chain)):
                refused += 1
                continue
            x = image(1, 3, 9, 8)
            outputs = (Shape * max(library.adder_output_count(chain), 1))()
            library.adder_output_shapes(chain, (Shape * 1)(Shape(*x.shape)), outputs)
            library.adder_close(chain)
    assert refused > header // 8


def test_the_variable_names_the_instructions(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data, x = _file(_network()), image(2, 3, 9, 8)
    with _opened(library, data) as chain:
        expected = _run(library, chain, [x])
    monkeypatch.setenv(ISA_VARIABLE, "scalar")
    with _opened(library, data) as chain:
        np.testing.assert_array_equal(_run(library, chain, [x]), expected)
    monkeypatch.setenv(ISA_VARIABLE, "sse9")
    chain = ctypes.c_void_p()
    assert library.adder_open(data, len(data), ctypes.byref(chain)) == 1
    assert b"'sse9' is unknown" in library.adder_error()


@pytest.mark.parametrize(
    ("compiler", "standard"), [("cc", "c99"), ("c++", "c++11"), ("clang", "c11")]
)
def test_the_header_is_plain_c(compiler: str, standard: str) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no {compiler}")
    language = "c++" if "++" in standard else "c"
    options = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", f"-std={standard}"]
    command = [compiler, *options, "-x", language, "-include", str(HEADER), "/dev/null"]
    subprocess.run(command, check=True, timeout=60)
    assert Path(adder_onnx.get_include(), "adder_onnx.h").read_bytes() == HEADER.read_bytes()


def test_nothing_but_the_interface_is_exported() -> None:
    if shutil.which("nm") is None:
        pytest.skip("there is no nm")
    path = next(FOLDER.glob("*adder_onnx.*[sdol]*"))
    command = ["nm", "-D", "--defined-only", "--format=posix", str(path)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    names = {line.split()[0] for line in lines}
    declared = set(re.findall(r"ADDER_API .*?\b(adder_\w+)\(", HEADER.read_text()))
    assert names - {"RegisterCustomOps"} == declared
