"""``adder-run --engine ray`` on actors: what the local command says, whatever dies meanwhile.

Commands run in the process of the tests, on the Ray that is there: their own would take seconds.
"""

from __future__ import annotations

import csv
import io
import json
import pickle
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from adder_onnx.cli import _run_on_ray
from adder_onnx.cli.run import main
from adder_onnx.errors import AdderError, DataError
from adder_onnx.evaluation.outputs import Classified
from adder_onnx.metadata import CIFAR10_LABELS
from tests.conftest import ROOT

pytest.importorskip("ray", reason="needs adder-onnx[ray]")
pytest.importorskip("pyarrow", reason="needs adder-onnx[ray]")

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from adder_onnx.ray.evaluation import cluster, data, run
from adder_onnx.ray.evaluation.cluster import Pool, plan_pool
from adder_onnx.ray.evaluation.data import Asked, Data, open_data
from adder_onnx.ray.evaluation.evaluation import Evaluated, evaluate_pieces
from adder_onnx.ray.evaluation.output import MANIFEST
from adder_onnx.ray.evaluation.pieces import FilesPiece, Piece
from adder_onnx.ray.evaluation.results import PieceResult
from adder_onnx.ray.evaluation.worker import MOST_ATTEMPTS, Answering, PieceRunner, Work
from tests.ray_pieces import Deadly, Raising
from tests.rays import wait_for_cpus

pytestmark = pytest.mark.usefixtures("ray_here")

DIGITS = ROOT / "examples" / "digits"
MODEL = DIGITS / "resnet8_digits.onnx"
FILES = sorted((DIGITS / "test").glob("*/*.png"))
DIGIT_NAMES = [str(i) for i in range(10)]
COLUMNS = {"image": None, "label": None, "name": None}
TWO = ("--actors", "2", "--cpus-per-actor", "1")


@pytest.fixture(autouse=True)
def ray_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands take the Ray that is there, with all that it has."""
    wait_for_cpus()
    monkeypatch.setattr(cluster, "connected", lambda *_, **__: redirect_stdout(sys.stderr))


def command(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def on_ray(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    """What a run says as JSON, of which standard output holds nothing else."""
    status = command(*arguments, "--engine", "ray", "--json", "-")
    out, err = capsys.readouterr()
    assert status == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def locally(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert command(*arguments, "--device", "cpu", "--json", "-") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that says why."""
    assert command(*arguments, "--engine", "ray") == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err


def answers(folder: Path) -> list[dict[str, Any]]:
    """All rows, in the order of the manifest."""
    manifest = json.loads((folder / MANIFEST).read_text())
    tables = [pq.read_table(folder / part["name"]) for part in manifest["parts"]]
    assert [part["rows"] for part in manifest["parts"]] == [table.num_rows for table in tables]
    assert {str(table.schema.remove_metadata()) for table in tables} == {
        str(tables[0].schema.remove_metadata())
    }
    return [row for table in tables for row in table.to_pylist()]


