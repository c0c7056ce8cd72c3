"""``adder-run --engine ray`` as a command: its options, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adder_onnx.cli.run import main
from tests.conftest import ROOT
from tests.rays import processes_with

DIGITS = ROOT / "examples" / "digits"
MODEL, DATA = str(DIGITS / "resnet8_digits.onnx"), str(DIGITS / "test")
MARK = "ADDER_ONNX_TEST_COMMAND"


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that says why."""
    assert main([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err.removeprefix("adder-run: error: ").rstrip("\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--threads", "2"], "--threads is not for --engine ray: --cpus-per-actor says how many"),
        (["--workers", "2"], "--workers is not for --engine ray: --cpus-per-actor says how many"),
        (["--mistakes", "x.html"], "--mistakes is not for --engine ray: --output has all answers"),
        (["--output", "x.csv"], "--output x.csv: --engine ray writes a folder of Parquet files"),
        (["--output", "x.npz"], "--output x.npz: --engine ray writes a folder of Parquet files"),
        (["--resume"], "--resume needs --output"),
        (["--logits"], "--logits needs --output"),
        (["--device", "cuda"], "--device cuda: with --engine ray, --gpus-per-actor says what"),
        (["--device", "cpu", "--gpus-per-actor", "1"], "--device cpu: with --engine ray, --gpus"),
        (["--image-column", "x"], "columns are of Parquet files; "),
        (["--format", "parquet"], "holds no parquet files"),
        (["--split", "train"], "--split"),
        (["--data", "s3:/x"], "does not exist"),
        (["--data", "nope://x"], "nope"),
        (["--skip", "1000"], "--skip 1000 leaves none"),
        (["--address", "127.0.0.1:1"], "cannot reach the cluster at 127.0.0.1:1: "),
        (["--address", "ray://127.0.0.1:1"], "cannot reach the cluster at ray://127.0.0.1:1: "),
        (["--address", "[::1]:99999"], "cannot reach the cluster at [::1]:99999: "),
        (["--output", "/no/such/folder/x"], "there is no folder /no/such/folder"),
    ],
)
def test_options_that_do_not_fit(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Found out before anything of Ray is started."""
    pytest.importorskip("ray", reason="needs adder-onnx[ray]")
    assert message in refused(capsys, MODEL, "--data", DATA, "--engine", "ray", *options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--address", "auto"], "--address needs --engine ray"),
        (["--actors", "2"], "--actors needs --engine ray"),
        (["--cpus-per-actor", "2"], "--cpus-per-actor needs --engine ray"),
        (["--gpus-per-actor", "2"], "--gpus-per-actor needs --engine ray"),
        (["--resume"], "--resume needs --engine ray"),
        (["--logits"], "--logits needs --engine ray"),
        (["--image-column", "x"], "--image-column needs --engine ray"),
        (["--label-column", "x"], "--label-column needs --engine ray"),
        (["--name-column", "x"], "--name-column needs --engine ray"),
        (["--format", "parquet"], "--format parquet needs --engine ray"),
        (["--format", "webdataset"], "--format webdataset needs --engine ray"),
        (["--data", "s3://b/x"], "--data s3://b/x: URIs need --engine ray"),
        (["--output", "s3://b/x"], "--output s3://b/x: URIs need --engine ray"),
    ],
)
def test_options_of_ray_only(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(capsys, MODEL, "--data", DATA, *options) == message


def test_data_for_one_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray", reason="needs adder-onnx[ray]")
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 1, 8, 8), np.float32))
    message = refused(capsys, MODEL, "--data", tmp_path / "x.npz", "--engine", "ray")
    assert message.endswith("is read on one machine only: leave out --engine ray")


def test_without_ray() -> None:
    code = """
import sys
sys.modules["ray"] = None
from adder_onnx.cli.run import main
sys.exit(main(sys.argv[1:]))
"""
    line = [sys.executable, "-c", code, MODEL, "--data", DATA]
    done = subprocess.run([*line, "--engine", "ray"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        'adder-run: error: Ray is not installed: pip install "adder-onnx[ray]"\n'
    )


def start(mark: str, *arguments: object) -> subprocess.Popen[str]:
    """A command, whose processes have a mark in their environment."""
    script = "import sys; from adder_onnx.cli.start import run; sys.exit(run())"
    environment = {**os.environ, MARK: mark}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.Popen(
        [sys.executable, "-c", script, MODEL, "--engine", "ray", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def assert_nothing_is_left(mark: str) -> None:
    end = time.monotonic() + 30
    while processes_with(MARK, mark) and time.monotonic() < end:
        time.sleep(0.1)
    assert processes_with(MARK, mark) == []


def test_a_command_that_is_ended_and_resumed(tmp_path: Path) -> None:
    """By SIGTERM, once some pieces are done; then nothing but JSON is on standard output."""
    pytest.importorskip("ray", reason="needs adder-onnx[ray]")
    mark, output = uuid.uuid4().hex, tmp_path / "answers"
    options = ("--data", DATA, "--batch-size", "8", "--output", output, "--cpus-per-actor", "1")
    with start(mark, *options) as process:
        incomplete = tmp_path / "answers.incomplete"
        while not list(incomplete.glob("part-*")) and process.poll() is None:
            time.sleep(0.02)
        assert processes_with(MARK, mark), "nothing was started, or it is not found"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (143, "", "adder-run: ended by SIGTERM\n")
    assert_nothing_is_left(mark)
    assert not output.exists()
    parts = list(incomplete.glob("part-*.parquet"))
    with start(mark, *options, "--resume", "--json", "-") as process:
        out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert_nothing_is_left(mark)
    assert not incomplete.exists()
    found: dict[str, Any] = json.loads(out)
    local = tmp_path / "local.json"
    assert main([MODEL, "--data", DATA, "--device", "cpu", "--json", str(local)]) == 0
    wanted = json.loads(local.read_text())
    assert set(wanted) - set(found) == set()
    for name in ("images", "top1_correct", "top5_correct", "confusion", "model_sha256", "split"):
        assert found[name] == wanted[name]
    assert found["pieces_done_before"] == len(parts) > 0
