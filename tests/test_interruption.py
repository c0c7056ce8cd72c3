"""Runs that end before they are through: by a time, RunOptions, a signal, the process's end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import adder_onnx
from adder_onnx.cli import run as adder_run
from adder_onnx.errors import AdderError, InputError, RunTerminatedError, RunTimeoutError
from adder_onnx.runtime.interruption import process_end, workers
from adder_onnx.runtime.interruption.pace import Pace, may_be_endless
from tests.conftest import ROOT
from tests.models import W1, adder_conv, image, make_model, node, normalized_network

DIGITS = ROOT / "examples" / "digits"

SOON = 5.0
"""Seconds in which what is ended must have ended; alone on a machine it takes a hundredth."""


def looping(trips: int = 1 << 62) -> onnx.ModelProto:
    """An adder layer behind a loop that does nothing, so many times, or X[0] times."""
    body = helper.make_graph(
        [node("Identity", ["c"], "c_out"), node("Identity", ["v"], "v_out")],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, ["N", 3, "H", "W"]),
        ],
        [
            helper.make_tensor_value_info("c_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_out", TensorProto.FLOAT, ["N", 3, "H", "W"]),
        ],
    )
    loop = helper.make_node("Loop", ["trips", "go", "X"], ["L"], "loop", body=body)
    return make_model(
        [node("ReduceSum", ["X"], "sum", keepdims=0), loop, adder_conv("L", "W1", "Y")],
        {"X": ["N", 3, "H", "W"]},
        {"Y": ["N", 20, None, None]},
        {"W1": W1, "trips": np.array(trips), "go": np.array(True)},
        bodies=False,
    )


def counting() -> onnx.ModelProto:
    """The same, as many times as the input's values say."""
    model = looping()
    graph = model.graph
    graph.node[0].output[0] = "float_trips"
    graph.node.insert(1, node("Cast", ["float_trips"], "trips", to=TensorProto.INT64))
    (number,) = (i for i, tensor in enumerate(graph.initializer) if tensor.name == "trips")
    del graph.initializer[number]
    return model


X = np.zeros((1, 3, 4, 4), np.float32)
ENDLESS = np.full((1, 3, 4, 4), 1e15, np.float32)


@contextlib.contextmanager
def ends_soon(after: float = 0.0) -> Iterator[None]:
    start = time.monotonic()
    yield
    assert time.monotonic() - start < after + SOON


@contextlib.contextmanager
def alarm(seconds: float, handler: Callable[..., Any]) -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def large() -> tuple[adder_onnx.InferenceSession, dict[str, Any]]:
    """A chain of adder layers alone, and a batch that takes many seconds on one thread."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((128, 128, 3, 3)).astype(np.float32)
    names = ["X", *(f"A{i}" for i in range(15)), "Y"]
    model = make_model(
        [adder_conv(x, "W", y, pads=[1] * 4) for x, y in pairwise(names)],
        {"X": ["N", 128, "H", "W"]},
        {"Y": ["N", 128, "H", "W"]},
        {"W": w},
    )
    session = adder_onnx.InferenceSession(model.SerializeToString(), threads=1)
    return session, {"X": np.zeros((24, 128, 112, 112), np.float32)}


def test_a_time_ends_an_endless_loop_and_the_session_goes_on() -> None:
    session = adder_onnx.InferenceSession(counting())
    (expected,) = session.run(None, {"X": X})
    for seconds in (0.3, 0.05):
        with ends_soon(), pytest.raises(RunTimeoutError, match=f"longer than the {seconds:g} sec"):
            session.run(None, {"X": ENDLESS}, timeout=seconds)
        np.testing.assert_array_equal(session.run(None, {"X": X}, timeout=30)[0], expected)
    with ends_soon(), pytest.raises(TimeoutError):
        session.profile({"X": ENDLESS}, timeout=0.05)


def test_a_time_ends_one_run_and_no_other() -> None:
    session = adder_onnx.InferenceSession(counting())
    (expected,) = session.run(None, {"X": X})
    found: list[Any] = []
    slow = np.full(X.shape, 5_000, np.float32)  # some tenths of a second

    def run() -> None:
        found.append(session.run(None, {"X": slow})[0])

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        with pytest.raises(RunTimeoutError):
            session.run(None, {"X": ENDLESS}, timeout=0.05)
    for thread in threads:
        thread.join()
    assert len(found) == 3
    np.testing.assert_array_equal(session.run(None, {"X": X})[0], expected)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), "1", True, [1]])
def test_what_is_no_time(seconds: Any) -> None:
    session = adder_onnx.InferenceSession(normalized_network())
    with pytest.raises(InputError, match="timeout is"):
        session.run(None, {"X": image(1, 3, 4, 4)}, timeout=seconds)


def test_results_with_a_time_are_the_same() -> None:
    session = adder_onnx.InferenceSession(normalized_network())
    x = image(2, 3, 5, 5)
    (expected,) = session.run(None, {"X": x})
    for seconds in (100, 100.0, float("inf"), None):
        np.testing.assert_array_equal(session.run(None, {"X": x}, timeout=seconds)[0], expected)


def test_a_time_ends_a_chain_of_adder_layers() -> None:
    session, feed = large()
    with ends_soon(0.3), pytest.raises(RunTimeoutError):
        session.run(None, feed, timeout=0.3)
    with ends_soon():  # the work, not only the wait for it
        while process_end._runs.under_way:
            time.sleep(0.01)
    small = {"X": feed["X"][:1, :, :8, :8]}
    (y,) = session.run(None, small)
    np.testing.assert_array_equal(session.run(None, small)[0], y)


def test_a_signal_ends_an_endless_loop() -> None:
    session = adder_onnx.InferenceSession(looping())
    with ends_soon(0.2), alarm(0.2, interrupt), pytest.raises(KeyboardInterrupt):
        session.run(None, {"X": X})


def test_a_signal_ends_a_chain_of_adder_layers() -> None:
    session, feed = large()
    for call in (session.run, lambda _, feed: session.profile(feed)):
        with ends_soon(0.3), alarm(0.3, interrupt), pytest.raises(KeyboardInterrupt):
            call(None, feed)


def test_a_signal_while_the_session_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which takes long where onnxruntime computes constants."""
    ended = threading.Event()
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: ended.wait(30))
    with ends_soon(0.2), alarm(0.2, interrupt), pytest.raises(KeyboardInterrupt):
        adder_onnx.InferenceSession(normalized_network())
    ended.set()


