"""adder-inspect --diff."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from adder_onnx.cli import inspect, quantize, run
from tests.conftest import ROOT
from tests.models import make_model, network, node

DIGITS = ROOT / "examples" / "digits"
MODEL = DIGITS / "resnet8_digits.onnx"
IMAGES = DIGITS / "test"


@pytest.fixture(scope="module")
def integers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("digits") / "digits8.onnx"
    options = ["--data", str(IMAGES), "--samples", "32", "--calibration", "minmax"]
    assert quantize.main([str(MODEL), str(output), *options, "--json", str(output) + ".json"]) == 0
    return output


def inspected(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    capsys.readouterr()
    try:
        status = inspect.main([str(argument) for argument in arguments])
    except SystemExit as error:
        status = int(error.code or 0)
    return (status, *capsys.readouterr())


def test_two_equal_files(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = inspected(capsys, MODEL, "--diff", MODEL)
    assert (status, err) == (0, "")
    assert "no difference: 30 nodes matched" in out
    for title in ("Nodes that differ", "Only in", "Values", "The models"):
        assert title not in out
    status, out, err = inspected(capsys, MODEL, "--diff", MODEL, "--data", IMAGES, "--limit", "3")
    assert (status, err) == (0, "")
    assert "all values are identical" in out


def test_float_and_8_bits(capsys: pytest.CaptureFixture[str], integers: Path) -> None:
    arguments = [MODEL, "--diff", integers, "--data", IMAGES, "--device", "cpu"]
    status, out, err = inspected(capsys, *arguments, "--threshold", "1000")
    assert (status, err) == (0, "")
    for text in (
        "fused into layer1.0.conv1",
        "QLinearAdderConv",
        "bytes of the file",
        "compared on 32 images, image folder, 10 classes, preprocessed as A says, on cpu",
        "the first value that differs is layer1.0.relu_output",
        "the first below 1000 dB is layer1.0.relu_output",
        "the largest drop is that of",
    ):
        assert text in out


def test_json(capsys: pytest.CaptureFixture[str], integers: Path, tmp_path: Path) -> None:
    arguments = [MODEL, "--diff", integers, "--data", IMAGES, "--limit", "20", "--device", "cpu"]
    status, out, err = inspected(capsys, *arguments, "--json", "-")
    assert (status, err) == (0, "")
    found = json.loads(out, parse_constant=pytest.fail)
    assert (found["schema"], found["report"], found["equal"]) == (1, "difference", False)
    assert (found["a"], found["b"]) == (str(MODEL), str(integers))
    assert found["matched"] == 13
    assert found["data"]["images"] == 20
    assert found["data"]["preprocessing"]["of"] == "A"
    assert found["data"]["preprocessing"]["mean"] == [0.3054]
    assert found["cost"]["a"]["taps"] == found["cost"]["b"]["taps"] == 753664
    assert found["cost"]["a"]["file_bytes"] == MODEL.stat().st_size
    assert found["cost"]["b"]["operators"]["ai.addernet.QLinearAdderConv"] == 8
    values = found["values"]
    assert [v["a"] for v in values["values"]][-1] == "logits"
    assert values["values"][0]["identical"]
    assert values["values"][0]["snr_db"] is None
    assert values["largest_drop"]["drop_db"] == max(v["drop_db"] or 0 for v in values["values"])
    (output,) = values["outputs"]
    assert output["a"] == "logits"

    # The answers are those that adder-run writes for the same images.
    answers = []
    for model in (MODEL, integers):
        csv = tmp_path / "answers.csv"
        options = ["--data", str(IMAGES), "--limit", "20", "--topk", "1", "--output", str(csv)]
        assert run.main([str(model), *options]) == 0
        answers.append(csv.read_text())
    same = [
        a == b for a, b in zip(*(map(_class, t.splitlines()[1:]) for t in answers), strict=True)
    ]
    assert output["same_answers"] == pytest.approx(np.mean(same))
    assert len(same) == 20


def _class(line: str) -> str:
    """Of a line of adder-run's table: without the score, which rounding changes."""
    return ",".join(part for part in line.split(",") if "." not in part or "/" in part)


