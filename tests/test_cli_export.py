"""``adder-export``: what it writes and prints, and what it says of input that is wrong."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from adder_onnx import InferenceSession
from adder_onnx.cli.export import main
from adder_onnx.export import api
from adder_onnx.export.resnet import ResNet, ResNetConfig
from adder_onnx.metadata import CIFAR10, CIFAR10_LABELS, IMAGENET, ModelMetadata, Preprocessing
from tests.models import make_model, node
from tests.test_export_resnet import random_resnet

COLOR = ResNetConfig("cifar", "basic", (1, 1), (4, 8), 10)
GREY = ResNetConfig("cifar", "basic", (1,), (4,), 3, in_channels=1)
LARGE = ResNetConfig("imagenet", "basic", (1, 1), (4, 4), 5)
OTHER = ResNetConfig("cifar", "basic", (1,), (4,), 4)

GREY_OPTIONS = ["--input-shape", "1,8,6", "--mean", "0.3", "--std", "0.38"]


@pytest.fixture(scope="module")
def networks() -> dict[str, ResNet]:
    configs = {"color": COLOR, "grey": GREY, "large": LARGE, "other": OTHER}
    return {name: random_resnet(config) for name, config in configs.items()}


@pytest.fixture
def folder(tmp_path: Path, networks: dict[str, ResNet]) -> Path:
    """A folder with a checkpoint of each network."""
    for name, network in networks.items():
        torch.save(network.state_dict(), tmp_path / f"{name}.pth")
    return tmp_path


@pytest.fixture
def no_torch_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes a model of the shape and metadata given that does nothing, where that is enough."""

    def export_model(
        model: nn.Module,
        input_shape: tuple[int, ...],
        *,
        opset: int,
        metadata: dict[str, str],
        batch_size: int | None,
    ) -> onnx.ModelProto:
        shape: list[int | str | None] = ["batch", *input_shape]
        identity = node("Identity", ["input"], "logits")
        proto = make_model([identity], {"input": shape}, {"logits": shape}, opset=opset)
        onnx.helper.set_model_props(proto, metadata)
        return proto

    monkeypatch.setattr(api, "export_model", export_model)


