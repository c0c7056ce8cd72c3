"""The command adder-quantize."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import adder_onnx
from adder_onnx.cli import _quantize_report
from adder_onnx.cli import quantize as command
from adder_onnx.cli import run as adder_run
from adder_onnx.graph import plan
from adder_onnx.graph.adder_node import mark_adder_nodes
from tests.models import node

DIGITS = Path(__file__).parents[1] / "examples" / "digits"
MODEL, DATA = DIGITS / "resnet8_digits.onnx", DIGITS / "test"


def main(*arguments: Any) -> int:
    try:
        return command.main([str(a) for a in arguments])
    except SystemExit as error:
        return int(error.code or 0)


def right(model: Path, precision: str, capsys: pytest.CaptureFixture[str]) -> int:
    assert adder_run.main([str(model), "--data", str(DATA), "--device", "cpu", "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["precision"] == precision
    return int(result["top1_correct"])


def test_the_digits_keep_their_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, result = tmp_path / "int8.onnx", tmp_path / "result.json"
    assert main(MODEL, output, "--data", DATA, "--json", result, "--sensitivity") == 0
    out, err = capsys.readouterr()
    assert err == ""
    summary = json.loads(result.read_text())
    assert summary["bits"] == 8
    assert summary["samples"] == 128
    assert summary["bytes_after"] == output.stat().st_size < 0.6 * summary["bytes_before"]
    assert len(summary["nodes"]) == len(summary["sensitivity"]) == 8
    assert all(node["snr_db"] > 15 for node in summary["nodes"])
    assert all(0 <= node["changed"] <= 0.1 for node in summary["sensitivity"])
    assert summary["left"] == []
    assert "SNR of its output" in out
    assert "8 nodes of 8 bits, 0 left in float" in out
    assert right(MODEL, "float32", capsys) - right(output, "uint8", capsys) <= 2


def test_the_precision_of_function_bodies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where integer nodes are left to onnxruntime, the answers are still those of uint8."""
    output = tmp_path / "int8.onnx"
    assert main(MODEL, output, "--data", DATA, "--samples", 20) == 0
    capsys.readouterr()
    native = right(output, "uint8", capsys)
    monkeypatch.setattr(
        plan, "mark_adder_nodes", functools.partial(mark_adder_nodes, integers=False)
    )
    assert right(output, "uint8", capsys) == native


def test_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "int4.onnx"
    arguments = [MODEL, output, "--data", DATA, "--bits", 4, "--samples", 20, "--json", "-"]
    assert main(*arguments, "--calibration", "percentile", "--percentile", 99) == 0
    first = json.loads(capsys.readouterr().out)
    data = output.read_bytes()
    assert main(*arguments, "--calibration", "percentile", "--percentile", 99) == 0
    capsys.readouterr()
    assert output.read_bytes() == data  # for the same seed
    assert main(*arguments, "--seed", 1, "--exclude", first["nodes"][0]["name"]) == 0
    other = json.loads(capsys.readouterr().out)
    assert other["left"] == [first["nodes"][0]["name"]]
    assert len(other["nodes"]) == 7
    assert right(output, "float32, uint8", capsys) > 300
    assert other["nodes"][1]["high"] != first["nodes"][2]["high"]
    assert main(*arguments, "--first", "--skip", 300) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 20


