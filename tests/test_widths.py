"""Widths that differ from node to node."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest

from adder_onnx.errors import AdderError
from adder_onnx.quantization import quantize
from adder_onnx.quantization.widths import orders_of_widths, quantize_within
from tests.test_cli_quantize import DATA, MODEL, main
from tests.test_reconstruction import deep_network, feeds_of, output_snr

NOISE = {"a": 1.0, "b": 0.2, "c": 0.01}


def test_bits_go_where_noise_falls_most() -> None:
    """For each number of bits no other widths have less noise."""
    orders = orders_of_widths(NOISE, {name: f"x{name}" for name in NOISE})

    def noise(widths: dict[str, int]) -> float:
        return sum(NOISE[name] * 4.0**-bits for name, bits in widths.items())

    every = [dict(zip(NOISE, w, strict=True)) for w in itertools.product(range(2, 9), repeat=3)]
    assert [sum(order.values()) for order in orders] == list(range(6, 25))
    for order in orders:
        assert all(2 <= bits <= 8 for bits in order.values())
        same = [widths for widths in every if sum(widths.values()) == sum(order.values())]
        assert noise(order) == pytest.approx(min(map(noise, same)))


def test_nodes_that_take_the_same_value_have_one_width() -> None:
    orders = orders_of_widths({**NOISE, "d": 0.3}, {"a": "x", "b": "y", "c": "x", "d": "z"})
    assert all(order["a"] == order["c"] for order in orders)
    assert [sum(order.values()) for order in orders][:2] == [8, 10]  # "x", for both of its nodes
    assert orders[-1] == dict.fromkeys("abcd", 8)
    # A bit for both of two nodes is two bits: one for a third lowers more for each.
    orders = orders_of_widths({"a": 0.25, "b": 0.3, "c": 0.25}, {"a": "x", "b": "y", "c": "x"})
    assert orders[1] == {"a": 2, "b": 3, "c": 2}


def test_the_fewest_bits_within_a_bound() -> None:
    """The loss being the noise at the output, which falls with every bit."""
    model = deep_network()
    tried: list[onnx.ModelProto] = []

    def loss(quantized: onnx.ModelProto) -> float:
        tried.append(quantized)
        return -output_snr(model, quantized)

    bound = -output_snr(model, quantize(model, feeds_of(1), bits=4).model)
    seen: list[tuple[int, int]] = []
    within = quantize_within(
        model, lambda: feeds_of(1), loss, bound, progress=lambda *done: seen.append(done)
    )
    assert within.loss <= bound
    assert within.quantized.model in tried
    bits = {n.name: n.bits for n in within.quantized.nodes}
    mean = sum(bits.values()) / len(bits)
    assert len(within.tried) == len(tried) == len(seen) - 1
    # What was tried with fewer bits lost more.
    assert all(lost > bound for width, lost in within.tried if width < mean)
    assert (mean, within.loss) in within.tried
    assert 2 < mean < 4.5
    assert len(set(bits.values())) > 1
    with pytest.raises(AdderError, match=r"8 bits for all nodes lose .*, more than -99"):
        quantize_within(model, lambda: feeds_of(1), loss, -99.0)


def test_excluded_nodes_have_no_width() -> None:
    model = deep_network(2)
    first = next(n.name for n in model.graph.node if n.op_type == "AdderConv")
    within = quantize_within(
        model, lambda: feeds_of(1, 1), lambda m: -output_snr(model, m), 0.0, exclude=[first]
    )
    assert within.quantized.left == (first,)
    assert first not in {n.name for n in within.quantized.nodes}


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "auto.onnx"
    arguments = [MODEL, output, "--data", DATA, "--samples", 64, "--bits", "auto", "--json", "-"]
    assert main(*arguments, "--max-loss", 1) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["loss"] == {"percent": pytest.approx(found["loss"]["percent"]), "images": 296,
                             "labelled": True}  # fmt: skip
    assert found["loss"]["percent"] <= found["max_loss"] == 1
    attributes = {
        n.name: {a.name: a.i for a in n.attribute}
        for n in onnx.load(output).graph.node
        if n.op_type == "QLinearAdderConv"
    }
    bits = {n["name"]: n["bits"] for n in found["nodes"]}
    assert 2 <= min(bits.values()) <= max(bits.values()) < 6
    assert attributes["layer1.0.conv1"]["bits"] == bits["layer1.0.conv2"]
    assert attributes["layer3.0.conv2"]["bits"] == 8


def test_a_set_of_its_own_to_validate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without labels answers that change are counted."""
    images = sorted(DATA.glob("*/*.png"))[::9]
    folder = tmp_path / "unlabelled"
    folder.mkdir()
    for i, image in enumerate(images):
        shutil.copy(image, folder / f"{i:03}.png")
    output = tmp_path / "auto.onnx"
    arguments = [MODEL, output, "--data", DATA, "--samples", 64, "--bits", "auto"]
    assert main(*arguments, "--validate", folder, "--max-loss", 5) == 0
    out = capsys.readouterr().out
    assert f"answers changed on {len(images)} images that ranges were not found on" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--samples", 400], "none is left to see what is lost: give --validate PATH"),
        (["--calibration", "mse"], "--bits auto needs --calibration output, not mse"),
        (["--sensitivity"], "--sensitivity is of one width: give --bits a number"),
        (["--max-loss", -99], "8 bits for all nodes lose"),
        (["--validate", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_done(
    options: list[Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "auto.onnx"
    arguments = [MODEL, output, "--data", DATA, "--samples", 20, "--bits", "auto"]
    assert main(*arguments, *options) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""
    assert not output.exists()


def test_the_bits_of_a_command_are_a_number_or_auto(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(MODEL, "out.onnx", "--data", DATA, "--bits", "few") == 2
    assert "argument --bits: invalid" in capsys.readouterr().err
