"""The commands adder-inspect and adder-bench."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from adder_onnx.cli import bench, inspect
from adder_onnx.quantization import quantize
from tests.models import image, make_model, network, node


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Batch, height and width are symbolic."""
    path = tmp_path / "model.onnx"
    onnx.save(network(), path)
    return path


@pytest.fixture
def fixed(tmp_path: Path) -> Path:
    path = tmp_path / "fixed.onnx"
    onnx.save(make_model([node("Relu", ["X"], "Y")], {"X": [4, 3]}, {"Y": [4, 3]}), path)
    return path


DIMS = ["--dim", "H=8", "--dim", "W=6"]


def test_tables_and_totals(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.main([str(model), *DIMS, "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for text in ("Nodes", "Plan for cpu", "Totals for H = 8, W = 6, N = 1", "convolutional twin"):
        assert text in out
    assert f"{48 * 9 * (20 * 3 + 20 * 20):,}" in out


def test_json_and_profile(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace, result = tmp_path / "trace.json", tmp_path / "result.json"
    arguments = [str(model), *DIMS, "--device", "cpu", "--threads", "1", "--batch-size", "2"]
    profiled = [*arguments, "--profile", "--runs", "3", "--sort", "time", "--trace", str(trace)]
    assert inspect.main([*profiled, "--json", str(result)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "overhead" in out
    written = json.loads(result.read_text())
    assert written["schema"] == 1
    assert written["assumes"] == {"H": 8, "W": 6, "N": 2}
    assert written["profile"]["threads"] == 1
    assert written["totals"]["adder_nodes"] == 2
    assert json.loads(trace.read_text())["traceEvents"]

    assert inspect.main([*arguments, "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "profile" not in json.loads(out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dim", "Q=1"], "no symbolic dimension 'Q'; theirs are N, H, W"),
        (["--dim", "H"], "'H' is not NAME=NUMBER"),
        (["--op", "Conv2D"], "has no Conv2D; its operators are Add, AdderConv, Conv, Flatten"),
        (["--trace", "t.json"], "--trace shows the runs of --profile"),
        (["--sort", "time"], "--sort time needs times"),
        (["--profile"], "input 'X' has shape [1, 3, 'H', 'W']: give numbers"),
        (["--device", "tpu", "--profile"], "device 'tpu' is not known"),
        (["--device", "tpu"], "device 'tpu' is not known"),
        (["--batch-size", "0"], "0 is not at least 1"),
        (["--json", "nowhere/out.json"], "there is no folder"),
    ],
)
def test_bad_options(
    model: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = inspect.main([str(model), *options])
    except SystemExit as error:
        status = int(error.code or 0)
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err


def test_files_that_are_no_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"no model")
    for command in (inspect.main, bench.main):
        assert command([str(bad)]) == 2
        assert command([str(tmp_path / "missing.onnx")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 4
    assert "is not an ONNX model" in err
    assert "missing.onnx" in err


def test_bench(fixed: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    example = Path(__file__).parents[1] / "examples" / "digits" / "resnet8_digits.onnx"
    arguments = ["--batch-size", "1,4", "--threads", "1,2", "--device", "cpu", "--seconds", "0.01"]
    result = tmp_path / "bench.json"
    assert bench.main([str(example), *arguments, "--json", str(result)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert len(out.splitlines()) == 5
    rows = json.loads(result.read_text())["results"]
    assert [(r["threads"], r["batch_size"]) for r in rows] == [(1, 1), (1, 4), (2, 1), (2, 4)]
    for row in rows:
        assert row["runs"] >= 10
        assert 0 < row["median_ms"] <= row["p90_ms"] <= row["p99_ms"]
        # All runs together, so that no more than the fastest of them would give.
        assert row["images_per_second"] < 2e3 * row["batch_size"] / row["median_ms"]
        assert row["images_per_second"] > 0
        kinds = [step["kind"] for step in row["steps"]]
        assert kinds == ["onnxruntime", "conversion", "chain", "conversion", "onnxruntime"]
    assert bench.main([str(fixed), "--batch-size", "4", "--seconds", "0.01"]) == 0
    capsys.readouterr()
    assert bench.main([str(fixed)]) == 2
    assert "takes batches of 4 only, and --batch-size asks for 1" in capsys.readouterr().err


@pytest.mark.parametrize("arithmetic", ["fast", "exact"])
def test_bench_arithmetic(
    model: Path, arithmetic: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    result = tmp_path / "bench.json"
    options = ["--device", "cpu", "--seconds", "0.01", "--json", str(result), *DIMS]
    assert bench.main([str(model), *options, "--arithmetic", arithmetic]) == 0
    assert json.loads(result.read_text())["results"][0]["arithmetic"] == arithmetic
    capsys.readouterr()


def test_bench_of_integers_is_exact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, result = tmp_path / "integers.onnx", tmp_path / "bench.json"
    feeds = [{"X": image(2, 3, 8, 6)}]
    onnx.save(quantize(network(), feeds).model, model)
    assert bench.main([str(model), "--seconds", "0.01", "--json", str(result), *DIMS]) == 0
    assert json.loads(result.read_text())["results"][0]["arithmetic"] == "exact"
    capsys.readouterr()


def test_bench_takes_dimensions(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [str(model), "--device", "cpu", "--seconds", "0.01"]
    assert bench.main([*options, *DIMS]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert bench.main(options) == 2
    assert "give numbers for its dimensions, such as --dim H=224" in capsys.readouterr().err
    assert bench.main([*options, "--dim", "Q=1"]) == 2
    assert "no symbolic dimension 'Q'" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["0", "-1", "inf", "x"])
def test_bad_seconds(fixed: Path, seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        bench.main([str(fixed), "--seconds", seconds])
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