def test_a_signal_whose_handler_returns_ends_nothing() -> None:
    session = adder_onnx.InferenceSession(counting())
    slow = np.full(X.shape, 5_000, np.float32)
    seen: list[float] = []
    with alarm(0.05, lambda *_: seen.append(session.run(None, {"X": X})[0].sum())):
        assert session.run(None, {"X": slow})[0].shape == (1, 20, 2, 2)
    assert len(seen) == 1


def test_a_loop_whose_values_decide_is_never_taken_for_short() -> None:
    session = adder_onnx.InferenceSession(counting())
    for _ in range(3):
        session.run(None, {"X": X})
    with ends_soon(0.2), alarm(0.2, interrupt), pytest.raises(KeyboardInterrupt):
        session.run(None, {"X": ENDLESS})


def test_short_runs_stay_in_their_thread() -> None:
    pace = Pace(endless=False)
    shapes = ((1, 3, 4, 4),)
    assert pace.must_be_apart(shapes)
    pace.add(shapes, 0.01)
    assert not pace.must_be_apart(shapes)
    assert pace.must_be_apart(((2, 3, 4, 4),))
    pace.add(shapes, 1.0)
    assert pace.must_be_apart(shapes)
    pace.add(shapes, 0.01)
    for n in range(1000):
        pace.add(((n, 3, 4, 4),), 0.01)
    assert len(pace._short) <= 256
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(pace.must_be_apart(((7,),))))
    thread.start()
    thread.join()
    assert found == [False]
    endless = Pace(endless=True)
    endless.add(shapes, 0.01)
    assert endless.must_be_apart(shapes)


def test_loops_are_found_wherever_they_are() -> None:
    def plan_of(model: onnx.ModelProto) -> Any:
        return adder_onnx.InferenceSession(model).plan

    assert may_be_endless(plan_of(looping()))
    assert not may_be_endless(plan_of(normalized_network()))
    inner = looping().graph.node[1]
    branch = helper.make_graph(
        [inner], "branch", [], [helper.make_tensor_value_info("L", TensorProto.FLOAT, None)]
    )
    choice = helper.make_node("If", ["go"], ["B"], "if", then_branch=branch, else_branch=branch)
    model = looping()
    model.graph.node[1].CopyFrom(choice)
    model.graph.node[2].input[0] = "B"
    assert may_be_endless(plan_of(model))


def test_run_options_end_a_run() -> None:
    session = adder_onnx.InferenceSession(counting())
    options = onnxruntime.RunOptions()
    timer = threading.Timer(0.2, lambda: setattr(options, "terminate", True))
    timer.start()
    with ends_soon(0.2), pytest.raises(RunTerminatedError, match="terminated"):
        session.run(None, {"X": ENDLESS}, options)
    with pytest.raises(RunTerminatedError):
        session.run(None, {"X": X}, options)
    options.terminate = False
    assert session.run(None, {"X": X}, options)[0].shape == (1, 20, 2, 2)
    with pytest.raises(RunTimeoutError):
        session.run(None, {"X": ENDLESS}, options, timeout=0.05)
    assert not options.terminate  # they are the caller's, and perhaps another run's
    with pytest.raises(InputError, match=r"expected onnxruntime\.RunOptions"):
        session.run(None, {"X": X}, 3)