def contents(folder: Path) -> dict[str, bytes]:
    """All files, hidden ones as well."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if not p.is_dir()}


def metadata_of(path: Path) -> ModelMetadata:
    return ModelMetadata.from_props({e.key: e.value for e in onnx.load(path).metadata_props})


def test_checkpoint_becomes_a_file_that_equals_the_network(
    folder: Path, networks: dict[str, ResNet], capfd: pytest.CaptureFixture[str]
) -> None:
    before = contents(folder)
    checkpoint, output, report = folder / "color.pth", folder / "net.onnx", folder / "net.json"
    arguments = [str(checkpoint), str(output), "--arch", "resnet-cifar-basic-1-1"]
    assert main([*arguments, "--json", str(report)]) == 0

    after = contents(folder)
    assert after.keys() - before.keys() == {"net.onnx", "net.json"}
    assert before.items() <= after.items()

    images = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
    with torch.no_grad():
        expected = networks["color"](torch.from_numpy(images)).numpy()
    logits = InferenceSession(output).run(["logits"], {"input": images})[0]
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())

    metadata = metadata_of(output)
    assert metadata == ModelMetadata(
        architecture="resnet-cifar-basic-1-1",
        preprocessing=CIFAR10,
        labels=CIFAR10_LABELS,
        checkpoint_sha256=hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
    )

    proto = onnx.load(output)
    result = json.loads(report.read_text())
    verification = result.pop("verification")
    assert result == {
        "checkpoint": str(checkpoint),
        "key": "",
        "output": str(output),
        "bytes": output.stat().st_size,
        "external_data": None,
        "opset": 18,
        "batch_size": None,
        "adder_nodes": 5,
        "nodes": len(proto.graph.node),
        "outputs": ["logits"],
        "metadata": metadata.to_props(),
        "why_not_verified": None,
        "conversion": None,
    }
    assert verification["outputs"].keys() == {"logits"}
    assert verification["reference"] == "float64"
    assert verification["errors"].keys() == {"adder-onnx", "onnxruntime"}
    bound = 1e-4 * verification["largest_logit"]
    assert bound > 0
    assert all(0 < error < bound for error in verification["errors"].values())
    assert 0 < verification["pytorch_float32_error"] < bound

    printed = capfd.readouterr()
    assert printed.err == ""
    first, second, *errors = printed.out.splitlines()
    assert first == (
        f"{output}: resnet-cifar-basic-1-1, 5 AdderConv nodes of {len(proto.graph.node)}, "
        f"{output.stat().st_size / 1e6:.2f} MB, opset 18"
    )
    assert second.startswith("largest difference from PyTorch in float64")
    assert [re.split(r"  +", line.strip())[0] for line in errors] == [
        "adder-onnx",
        "onnxruntime",
        "PyTorch in float32",
    ]


def test_result_as_json_on_standard_output(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    labels = folder / "labels.txt"
    labels.write_text("null\n\n  eins \nzwölf\n", encoding="utf-8")
    output = folder / "net.onnx"
    output.write_bytes(b"the file of before")
    arguments = [str(folder / "grey.pth"), str(output), *GREY_OPTIONS, "--labels", str(labels)]
    assert main([*arguments, "--opset", "21", "--json", "-"]) == 0
    printed = capfd.readouterr()
    assert printed.err == ""
    result = json.loads(printed.out)
    assert result["opset"] == 21
    assert {o.domain: o.version for o in onnx.load(output).opset_import}[""] == 21
    metadata = metadata_of(output)
    assert metadata.labels == ("null", "eins", "zwölf")
    assert metadata.preprocessing == Preprocessing(1, 8, 6, (0.3,), (0.38,))
    assert result["metadata"] == metadata.to_props()
    assert InferenceSession(output).get_inputs()[0].shape == ["batch", 1, 8, 6]


def assert_refused(folder: Path, capfd: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """Runs the command, which must change nothing; returns its one line on standard error."""
    before = contents(folder)
    assert main(arguments) == 2
    assert contents(folder) == before
    printed = capfd.readouterr()
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert len(lines) == 1, printed.err
    assert lines[0].startswith("adder-export: error: ")
    return lines[0]


def test_file_that_differs_from_pytorch_is_not_written(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = folder / "net.onnx"
    output.write_bytes(b"the file of before")
    arguments = [str(folder / "grey.pth"), str(output), *GREY_OPTIONS]
    line = assert_refused(
        folder, capfd, [*arguments, "--rtol", "0", "--json", str(folder / "net.json")]
    )
    assert re.search(r"differs from PyTorch by \S+, more than --rtol 0 .*nothing was written", line)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("color", [], CIFAR10),
        ("color", ["--dataset", "cifar10"], CIFAR10),
        ("color", ["--dataset", "imagenet"], IMAGENET),
        ("large", [], IMAGENET),
        ("large", ["--dataset", "cifar10"], CIFAR10),
        ("color", ["--input-shape", "3,16,24"], replace(CIFAR10, height=16, width=24)),
        ("color", ["--mean", "0,0.5,1"], replace(CIFAR10, mean=(0.0, 0.5, 1.0))),
        ("color", ["--std", "1,2,.5"], replace(CIFAR10, std=(1.0, 2.0, 0.5))),
        ("color", ["--resize", "40", "--crop"], replace(CIFAR10, resize=40, crop=True)),
        ("large", ["--resize", "300"], replace(IMAGENET, resize=300)),
        ("grey", GREY_OPTIONS, Preprocessing(1, 8, 6, (0.3,), (0.38,))),
        ("grey", [*GREY_OPTIONS, "--crop"], Preprocessing(1, 8, 6, (0.3,), (0.38,), None, True)),
        (
            "grey",
            [*GREY_OPTIONS, "--dataset", "imagenet"],
            Preprocessing(1, 8, 6, (0.3,), (0.38,), 256, True),
        ),
    ],
)
@pytest.mark.usefixtures("no_torch_export")
def test_preprocessing(
    folder: Path, name: str, options: list[str], expected: Preprocessing
) -> None:
    output = folder / "net.onnx"
    arguments = [str(folder / f"{name}.pth"), str(output), "--no-verify", *options]
    assert main(arguments) == 0
    assert metadata_of(output).preprocessing == expected
    shape = [d.dim_value for d in onnx.load(output).graph.input[0].type.tensor_type.shape.dim]
    assert shape[1:] == [expected.channels, expected.height, expected.width]


@pytest.mark.parametrize(
    ("name", "options", "labels"),
    [
        ("color", [], CIFAR10_LABELS),
        ("color", ["--dataset", "imagenet"], None),
        ("large", ["--dataset", "cifar10"], None),  # of 5 classes
        ("grey", GREY_OPTIONS, None),
    ],
)
@pytest.mark.usefixtures("no_torch_export")
def test_labels_are_known_of_cifar10_only(
    folder: Path, name: str, options: list[str], labels: tuple[str, ...] | None
) -> None:
    output = folder / "net.onnx"
    assert main([str(folder / f"{name}.pth"), str(output), "--no-verify", *options]) == 0
    assert metadata_of(output).labels == labels


@pytest.mark.usefixtures("no_torch_export")
def test_labels_given_replace_known_ones(folder: Path) -> None:
    labels = folder / "labels.txt"
    labels.write_text("\n".join("abcdefghij"))
    output = folder / "net.onnx"
    arguments = [str(folder / "color.pth"), str(output), "--no-verify", "--labels", str(labels)]
    assert main(arguments) == 0
    assert metadata_of(output).labels == tuple("abcdefghij")


@pytest.mark.usefixtures("no_torch_export")
def test_no_verify(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The stand-in for the exporter computes something else, which nobody looks at."""
    output, report = folder / "net.onnx", folder / "net.json"
    arguments = [str(folder / "color.pth"), str(output), "--json", str(report)]
    assert main([*arguments, "--no-verify"]) == 0
    assert output.exists()
    assert json.loads(report.read_text())["verification"] is None
    assert capfd.readouterr().out.endswith("not compared with PyTorch (--no-verify)\n")
    output.unlink()
    assert main(arguments) == 2
    assert not output.exists()


