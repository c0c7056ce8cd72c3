"""What `InferenceSession` has of onnxruntime's session, beside that session itself."""

from __future__ import annotations

import inspect
import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

import adder_onnx
from adder_onnx.errors import AdderError, BrokenDependencyError, InputError, MissingDependencyError
from adder_onnx.runtime.io_binding import IOBinding
from adder_onnx.runtime.onnxruntime_library import import_onnxruntime, print_nothing
from tests.conftest import ROOT
from tests.models import image, make_model, node, normalized_network

CPU = "CPUExecutionProvider"
MODEL = normalized_network().SerializeToString()
X = image(2, 3, 5, 6)


@pytest.fixture(scope="module")
def ours() -> adder_onnx.InferenceSession:
    return adder_onnx.InferenceSession(MODEL)


@pytest.fixture(scope="module")
def theirs() -> Any:
    return onnxruntime.InferenceSession(MODEL, providers=[CPU])


def test_arguments_have_onnxruntimes_order_and_names() -> None:
    def first(kind: Any) -> list[str]:
        return list(inspect.signature(kind).parameters)[:4]

    assert first(adder_onnx.InferenceSession) == first(onnxruntime.InferenceSession)
    for name in ("run", "run_async", "run_with_ort_values", "run_with_iobinding", "set_providers"):
        found, expected = (
            list(inspect.signature(getattr(kind, name)).parameters)
            for kind in (adder_onnx.InferenceSession, onnxruntime.InferenceSession)
        )
        assert found[: len(expected)] == expected, name
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    for session in (
        adder_onnx.InferenceSession(MODEL, options, [CPU], [{}]),
        adder_onnx.InferenceSession(MODEL, sess_options=options, providers=[(CPU, {})]),
        adder_onnx.InferenceSession(MODEL, session_options=options, enable_fallback=0),
    ):
        assert session.threads == 2
        assert session.get_session_options() is options


def test_paths_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(MODEL)
    for source in (
        path,
        str(path),
        MODEL,
        bytearray(MODEL),
        memoryview(MODEL),
        normalized_network(),
    ):
        assert adder_onnx.InferenceSession(source).get_inputs()[0].name == "X"  # type: ignore[arg-type]