def test_where_there_is_no_thread_the_run_is_made_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    session = adder_onnx.InferenceSession(normalized_network())
    monkeypatch.setattr(workers, "_idle", [])
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert session.run(None, {"X": image(1, 3, 4, 4)}, timeout=9)[0].shape == (1, 20)
    assert "cannot be interrupted, since there is no thread" in caplog.text


def test_workers_are_used_again() -> None:
    session = adder_onnx.InferenceSession(normalized_network())
    session.run(None, {"X": image(1, 3, 4, 4)}, timeout=9)
    before = threading.active_count()
    for n in range(1, 30):
        session.run(None, {"X": image(n, 3, 4, 4)}, timeout=9)
    assert threading.active_count() == before


def test_a_forked_child_makes_workers_of_its_own() -> None:
    code = """
import os, sys, numpy as np, adder_onnx
from tests.models import normalized_network, image
s = adder_onnx.InferenceSession(normalized_network(), threads=1)
feed = {"X": image(1, 3, 4, 4)}
s.run(None, feed, timeout=9)
child = os.fork()
s.run(None, feed, timeout=9)
if not child:
    os._exit(0)  # as multiprocessing does: onnxruntime itself does not end well in a child
else:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT, timeout=60).returncode
        == 0
    )


_DAEMONS = """
import sys, threading, time, numpy as np, adder_onnx
s = adder_onnx.InferenceSession(sys.argv[1], threads=2)
x = np.zeros((32, 1, 8, 8), np.float32)
def work(**how):
    while True:
        s.run(None, {"input": x}, **how)
for how in ({}, {}, {"timeout": 9}):
    threading.Thread(target=work, kwargs=how, daemon=True).start()
time.sleep(0.2)
"""


def test_the_process_ends_while_daemon_threads_run() -> None:
    model = str(DIGITS / "resnet8_digits.onnx")
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", _DAEMONS, model],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_process_ends_while_a_daemon_thread_is_in_an_endless_loop(tmp_path: Path) -> None:
    onnx.save(looping(), tmp_path / "model.onnx")
    code = _DAEMONS.replace("(32, 1, 8, 8)", "(1, 3, 4, 4)").replace("input", "X")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.onnx")],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


def endless_command(tmp_path: Path) -> list[str]:
    onnx.save(endless_classifier(), tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", X=np.zeros((4, 3, 4, 4), np.float32))
    return [str(tmp_path / "model.onnx"), "--data", str(tmp_path / "data.npz")]


def endless_classifier() -> onnx.ModelProto:
    model = looping()
    graph = model.graph
    graph.node.append(node("GlobalAveragePool", ["Y"], "P"))
    graph.node.append(node("Flatten", ["P"], "C"))
    graph.output[0].CopyFrom(helper.make_tensor_value_info("C", TensorProto.FLOAT, ["N", 20]))
    return model


def test_the_command_ends_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ends_soon(0.5):
        assert adder_run.main([*endless_command(tmp_path), "--timeout", "0.5"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "the run took longer than the 0.5 seconds" in error


_INTERRUPTED = """
import os, signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs the tests may ignore it
from adder_onnx.cli import run
from adder_onnx.runtime import InferenceSession
call = InferenceSession.run
def call_and_interrupt(*arguments, **keywords):
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    return call(*arguments, **keywords)
InferenceSession.run = call_and_interrupt
sys.exit(run.main(sys.argv[1:]))
"""


def test_the_command_ends_at_an_interrupt(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED, *endless_command(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 130
    assert done.stderr.endswith("interrupted\n")
    assert done.stderr.count("\n") == 1


def test_many_threads_with_runs_that_are_ended_among_them() -> None:
    """What is not ended gives the same bits, and nothing stays behind."""
    models = [normalized_network(), counting()]
    sessions = [adder_onnx.InferenceSession(m.SerializeToString(), threads=2) for m in models]
    feeds = [{"X": np.abs(image(n, 3, 4 + n, 6))} for n in range(1, 6)]
    expected = [[s.run(None, feed)[0] for feed in feeds] for s in sessions]
    problems: list[Any] = []
    ended = [0]

    def work(number: int) -> None:
        for i in range(40):
            which, session = (number + 3 * i) % len(feeds), (number + i) % 2
            try:
                if i % 5 == 0:
                    sessions[1].run(None, {"X": ENDLESS}, timeout=0.01)
                limit = None if i % 2 else 60
                y = sessions[session].run(None, feeds[which], timeout=limit)[0]
                if not np.array_equal(y, expected[session][which]):
                    problems.append((session, which))
            except RunTimeoutError:
                ended[0] += 1
            except AdderError as error:
                problems.append(error)

    def round_() -> None:
        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    round_()
    descriptors, workers_ = len(os.listdir("/proc/self/fd")), threading.active_count()
    round_()
    assert not problems
    assert ended[0] > 50
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert threading.active_count() <= max(workers_, 1 + 8)