def test_answers_that_differ(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """B always says the last class."""
    model = onnx.load(MODEL)
    bias = next(t for t in model.graph.initializer if t.name == "fc.weight_bias")
    values = numpy_helper.to_array(bias).copy()
    values[9] = 1e4
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    other = tmp_path / "other.onnx"
    onnx.save(model, other)
    arguments = [MODEL, "--diff", other, "--data", IMAGES, "--limit", "1000", "--json", "-"]
    status, out, _ = inspected(capsys, *arguments)
    found = json.loads(out)
    assert (status, found["data"]["images"]) == (0, 360)
    assert run.main([str(MODEL), "--data", str(IMAGES), "--output", str(tmp_path / "a.npz")]) == 0
    logits = np.load(tmp_path / "a.npz")["logits"]
    share = float(np.mean(logits.argmax(axis=1) == 9))
    assert found["values"]["outputs"][0]["same_answers"] == pytest.approx(share)
    assert found["values"]["first_difference"]["a"] == "fc_output"
    assert found["values"]["first_below"]["a"] == "fc_output"
    (changed,) = found["changed"]
    assert (changed["a"], changed["weights"][0]["input"]) == ("fc", "B")


def test_arrays_and_fixed_batches(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Batches are whole: of 7 samples a model that takes 3 at a time gets 6."""
    nodes = [node("Relu", ["X"], "p"), node("Neg", ["p"], "Y")]
    for name, batch in (("a", 3), ("b", "N"), ("c", 4)):
        model = make_model(nodes, {"X": [batch, 1, 2, 5]}, {"Y": [batch, 1, 2, 5]})
        onnx.save(model, tmp_path / f"{name}.onnx")
    np.savez(
        tmp_path / "data.npz", X=np.random.default_rng(0).standard_normal((7, 1, 2, 5), np.float32)
    )
    a, b, c, data = (tmp_path / name for name in ("a.onnx", "b.onnx", "c.onnx", "data.npz"))
    for one, other in ((a, b), (b, a)):
        status, out, _ = inspected(capsys, one, "--diff", other, "--data", data, "--json", "-")
        found = json.loads(out)
        assert (status, found["data"]["images"]) == (0, 6)
        assert found["data"]["preprocessing"] is None
        assert [v["identical"] for v in found["values"]["values"]] == [True, True]
    status, out, err = inspected(capsys, a, "--diff", c, "--data", data)
    assert (status, out) == (2, "")
    assert "A takes batches of 3 only, and B of 4" in err


def test_preprocessing_of_b_where_a_says_none(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = onnx.load(MODEL)
    del model.metadata_props[:]
    bare = tmp_path / "bare.onnx"
    onnx.save(model, bare)
    arguments = [bare, "--diff", MODEL, "--data", IMAGES, "--limit", "2"]
    status, out, _ = inspected(capsys, *arguments)
    assert status == 0
    assert "preprocessed as B says" in out
    assert "ai.addernet.preprocessing" in out
    status, _, err = inspected(capsys, bare, "--diff", bare, "--data", IMAGES)
    assert status == 2
    assert "does not say how images are preprocessed" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--profile"], "--profile shows one model: leave it out, or --diff"),
        (["--trace", "t.json", "--profile"], "--profile shows one model"),
        (["--trace", "t.json"], "--trace shows one model"),
        (["--op", "Conv"], "--op shows one model"),
        (["--sort", "taps"], "--sort shows one model"),
        (
            ["--dim", "Q=1"],
            "neither model's inputs have a symbolic dimension 'Q'; theirs are N, H, W",
        ),
        (["--data", "nowhere"], "nowhere"),
        (["--threshold", "-1"], "-1 is not a number of at least 0"),
        (["--json", "nowhere/x.json"], "there is no folder"),
        (["--dim", "H=1"], "the model does not fit"),
    ],
)
def test_bad_options(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: list[str], message: str
) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(network(), path)
    if options == ["--dim", "H=1"]:
        options, path = ["--dim", "h=2"], _too_small(tmp_path)
    status, out, err = inspected(capsys, path, "--diff", path, *options)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err


def _too_small(folder: Path) -> Path:
    """A model whose height must be 3."""
    nodes = [node("Add", ["X", "c"], "Y")]
    model = make_model(nodes, {"X": ["h", 5]}, {"Y": [3, 5]}, {"c": np.zeros((3, 5), np.float32)})
    path = folder / "small.onnx"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("option", [["--data", "x"], ["--first"], ["--skip", "1"]])
def test_options_of_a_difference_alone(
    capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    status, out, err = inspected(capsys, MODEL, *option)
    assert (status, out) == (2, "")
    assert f"{option[0]} belongs to --diff B.onnx" in err


def test_files_that_are_no_models(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"no model")
    for one, other in ((MODEL, bad), (bad, MODEL), (MODEL, tmp_path / "missing.onnx")):
        status, out, err = inspected(capsys, one, "--diff", other)
        assert (status, out, err.count("\n")) == (2, "", 1)


def test_hostile_names(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Nothing moves a terminal's cursor, and no line is longer than the terminal is wide."""
    names = ["</script><script>alert(1)</script>", "n" * 10_000, "\x1b[2J\x07", "\u202egpj.exe"]
    ops = ["Relu", "Abs", "Neg", "Exp"]
    paths = []
    for k, changed in enumerate((ops, ["Relu", "Sqrt", "Neg", "Exp"])):
        values = ["X", *(f"{name}{k}" for name in names[:-1]), "Y"]
        nodes = [
            onnx.helper.make_node(op, [values[i]], [values[i + 1]], names[i])
            for i, op in enumerate(changed)
        ]
        model = make_model(nodes, {"X": ["N", 1, 2, 2]}, {"Y": ["N", 1, 2, 2]})
        entry = model.metadata_props.add()
        entry.key, entry.value = names[k + 2], names[k + 1]
        paths.append(tmp_path / f"{k}.onnx")
        onnx.save(model, paths[-1])
    np.savez(tmp_path / "data.npz", X=np.random.default_rng(0).random((3, 1, 2, 2), np.float32))
    status, out, err = inspected(
        capsys, paths[0], "--diff", paths[1], "--data", tmp_path / "data.npz"
    )
    assert (status, err) == (0, "")
    assert not set(out) & {"\x1b", "\x07", "\u202e"}
    assert max(map(len, out.splitlines())) <= 400


@pytest.mark.slow
def test_the_real_network(
    resnet20: Path, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All that is fused is told, and all but a few answers stay."""
    integers = tmp_path / "int8.onnx"
    data = ["--data", str(shared / "cifar10")]
    options = [*data, "--samples", "32", "--calibration", "minmax"]
    assert quantize.main([str(resnet20), str(integers), *options]) == 0
    arguments = [resnet20, "--diff", integers, *data, "--limit", "16", "--json", "-"]
    status, out, _ = inspected(capsys, *arguments)
    found = json.loads(out)
    assert status == 0
    # 20 batch normalisations, 9 additions, and all activations but that of the stem.
    assert [node["fused_into"] is not None for node in found["only_a"]] == [True] * 47
    assert len([v for v in found["values"]["values"] if v["b"].endswith("_quantized")]) >= 19
    assert found["values"]["outputs"][0]["same_answers"] > 0.8