OPTIONS = onnxruntime.SessionOptions()


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        ((None,), {}, "path_or_bytes is of type NoneType"),
        ((3,), {}, "path_or_bytes is of type int"),
        (([],), {}, "path_or_bytes is of type list"),
        ((MODEL, 3), {}, "session options are of type int"),
        ((MODEL, [CPU]), {}, "session options are of type list"),
        ((MODEL,), {"bogus": 1}, "no argument 'bogus'"),
        ((MODEL, OPTIONS), {"session_options": OPTIONS}, "are the same: give one"),
        ((MODEL, None, CPU), {}, "providers is 'CPU.*expected a list"),
        ((MODEL, None, [3]), {}, "providers have 3"),
        ((MODEL, None, [(CPU, 3)]), {}, "providers have"),
        ((MODEL, None, [CPU], [{}, {}]), {}, "a dict for each of the 1 providers"),
        ((MODEL, None, [CPU], {}), {}, "a dict for each of the 1 providers"),
        ((MODEL, None, None, [{}]), {}, "without providers"),
        ((MODEL, None, [(CPU, {"a": 1})], [{"b": 1}]), {}, "in providers and in provider_options"),
        ((MODEL,), {"device": None}, "device is None"),
        ((MODEL,), {"device": 0}, "device is 0"),
        ((MODEL,), {"threads": "2"}, "threads is '2'"),
        ((MODEL,), {"threads": True}, "threads is True"),
        ((MODEL,), {"threads": 1.5}, "threads is 1.5"),
        ((MODEL,), {"threads": 100_000}, "threads is 100000; expected at most 1024"),
        ((MODEL,), {"concurrency": "2"}, "concurrency is '2'"),
        ((MODEL,), {"arithmetic": []}, "arithmetic"),
    ],
)
def test_mistakes_when_it_is_made(
    arguments: tuple[Any, ...], keywords: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        adder_onnx.InferenceSession(*arguments, **keywords)


@pytest.mark.parametrize(
    ("names", "feed", "message"),
    [
        (None, [X], "input_feed is of type list"),
        (None, None, "input_feed is of type NoneType"),
        (None, X, "input_feed is of type ndarray"),
        (None, {"X": None}, "input 'X' is None"),
        (None, {"X": "text"}, "input 'X' has type <U4"),
        (None, {"X": [[1.0], [2.0, 3.0]]}, "input 'X' is not an array"),
        (None, {"X": object()}, "input 'X' has type object"),
        (None, {3: X}, "no input 3"),
        ("Y", {"X": X}, "output_names is of type str"),
        (3, {"X": X}, "output_names is of type int"),
        ([3], {"X": X}, "no output 3"),
    ],
)
def test_mistakes_in_a_run(
    ours: adder_onnx.InferenceSession, names: Any, feed: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        ours.run(names, feed)


def test_names_and_feeds_of_any_kind(ours: adder_onnx.InferenceSession) -> None:
    (expected,) = ours.run(None, {"X": X})
    value = onnxruntime.OrtValue.ortvalue_from_numpy(X)
    for names in (None, [], (), ["Y"], ("Y",), {"Y": 0}, iter(["Y"])):
        for given in (X, value):
            if not hasattr(names, "__next__") or given is X:
                np.testing.assert_array_equal(ours.run(names, {"X": given})[0], expected)  # type: ignore[arg-type]


def test_descriptions_are_equal_by_what_they_say(
    ours: adder_onnx.InferenceSession, theirs: Any
) -> None:
    assert ours.get_inputs() == ours.get_inputs()
    assert ours.get_inputs() == adder_onnx.InferenceSession(MODEL).get_inputs()
    assert ours.get_inputs() != ours.get_outputs()
    for mine, its in zip(ours.get_outputs(), theirs.get_outputs(), strict=True):
        assert (mine.name, mine.type, mine.shape) == (its.name, its.type, its.shape)
    assert ours.get_overridable_initializers() == theirs.get_overridable_initializers() == []


def test_providers(ours: adder_onnx.InferenceSession, theirs: Any) -> None:
    assert ours.get_providers() == theirs.get_providers() == [CPU]
    assert ours.get_provider_options() == theirs.get_provider_options()
    with pytest.raises(InputError, match="a session stays on its device, here cpu"):
        ours.set_providers([CPU])
    ours.disable_fallback()
    ours.enable_fallback()


@pytest.mark.parametrize("is_described", [False, True])
def test_model_metadata(is_described: bool) -> None:
    model = normalized_network()
    if is_described:
        model.producer_name, model.domain, model.model_version = "maker", "com.example", 7
        model.doc_string, model.graph.doc_string = "a model", "a graph"
        onnx.helper.set_model_props(model, {"key": "value"})
    data = model.SerializeToString()
    ours = adder_onnx.InferenceSession(data).get_modelmeta()
    theirs = onnxruntime.InferenceSession(data, providers=[CPU]).get_modelmeta()
    for name in (n for n in dir(theirs) if not n.startswith("_")):
        assert getattr(ours, name) == getattr(theirs, name), name


def test_run_options_of_a_run(ours: adder_onnx.InferenceSession) -> None:
    (expected,) = ours.run(None, {"X": X})
    options = onnxruntime.RunOptions()
    options.logid = "mine"
    options.log_severity_level = 3
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    np.testing.assert_array_equal(ours.run(["Y"], {"X": X}, options)[0], expected)
    np.testing.assert_array_equal(ours.run(None, {"X": X}, run_options=options)[0], expected)


def test_ort_values(ours: adder_onnx.InferenceSession, theirs: Any) -> None:
    feed = {"X": onnxruntime.OrtValue.ortvalue_from_numpy(X)}
    (mine,), (its,) = ours.run_with_ort_values(["Y"], feed), theirs.run_with_ort_values(["Y"], feed)
    assert type(mine) is type(its)
    assert (mine.shape(), mine.data_type()) == (its.shape(), its.data_type())
    np.testing.assert_allclose(mine.numpy(), its.numpy(), rtol=1e-5, atol=1e-4)


def test_ort_values_of_text() -> None:
    """It gives them, but makes none of arrays."""
    numbers = make_model([node("Identity", ["X"], "Y")], {"X": ["N"]}, {"Y": ["N"]})
    numbers.graph.node[0].CopyFrom(node("Cast", ["X"], "Y", to=TensorProto.STRING))
    numbers.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING
    given = {"X": onnxruntime.OrtValue.ortvalue_from_numpy(np.array([1, 2.5], np.float32))}
    theirs = onnxruntime.InferenceSession(numbers.SerializeToString())
    feed = {"X": theirs.run_with_ort_values(None, given)[0]}
    text = make_model([node("Identity", ["X"], "Y")], {"X": ["N"]}, {"Y": ["N"]}, elem_type=8)
    session = adder_onnx.InferenceSession(text)
    assert session.run(None, feed)[0].tolist() == ["1", "2.5"]
    with pytest.raises(InputError, match="output 'Y' is no tensor of numbers"):
        session.run_with_ort_values(None, feed)


def test_a_callback(ours: adder_onnx.InferenceSession) -> None:
    (expected,) = ours.run(None, {"X": X})
    called, done = [], threading.Event()

    def callback(*arguments: Any) -> None:
        called.append(arguments)
        done.set()

    ours.run_async(None, {"X": X}, callback, "mine")
    assert done.wait(60)
    ((results, data, error),) = called
    np.testing.assert_array_equal(results[0], expected)
    assert (data, error) == ("mine", "")
    done.clear()
    options = onnxruntime.RunOptions()
    options.terminate = True
    ours.run_async(None, {"X": X}, callback, None, options)
    assert done.wait(60)
    assert called[1][:2] == ([], None)
    assert "terminated" in called[1][2]
    with pytest.raises(InputError, match="'X' is missing"):
        ours.run_async(None, {}, callback)


def test_a_callback_learns_of_every_error(
    ours: adder_onnx.InferenceSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> list[Any]:
        raise MemoryError

    monkeypatch.setattr(ours, "_run", fail)
    called: queue.Queue[Any] = queue.Queue()
    ours.run_async(None, {"X": X}, lambda *arguments: called.put(arguments), "mine")
    assert called.get(timeout=60) == ([], "mine", "MemoryError")


def test_bindings(ours: adder_onnx.InferenceSession, theirs: Any) -> None:
    (expected,) = ours.run(None, {"X": X})
    found = []
    for session in (ours, theirs):
        binding: Any = session.io_binding()
        binding.bind_cpu_input("X", X)
        binding.bind_output("Y")
        assert session.run_with_iobinding(binding) is None
        (value,) = binding.get_outputs()
        found.append((type(value), value.shape(), binding.copy_outputs_to_cpu()[0].dtype))
        result = np.zeros((2, 20), np.float32)
        binding.clear_binding_outputs()
        binding.clear_binding_inputs()
        binding.bind_input("X", "cpu", 0, np.float32, X.shape, X.ctypes.data)
        binding.bind_output("Y", "cpu", 0, np.float32, result.shape, result.ctypes.data)
        binding.synchronize_inputs()
        session.run_with_iobinding(binding, onnxruntime.RunOptions())
        binding.synchronize_outputs()
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-4)
        binding.bind_input("X", "cpu", 0, TensorProto.FLOAT, X.shape, X.ctypes.data)
        target = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((2, 20), np.float32))
        binding.bind_ortvalue_input("X", onnxruntime.OrtValue.ortvalue_from_numpy(X))
        binding.bind_ortvalue_output("Y", target)
        session.run_with_iobinding(binding)
        np.testing.assert_allclose(target.numpy(), expected, rtol=1e-5, atol=1e-4)
        np.testing.assert_array_equal(binding.get_outputs()[0].numpy(), target.numpy())
    assert found[0] == found[1]


def test_mistakes_in_bindings(ours: adder_onnx.InferenceSession) -> None:
    binding = ours.io_binding()
    assert isinstance(binding, IOBinding)
    with pytest.raises(InputError, match="no output is bound"):
        ours.run_with_iobinding(binding)
    with pytest.raises(InputError, match="no input 'Q'"):
        binding.bind_cpu_input("Q", X)
    with pytest.raises(InputError, match="no output 'Q'"):
        binding.bind_output("Q")
    with pytest.raises(InputError, match="memory of 'cuda' cannot be bound"):
        binding.bind_input("X", "cuda", 0, np.float32, X.shape, 1)
    with pytest.raises(InputError, match="needs element_type and shape"):
        binding.bind_output("Y", "cpu", 0, None, None, 1)
    for bad in ((np.float32, (-1,)), ("nonsense", (1,)), (99, (1,)), (object, (1,))):
        with pytest.raises(InputError, match="cannot be bound"):
            binding.bind_input("X", "cpu", 0, *bad, X.ctypes.data)
    wrong = np.zeros((3, 20), np.float32)
    binding.bind_cpu_input("X", X)
    binding.bind_output("Y", "cpu", 0, np.float32, wrong.shape, wrong.ctypes.data)
    with pytest.raises(InputError, match=r"output 'Y' is float32 \[2, 20\], and bound to memory"):
        ours.run_with_iobinding(binding)
    for other in (adder_onnx.InferenceSession(MODEL).io_binding(), None, 3):
        with pytest.raises(InputError, match="not one that io_binding"):
            ours.run_with_iobinding(other)  # type: ignore[arg-type]


def test_profiling_writes_one_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = "mine"
    session = adder_onnx.InferenceSession(MODEL, options)
    assert options.enable_profiling
    assert session.get_profiling_start_time_ns() > 0
    for _ in range(2):
        session.run(None, {"X": X})
    name = session.end_profiling()
    assert os.listdir() == [name]
    assert name.startswith("mine_")
    events = json.loads(Path(name).read_text())["traceEvents"]
    names = [event["name"] for event in events if event["ph"] == "X"]
    assert names.count("run") == names.count("n_A") == names.count("chain") == 2
    starts = [event["ts"] for event in events if event["name"] == "run"]
    assert 0 < starts[0] < starts[1]
    assert session.end_profiling() == ""
    session.run(None, {"X": X})
    plain = adder_onnx.InferenceSession(MODEL)
    assert (plain.end_profiling(), plain.get_profiling_start_time_ns()) == ("", 0)
    assert os.listdir() == [name]


def test_profiling_where_nothing_can_be_written(tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "missing" / "trace")
    session = adder_onnx.InferenceSession(MODEL, options)
    with pytest.raises(AdderError, match="cannot write"):
        session.end_profiling()


def fake_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    (tmp_path / "onnxruntime.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "onnxruntime")


@pytest.mark.parametrize(
    "code",
    [
        "raise ImportError('libort.so: failed to map segment from shared object')",
        "raise OSError('libort.so: failed to map segment from shared object')",
    ],
)
def test_an_onnxruntime_that_does_not_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    fake_package(tmp_path, monkeypatch, code)
    with pytest.raises(BrokenDependencyError, match=r"imported: libort\.so: failed to map"):
        import_onnxruntime()
    print_nothing()  # says nothing of it


def test_an_onnxruntime_that_lacks_another_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_package(tmp_path, monkeypatch, "import there_is_no_such_package")
    with pytest.raises(BrokenDependencyError, match="no_such_package"):
        import_onnxruntime()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match="onnxruntime is not installed"):
        import_onnxruntime()


_CHATTY = """
import os
os.write(2, b"[W:onnxruntime:Default, device_discovery.cc:164] GPU device discovery failed\\n")
def set_default_logger_severity(level): os.write(1, b"severity %d" % level)
"""


@pytest.mark.parametrize("is_verbose", [False, True])
def test_what_onnxruntime_prints_in_a_command(tmp_path: Path, is_verbose: bool) -> None:
    (tmp_path / "onnxruntime.py").write_text(_CHATTY)
    level = "INFO" if is_verbose else "WARNING"
    code = (
        f"import sys, logging; sys.path.insert(0, {str(tmp_path)!r});"
        f"logging.basicConfig(level=logging.{level}, format='log: %(message)s');"
        "from adder_onnx.runtime.onnxruntime_library import print_nothing; print_nothing();"
        "print('still there', file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "severity 4"
    line = "log: onnxruntime: [W:onnxruntime:Default, device_discovery.cc:164] GPU device discovery"
    assert done.stderr == (f"{line} failed\n" if is_verbose else "") + "still there\n"


def test_a_run_that_fails_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    model = make_model(
        [node("Reshape", ["X", "shape"], "Y")],
        {"X": ["N", 4]},
        {"Y": [None, 3]},
        {"shape": np.array([-1, 3])},
    )
    session = adder_onnx.InferenceSession(model)
    for options in (None, onnxruntime.RunOptions()):
        with pytest.raises(InputError, match="onnxruntime failed"):
            session.run(None, {"X": image(1, 4)}, options)
    assert capfd.readouterr() == ("", "")


_FEW_THREADS = """
import resource, sys, numpy as np, adder_onnx, onnxruntime
from adder_onnx.errors import InputError
from tests.models import normalized_network, image
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20),) * 2)
try:
    adder_onnx.InferenceSession(normalized_network(), threads=900)
except InputError as error:
    print(error)
x = image(40, 3, 8, 8)
expected = adder_onnx.InferenceSession(normalized_network(), threads=1).run(None, {"X": x})[0]
found = adder_onnx.InferenceSession(normalized_network(), threads=2).run(None, {"X": x})[0]
print((found == expected).all())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit is Linux's")
def test_more_threads_than_there_are() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FEW_THREADS],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    message, same = done.stdout.splitlines()
    assert "more threads, and a session with threads=900 needs 900" in message
    assert same == "True"