def test_few_levels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of four bits, without a word; the answers stay, and the summary names them."""
    output, result = tmp_path / "levels.onnx", tmp_path / "result.json"
    arguments = ["--data", DATA, "--levels", 8, "--exclude", "layer3.0.conv2", "--sensitivity"]
    assert main(MODEL, output, *arguments, "--json", result) == 0
    out, err = capsys.readouterr()
    assert err == ""
    summary = json.loads(result.read_text())
    assert (summary["bits"], summary["levels"]) == (4, 8)
    assert summary["left"] == ["layer3.0.conv2"]
    for entry in summary["nodes"]:
        levels = entry["levels"]
        assert len(levels) == 8
        assert levels == sorted(set(levels))
        assert levels[0] == 0
        assert levels[-1] <= 15
        assert f"{entry['name']}  " in out
        assert " ".join(map(str, levels)) in out
    assert len(summary["sensitivity"]) == 7
    assert "7 nodes of 4 bits and 8 levels, 1 left in float" in out
    assert right(MODEL, "float32", capsys) - right(output, "uint8, float32", capsys) <= 4
    assert main(MODEL, output, "--data", DATA, "--json", result) == 0
    assert '"levels"' not in result.read_text()
    assert "of its input, of the integers" not in capsys.readouterr().out


def test_images_are_drawn_from_all_classes() -> None:
    from adder_onnx.evaluation import open_dataset

    dataset = open_dataset(DATA)
    assert dataset.labels is not None
    chosen = command._drawn(dataset, 30, seed=0)
    assert np.bincount(dataset.labels[chosen]).tolist() == [3] * 10
    assert (np.diff(chosen) > 0).all()
    assert set(chosen) != set(command._drawn(dataset, 30, seed=1))


def test_ratios_without_an_end() -> None:
    """JSON has no infinity; the text tells apart what is exact and what has no signal."""
    summary = {"nodes": [{"snr_db": np.inf}, {"snr_db": -np.inf}, {"snr_db": 0.0}], "bits": 8}
    nodes = _quantize_report.without_infinity(summary)["nodes"]
    assert [node["snr_db"] for node in nodes] == [None, None, 0.0]
    texts = [_quantize_report._decibels(node["snr_db"]) for node in summary["nodes"]]  # type: ignore[attr-defined]
    assert texts == ["exact", "no signal", "0.0 dB"]


def test_standard_nodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "int8.onnx"
    arguments = (MODEL, output, "--data", DATA, "--samples", 32, "--standard-nodes")
    assert main(*arguments) == 0
    assert capsys.readouterr().err == ""
    model = onnx.load(output)
    convolutions = [n for n in model.graph.node if n.op_type == "Conv"]
    producers = {name: n.op_type for n in model.graph.node for name in n.output}
    assert convolutions
    assert all(producers[n.input[1]] == "DequantizeLinear" for n in convolutions)
    # Sums of two products of 8-bit weights saturate on processors without VNNI.
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    weights = [
        tensors[n.input[0]]
        for n in model.graph.node
        if n.output[0] in {c.input[1] for c in convolutions}
    ]
    assert weights
    assert all(w.dtype == np.int8 and np.abs(w.astype(int)).max() <= 64 for w in weights)
    original = onnx.load(MODEL)
    assert list(model.metadata_props) == list(original.metadata_props)
    assert right(MODEL, "float32", capsys) - right(output, "uint8", capsys) <= 2
    session = adder_onnx.InferenceSession(output)
    assert any(type(step).__name__ == "ChainStep" for step in session.plan.steps)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bits", "9"], "bits is 9; expected 2 to 8"),
        (["--bits", "1"], "bits is 1; expected 2 to 8"),
        (["--levels", "1"], "levels is 1; expected 2 to 16"),
        (["--levels", "17"], "levels is 17; expected 2 to 16"),
        (["--levels", "9", "--bits", "3"], "levels is 9, of which 3 bits have 8"),
        (["--levels", "8", "--bits", "auto"], "--levels is of one width: give --bits a number"),
        (["--levels", "8", "--calibration", "mse"], "levels need calibration output, not mse"),
        (["--levels", "eight"], "invalid int value: 'eight'"),
        (["--samples", "0"], "0 is not at least 1"),
        (["--skip", "360"], "leaves none"),
        (["--percentile", "101"], "101 is not a number from"),
        (["--exclude", "nowhere"], "--exclude nowhere: the model has no such adder node"),
        (["--calibration", "best"], "invalid choice: 'best'"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_bad_options(
    tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.onnx"
    assert main(MODEL, output, "--data", DATA, *options) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err
    assert not output.exists()


MAPS = ("layer3.0.relu_1_output", "layer2.0.relu_1_output")


def without_classes(path: Path, last: onnx.NodeProto | None = None, elem_type: int = 1) -> Path:
    """The digits network without its head: its outputs are maps, or what a last node makes."""
    model = onnx.load(MODEL)
    known = {value.name: value for value in model.graph.value_info}
    del model.graph.output[:]
    model.graph.output.extend(known[name] for name in MAPS)
    if last is not None:
        model.graph.node.append(last)
        output = helper.make_tensor_value_info(last.output[0], elem_type, ["r", "k"])
        if last.op_type == "SequenceConstruct":
            output = helper.make_tensor_sequence_value_info(last.output[0], elem_type, None)
        model.graph.output.insert(0, output)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    "last",
    [None, node("SequenceConstruct", MAPS, "both")],
    ids=["maps", "a sequence before them"],
)
def test_a_network_that_is_no_classifier(
    tmp_path: Path, last: onnx.NodeProto | None, capsys: pytest.CaptureFixture[str]
) -> None:
    model, output = without_classes(tmp_path / "maps.onnx", last), tmp_path / "int8.onnx"
    arguments = (model, output, "--data", DATA, "--samples", 40, "--sensitivity", "--json", "-")
    assert main(*arguments) == 0
    out, err = capsys.readouterr()
    summary = json.loads(out)
    assert err == ""
    assert len(summary["nodes"]) == len(summary["sensitivity"]) == 8
    assert all(entry["snr_db"] > 15 for entry in summary["sensitivity"])
    pixels = np.random.default_rng(0).uniform(0, 1, (4, 1, 8, 8)).astype(np.float32)
    plain, quantized = (
        adder_onnx.InferenceSession(path).run(MAPS, {"input": pixels}) for path in (model, output)
    )
    for exact, ours in zip(plain, quantized, strict=True):
        assert ours.shape == exact.shape
        assert np.square(ours - exact).sum() < 0.05 * np.square(exact).sum()


def test_outputs_that_tell_no_sensitivity(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """None is a float, or what is found depends on the values."""
    path, output = tmp_path / "maps.onnx", tmp_path / "int8.onnx"
    model = onnx.load(without_classes(path, node("NonZero", MAPS[:1], "found"), TensorProto.INT64))
    del model.graph.output[1:]
    onnx.save(model, path)
    arguments = (path, output, "--data", DATA, "--samples", 20)
    assert main(*arguments) == 0
    capsys.readouterr()
    assert main(*arguments, "--sensitivity") == 2
    assert "no float output that a node's sensitivity could be seen in" in capsys.readouterr().err

    model.graph.node.append(node("Cast", ["found"], "places", to=TensorProto.FLOAT))
    model.graph.output[0].name = "places"
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    onnx.save(model, path)
    assert main(*arguments, "--sensitivity") == 2
    err = capsys.readouterr().err
    assert "the model's output places has shape [4, " in err
    assert "its sensitivity cannot be told" in err


def convolutional(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with convolutions."""
    for operator in model.graph.node:
        if operator.op_type == "AdderConv":
            operator.op_type, operator.domain = "Conv", ""
    return model