def without(state: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name != key}


class Opener:
    """Opens a file for writing when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("executed", "w"))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (None, ["No such file"]),
        (lambda state: [state], ["holds no network but a list"]),
        (lambda state: {**state, "epoch": 3}, ["holds no network"]),
        (lambda state: {**state, "extra": Opener()}, ["holds no network"]),
        (lambda state: {"0.weight": torch.zeros(1)}, ["unknown architecture"]),
        (lambda state: without(state, "layer2.0.bn2.bias"), ["layer2.0.bn2.bias", "missing"]),
        (lambda state: without(state, "layer2.0.conv1.adder"), ["layer2.0.conv1.adder", "missing"]),
        (lambda state: {**state, "bn1.bias": torch.zeros(3)}, ["bn1.bias", "(3,)", "(4,)"]),
        (lambda state: {**state, "fc.weight": torch.zeros(3, 3)}, ["fc.weight", "(3, 3)"]),
        (lambda state: {**state, "extra": torch.zeros(3)}, ["extra", "not known"]),
    ],
    ids=[
        "no file",
        "list",
        "number",
        "code",
        "unknown",
        "missing",
        "missing layer",
        "misshapen",
        "two dimensions",
        "unexpected",
    ],
)
def test_bad_checkpoint(
    folder: Path,
    networks: dict[str, ResNet],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[dict[str, Any]], Any] | None,
    words: list[str],
) -> None:
    monkeypatch.chdir(folder)
    checkpoint = folder / "bad.pth"
    if spoil is not None:
        torch.save(spoil(networks["color"].state_dict()), checkpoint)
    line = assert_refused(folder, capfd, [str(checkpoint), str(folder / "net.onnx")])
    assert all(word in line for word in words), line


@pytest.mark.parametrize("kind", ["empty", "text", "truncated", "folder"])
def test_file_that_is_no_checkpoint(
    folder: Path, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    checkpoint = folder / "bad.pth"
    whole = (folder / "color.pth").read_bytes()
    if kind == "folder":
        checkpoint.mkdir()
    else:
        parts = {"empty": b"", "text": b"weights\n", "truncated": whole[: len(whole) // 2]}
        checkpoint.write_bytes(parts[kind])
    line = assert_refused(folder, capfd, [str(checkpoint), str(folder / "net.onnx")])
    assert str(checkpoint) in line
    assert ("Is a directory" if kind == "folder" else "not a PyTorch checkpoint") in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--arch", "resnet20"], ["resnet-cifar-basic-1-1", "not a resnet20"]),
        (["--arch", "vgg16"], ["unknown architecture 'vgg16'", "resnet18"]),
        (["--opset", "17"], ["opset 17", "18 to 23"]),
        (["--opset", "99"], ["opset 99", "18 to 23"]),
        (["--input-shape", "3,32"], ["--input-shape has 2 numbers", "3"]),
        (["--input-shape", "3,32,32,1"], ["--input-shape has 4 numbers"]),
        (["--input-shape", "3,0,32"], ["from 1 pixel to"]),
        (["--input-shape", "3,32,-1"], ["from 1 pixel to"]),
        (["--input-shape", "3,1000000000,1000000000"], ["from 1 pixel to 1000000"]),
        (["--input-shape", "1,32,32"], ["3 means", "1 channels"]),
        (["--input-shape", "1,32,32", "--mean", "0", "--std", "1"], ["3 channels", "gives 1"]),
        (["--mean", "0.5"], ["1 means", "3 channels"]),
        (["--std", "1,1,0"], ["positive"]),
        (["--std", "1,nan,1"], ["nan"]),
        (["--mean", "0,0,inf"], ["inf"]),
        (["--labels", "{folder}/none.txt"], ["{folder}/none.txt", "No such file"]),
        (["--labels", "{folder}/nine.txt"], ["{folder}/nine.txt has 9 labels", "10 classes"]),
        (["--labels", "{folder}/color.pth"], ["{folder}/color.pth", "not a text file"]),
        (["--json", "{folder}/none/net.json"], ["net.json", "no folder {folder}/none"]),
        (["--json", "{folder}"], ["{folder}", "it is a folder"]),
    ],
)
def test_bad_option(
    folder: Path, capfd: pytest.CaptureFixture[str], options: list[str], words: list[str]
) -> None:
    (folder / "nine.txt").write_text("\n".join("abcdefghi"))
    arguments = [str(folder / "color.pth"), str(folder / "net.onnx")]
    arguments += [option.format(folder=folder) for option in options]
    line = assert_refused(folder, capfd, arguments)
    assert all(word.format(folder=folder) in line for word in words), line


@pytest.mark.parametrize(
    ("name", "of"),
    [("grey", "1 input channels and 3 classes"), ("other", "3 input channels and 4 classes")],
)
@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ([], "give --input-shape, --mean, --std, or --dataset"),
        (["--input-shape", "1,8,8", "--std", "1"], "give --mean, or --dataset"),
        (["--mean", "0", "--std", "1"], "give --input-shape, or --dataset"),
    ],
)
def test_options_are_named_that_tell_the_data(
    folder: Path,
    capfd: pytest.CaptureFixture[str],
    options: list[str],
    missing: str,
    name: str,
    of: str,
) -> None:
    arguments = [str(folder / f"{name}.pth"), str(folder / "net.onnx"), *options]
    line = assert_refused(folder, capfd, arguments)
    assert of in line
    assert line.endswith(missing)


def test_data_set_that_does_not_fit(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = [str(folder / "grey.pth"), str(folder / "net.onnx"), "--dataset", "cifar10"]
    line = assert_refused(folder, capfd, arguments)
    assert "takes 1 channels, the preprocessing gives 3" in line


@pytest.mark.parametrize(
    ("checkpoint", "output", "words"),
    [
        # Found before the checkpoint is looked at.
        ("none.pth", "none/net.onnx", "no folder {folder}/none"),
        ("none.pth", ".", "it is a folder"),
        ("none.pth", "color.pth/net.onnx", "no folder {folder}/color.pth"),
        ("color.pth", "color.pth", "would replace the checkpoint"),
        ("color.pth", "../{folder.name}/color.pth", "would replace the checkpoint"),
    ],
)
def test_bad_output(
    folder: Path, capfd: pytest.CaptureFixture[str], checkpoint: str, output: str, words: str
) -> None:
    arguments = [str(folder / checkpoint), str(folder / output.format(folder=folder))]
    assert words.format(folder=folder) in assert_refused(folder, capfd, arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "CHECKPOINT, OUTPUT.onnx"),
        (["color.pth"], "OUTPUT.onnx"),
        (["color.pth", "net.onnx", "--input-shape", "3,a,32"], "--input-shape: '3,a,32'"),
        (["color.pth", "net.onnx", "--mean", "1,,1"], "--mean: '1,,1'"),
        (["color.pth", "net.onnx", "--resize", "0"], "--resize: 0 is not at least 1"),
        (["color.pth", "net.onnx", "--opset", "x"], "--opset"),
        (["color.pth", "net.onnx", "--dataset", "mnist"], "--dataset"),
        (["color.pth", "net.onnx", "--colour"], "--colour"),
    ],
)
def test_arguments_that_cannot_be_parsed(
    folder: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(folder)
    before = contents(folder)
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert contents(folder) == before
    printed = capfd.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("adder-export: error: ")
    assert words in line


def test_help_has_examples(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    printed = capfd.readouterr()
    assert printed.err == ""
    _, examples = printed.out.split("examples:\n")
    lines = examples.strip().splitlines()
    assert len(lines) >= 3
    assert all(line.strip().startswith("adder-export ") for line in lines)
    for option in ("--arch", "--dataset", "--input-shape", "--labels", "--rtol", "--json"):
        assert option in printed.out


def test_installed_command_refuses_in_one_line(folder: Path) -> None:
    before = contents(folder)
    done = subprocess.run(
        [str(Path(sys.executable).parent / "adder-export"), "none.pth", "net.onnx"],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "adder-export: error: cannot read none.pth: No such file or directory\n"
    assert contents(folder) == before


@pytest.mark.slow
def test_command_as_a_module_says_nothing_on_standard_error(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "adder_onnx.cli.export", "grey.pth", "net.onnx", *GREY_OPTIONS],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("net.onnx: resnet-cifar-basic-1, 2 AdderConv nodes of ")
    assert metadata_of(folder / "net.onnx").architecture == "resnet-cifar-basic-1"