def assert_rows_are(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Whether answers are those in a local command's .csv."""
    wanted = list(csv.DictReader(path.open()))
    assert len(rows) == len(wanted)
    for found, row in zip(rows, wanted, strict=True):
        assert (found["name"], found["label"]) == (row["name"], row.get("label"))
        assert [str(c) for c in found["classes"]] == [row[f"class{i}"] for i in range(1, 6)]
        assert [f"{p:.6g}" for p in found["probabilities"]] == [
            row[f"probability{i}"] for i in range(1, 6)
        ]


COUNTS = ("images", "skipped", "top1_correct", "top5_correct", "per_class", "confusion")


def write_parquet(
    path: Path, files: Sequence[tuple[str, bytes, int]], classes: Sequence[str]
) -> None:
    """As Hugging Face writes them, in row groups of 50."""
    table = pa.table(
        {
            "image": [{"bytes": data, "path": name} for name, data, _ in files],
            "label": [label for *_, label in files],
            "file": [name for name, *_ in files],
        }
    )
    names = {"names": list(classes)}
    metadata = json.dumps({"info": {"features": {"label": names}}})
    pq.write_table(
        table.replace_schema_metadata({"huggingface": metadata}), path, row_group_size=50
    )


def write_tars(folder: Path, files: Sequence[tuple[str, bytes, int]], count: int) -> None:
    for i in range(count):
        with tarfile.open(folder / f"{i}.tar", "w") as archive:
            for j, (_, data, label) in enumerate(files[i::count]):
                for suffix, content in (("png", data), ("cls", str(label).encode())):
                    info = tarfile.TarInfo(f"{j:04}.{suffix}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images as Parquet and as tars, and what the local command says of them."""
    folder = tmp_path_factory.mktemp("digits")
    files = [(str(file), file.read_bytes(), int(file.parent.name)) for file in FILES]
    (folder / "parquet").mkdir()
    write_parquet(folder / "parquet" / "test-0.parquet", files[:200], DIGIT_NAMES)
    write_parquet(folder / "parquet" / "test-1.parquet", files[200:], DIGIT_NAMES)
    (folder / "tars").mkdir()
    write_tars(folder / "tars", files, 3)
    for suffix in ("csv", "npz"):
        output = folder / f"local.{suffix}"
        options = ("--data", DIGITS / "test", "--device", "cpu", "--output", output)
        assert command(MODEL, *options, "--json", folder / "local.json") == 0
    return folder


def test_folders_of_images(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With several actors: the same counts, answers row for row, scores bit for bit."""
    output = tmp_path / "answers.parquet"
    options = ("--data", DIGITS / "test", "--batch-size", "16", "--logits", *TWO)
    found = on_ray(capsys, MODEL, *options, "--output", output)
    wanted = json.loads((digits / "local.json").read_text())
    assert {name: found[name] for name in COUNTS} == {name: wanted[name] for name in COUNTS}
    assert set(wanted) - set(found) == set()
    assert (found["engine"], found["pieces_repeated"], found["pieces_done_before"]) == ("ray", 0, 0)
    assert sum(actor["pieces"] for actor in found["actors"]) == found["pieces"] > 8
    assert sum(actor["images"] for actor in found["actors"]) == len(FILES)
    rows = answers(output)
    assert_rows_are(rows, digits / "local.csv")
    logits = np.array([row["logits"] for row in rows], np.float32)
    assert logits.tobytes() == np.load(digits / "local.npz")["logits"].tobytes()
    assert not (tmp_path / "answers.parquet.incomplete").exists()
    assert "something already" in refused(capsys, MODEL, *options, "--output", output)


def test_parquet_and_a_run_that_is_broken_off(
    digits: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Resumed, only the pieces that are left are run, and all is as if nothing had been."""
    output = tmp_path / "answers.parquet"
    source = ("--data", digits / "parquet", "--name-column", "file")
    options = (MODEL, *source, "--batch-size", "16", "--output", output, *TWO)

    @contextmanager
    def breaking(*_: object) -> Iterator[Callable[[int], None]]:
        def advance(images: int) -> None:
            if images:
                raise KeyboardInterrupt

        yield advance

    with monkeypatch.context() as patch:
        patch.setattr(_run_on_ray, "progress_bar", breaking)
        assert command(*options, "--engine", "ray") == 130
    capsys.readouterr()
    assert not output.exists()
    incomplete = tmp_path / "answers.parquet.incomplete"
    for path in sorted(incomplete.glob("*.parquet"))[3:]:  # where actors were faster than that
        path.unlink()
    assert any(incomplete.glob("*.parquet"))
    assert "--resume goes on with it" in refused(capsys, *options)
    message = refused(capsys, *options, "--resume", "--topk", "3")
    assert f"{incomplete} is of another run, with topk 5 instead of 3" in message
    done = {path.name: path.stat().st_mtime_ns for path in incomplete.glob("*.parquet")}
    found = on_ray(capsys, *options, "--resume")
    assert found["pieces_done_before"] == len(done) < found["pieces"]
    assert sum(actor["pieces"] for actor in found["actors"]) == found["pieces"] - len(done)
    assert {name: (output / name).stat().st_mtime_ns for name in done} == done
    wanted = json.loads((digits / "local.json").read_text())
    assert {name: found[name] for name in COUNTS} == {name: wanted[name] for name in COUNTS}
    assert_rows_are(answers(output), digits / "local.csv")
    again = on_ray(capsys, *options, "--resume")
    assert (again["pieces_done_before"], again["actors"]) == (found["pieces"], [])
    assert {name: again[name] for name in COUNTS} == {name: wanted[name] for name in COUNTS}


def test_tars_and_an_actor_that_dies(
    digits: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    opened = data.open_data

    def deadly(asked: Asked) -> Data:
        found = opened(asked)
        mark = str(tmp_path / "mark")
        return replace(
            found,
            pieces=lambda most, chosen: [
                Deadly(piece, mark) if i == 1 else piece
                for i, piece in enumerate(found.pieces(most, chosen))
            ],
        )

    monkeypatch.setattr(data, "open_data", deadly)
    found = on_ray(capsys, MODEL, "--data", digits / "tars", "--cpus-per-actor", "1")
    wanted = json.loads((digits / "local.json").read_text())
    for one in (found, wanted):
        del one["confusion"]["labels"]  # of numbers there are none
    assert {name: found[name] for name in COUNTS} == {name: wanted[name] for name in COUNTS}
    assert (tmp_path / "mark").exists()
    assert (found["pieces"], found["pieces_repeated"]) == (3, 1)


def test_an_actor_that_dies_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = run._attempts()
    for _ in range(MOST_ATTEMPTS - 1):  # each of which costs seconds
        ray.get(attempts.begin.remote(0))
    monkeypatch.setattr(run, "_attempts", lambda: attempts)
    with pytest.raises(AdderError) as error:
        evaluate([Deadly(piece(0, 20))])
    assert str(error.value) == (
        f"20 images, from {FILES[0]} ended each of 5 actors that ran them: see Ray's logs for why"
    )


# What an actor finds, in the process of the tests


CLASSIFIED = Classified("logits", 10)


def work(**changes: Any) -> Work:
    options: dict[str, Any] = {
        "classified": CLASSIFIED,
        "batch_size": 16,
        "threads": 1,
        "device": "cpu",
        "arithmetic": "fast",
        "timeout": None,
        "skip_bad": False,
        "answering": None,
    }
    return Work(**(options | changes))


def piece(start: int, count: int) -> FilesPiece:
    files = FILES[start : start + count]
    labels = tuple(int(file.parent.name) for file in files)
    return FilesPiece(tuple(map(str, files)), "", labels)


def evaluate(pieces: Sequence[Piece], **changes: Any) -> Evaluated:
    """On one actor."""
    model, pool = MODEL.read_bytes(), Pool(1, 1, 0)
    return evaluate_pieces(model, pieces, work(**changes), pool, {}, lambda _: None)


def in_actor(
    pieces: Sequence[Piece], *, model: bytes | None = None, attempt: int = 1, **changes: Any
) -> list[PieceResult]:
    """What an actor gives for pieces, of which the first has the number 3."""
    begin = SimpleNamespace(remote=lambda _: ray.put(attempt))
    runner = PieceRunner(
        ray.put(MODEL.read_bytes() if model is None else model),
        work(**changes),
        SimpleNamespace(begin=begin),
    )
    table = pa.table(
        {
            "number": range(3, 3 + len(pieces)),
            "piece": pa.array(map(pickle.dumps, pieces), pa.large_binary()),
        }
    )
    return [pickle.loads(result) for result in runner(table)["result"].to_pylist()]


def error_of(result: PieceResult) -> str:
    """The error that the command ends with."""
    with pytest.raises(AdderError) as error:
        run._checked(result)
    return f"{type(error.value).__name__}: {error.value}"


def test_what_is_known_of_a_piece() -> None:
    first, second = in_actor([piece(0, 20), piece(20, 5)], attempt=2)
    assert [(one.number, one.images, one.labelled, one.attempt) for one in (first, second)] == [
        (3, 20, 20, 2),
        (4, 5, 5, 2),
    ]
    assert first.seconds >= first.model_seconds > 0
    assert (first.answers, first.error, first.sum_to_one) == (None, None, False)


def test_a_piece_that_is_begun_too_often() -> None:
    (result,) = in_actor([piece(0, 2)], attempt=MOST_ATTEMPTS)
    assert result.error is None
    (result,) = in_actor([piece(0, 2)], attempt=MOST_ATTEMPTS + 1)
    assert "2 images, from" in error_of(result)
    assert "ended each of 5 actors" in error_of(result)


def test_an_error_that_nobody_has_thought_of() -> None:
    (result,) = in_actor([Raising(piece(0, 5))])
    node = ray.util.get_node_ip_address()
    assert error_of(result) == (
        f"AdderError: cannot run 5 images, from {FILES[0]} on the node {node}: ZeroDivisionError: "
        "nobody has thought of this (Ray's logs show where)"
    )


def test_a_piece_whose_data_are_gone(digits: Path, tmp_path: Path) -> None:
    """By an actor, whose error is the command's."""
    file = tmp_path / "x.parquet"
    file.write_bytes((digits / "parquet" / "test-1.parquet").read_bytes())
    pieces = open_data(Asked(str(file), "auto", "auto", None, COLUMNS)).pieces(50, None)
    file.unlink()
    with pytest.raises(DataError, match=f"^{file} does not exist"):
        evaluate(pieces)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": "0.0.1"}, "0.0.1 where the command runs: install the same on all nodes"),
        ({"model": b"no model"}, "ModelError: "),
        ({"model": b""}, "ModelError: "),
        ({"device": "cuda"}, "DeviceError: "),
        ({"classified": Classified("logits", 11)}, "has shape [2, 10] for 2 images; expected"),
    ],
)
def test_what_is_wrong_on_a_node(changes: dict[str, Any], message: str) -> None:
    """Only the node knows it, and so it is named."""
    if changes.get("device") == "cuda" and _has_gpu():
        pytest.skip("there is a GPU")
    (result,) = in_actor([piece(0, 2)], **changes)
    found = error_of(result)
    assert message in found
    assert found.endswith(f" (on the node {ray.util.get_node_ip_address()})")


def _has_gpu() -> bool:
    from adder_onnx.runtime import InferenceSession

    try:
        InferenceSession(MODEL, device="cuda")
    except AdderError:
        return False
    return True


def test_images_that_cannot_be_read(tmp_path: Path) -> None:
    bad = tmp_path / "bad \n.png"
    bad.write_bytes(b"no image")
    names = (str(FILES[0]), str(bad), str(tmp_path / "gone.png"), str(FILES[1]))
    broken = FilesPiece(names, "", (0, 0, 0, 0))
    (result,) = in_actor([broken])
    assert error_of(result) == f"DataError: {bad} is not an image that Pillow can read"
    (result,) = in_actor([broken], skip_bad=True)
    assert (result.images, result.skipped, result.labelled) == (2, 2, 2)
    nothing = FilesPiece(names[1:3], "", (0, 0))
    (result,) = in_actor([nothing], skip_bad=True)
    assert (result.images, result.skipped, result.error) == (0, 2, None)


def test_a_model_of_one_batch_size(tmp_path: Path) -> None:
    model = onnx.load(MODEL)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 8
    fixed = model.SerializeToString()
    (free,) = in_actor([piece(0, 21)])
    (found,) = in_actor([piece(0, 21)], model=fixed, batch_size=8)
    assert (found.images, found.counts.as_json()) == (21, free.counts.as_json())


@pytest.mark.parametrize("logits", [False, True])
def test_answers_come_back_or_are_a_file(tmp_path: Path, logits: bool) -> None:
    """The same of either, also where none of the images can be read."""
    nothing = FilesPiece((str(tmp_path / "gone.png"),), "", (0,))
    names = tuple(f"class {i}" for i in range(10))
    kept = Answering("logits", 3, logits, names, True, None)
    pieces = [piece(0, 20), nothing]
    given = in_actor(pieces, answering=kept, skip_bad=True)
    written = in_actor(pieces, answering=replace(kept, folder=str(tmp_path)), skip_bad=True)
    schemas = set()
    for one, other in zip(given, written, strict=True):
        table = pa.ipc.open_stream(one.answers).read_all()
        file = tmp_path / f"part-{other.number:06}.parquet"
        assert other.answers is None
        assert pq.read_table(file).replace_schema_metadata().equals(table)
        assert table.num_rows == one.images
        schemas.add(str(table.schema))
    assert len(schemas) == 1
    row = pa.ipc.open_stream(given[0].answers).read_all().to_pylist()[0]
    assert (row["name"], row["label"]) == (str(FILES[0]), "class 0")
    assert row["answers"] == [f"class {i}" for i in row["classes"]]
    assert ("logits" in row) == logits


# In whole commands


def test_images_without_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in FILES[::60]:
        (tmp_path / f"{file.parent.name} {file.name}").write_bytes(file.read_bytes())
    options = (MODEL, "--data", tmp_path)
    found = on_ray(capsys, *options, "--cpus-per-actor", "1")
    assert found["predictions"] == locally(capsys, *options)["predictions"]
    assert "top1" not in found
    message = refused(capsys, *options, "--per-class")
    assert f"--per-class needs labels, and {tmp_path}" in message


def test_a_node_that_is_large_enough() -> None:
    assert plan_pool(None, None, None) == Pool(1, 2, 0)
    assert plan_pool(None, 1, None) == Pool(2, 1, 0)
    assert plan_pool(3, 2, None) == Pool(3, 2, 0)
    for cpus, gpus, message in (
        (3, None, "no node has 3 CPUs for an actor; there are 2 CPUs and 0 GPUs"),
        (None, 1, "no node has 1 CPUs and 1 GPUs for an actor; there are 2 CPUs and 0 GPUs"),
    ):
        with pytest.raises(AdderError) as error:
            plan_pool(None, cpus, gpus)
        assert str(error.value) == message


def test_the_real_network(
    shared: Path, resnet20: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the 500 real images 456 are right."""
    records = np.fromfile(shared / "cifar10" / "test_batch.bin", np.uint8).reshape(-1, 3073)[:500]
    files = []
    for i, record in enumerate(records):
        file = io.BytesIO()
        Image.fromarray(record[1:].reshape(3, 32, 32).transpose(1, 2, 0)).save(file, "PNG")
        files.append((str(i), file.getvalue(), int(record[0])))
    write_parquet(tmp_path / "cifar.parquet", files, CIFAR10_LABELS)
    found = on_ray(capsys, resnet20, "--data", tmp_path / "cifar.parquet")
    assert (found["images"], found["top1_correct"]) == (500, 456)
    wanted = locally(capsys, resnet20, "--data", shared / "cifar10", "--limit", "500", "--first")
    assert {name: found[name] for name in COUNTS} == {name: wanted[name] for name in COUNTS}