def test_bad_models_and_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out.onnx"
    done = tmp_path / "done.onnx"
    assert main(MODEL, done, "--data", DATA, "--samples", 4) == 0
    capsys.readouterr()

    def fails(model: Path, data: Path, message: str, to: Path = output) -> None:
        assert main(model, to, "--data", data, "--samples", 4) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert message in err
        assert not output.exists()

    fails(done, DATA, "quantized already")
    plain = onnx.load(MODEL)
    without = tmp_path / "without.onnx"
    onnx.save(convolutional(plain), without)
    fails(without, DATA, "no AdderConv node that could be quantized")
    fails(done, DATA, "would replace the float model", to=done)
    shape = (4, 1, 8, 8)
    for name, array, message in (
        ("nan", np.full(shape, np.nan, np.float32), "not finite"),
        ("infinite", np.full(shape, np.inf, np.float32), "not finite"),
        ("equal", np.full(shape, 0.5, np.float32), "are all equal"),
        ("shape", np.zeros((4, 3, 8, 8), np.float32), "shape"),
    ):
        np.savez(tmp_path / f"{name}.npz", input=array)
        fails(MODEL, tmp_path / f"{name}.npz", message)


def with_float16_border(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model as converters make it that leave its inside in float32."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    cast = helper.make_node("Cast", [graph.input[0].name], ["as_float32"], to=TensorProto.FLOAT)
    for user in graph.node:
        user.input[:] = ["as_float32" if n == graph.input[0].name else n for n in user.input]
    graph.node.insert(0, cast)
    return copy


def test_images_for_a_model_that_takes_float16(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, output = tmp_path / "half.onnx", tmp_path / "int8.onnx"
    onnx.save(with_float16_border(onnx.load(MODEL)), model)
    assert main(model, output, "--data", DATA, "--samples", 32) == 0, capsys.readouterr().err
    capsys.readouterr()
    assert right(model, "float32", capsys) - right(output, "uint8", capsys) <= 2
