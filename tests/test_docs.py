"""What the docs say is held by tests that there are; their code runs; links lead somewhere."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import adder_onnx
from adder_onnx.errors import MissingDependencyError
from tests.conftest import ROOT

DOCS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")])
TESTS = re.compile(r"`(test_\w+\.py(?:::\w+(?:\[[^`]+\])?)?)`")
DIGITS = ROOT / "examples" / "digits"


def rows_between(path: Path, marker: str) -> list[str]:
    """Rows of the tables between a marker and its end, without their headings."""
    table = path.read_text().partition(f"<!-- begin: {marker} -->")[2].partition("<!-- end -->")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    return [row for row in rows if not row.endswith("| tests |") and not row.startswith("| ---")]


def test_every_row_names_tests_that_there_are() -> None:
    known = rows_between(ROOT / "docs" / "migrating.md", "known")
    promised = rows_between(ROOT / "SECURITY.md", "promised")
    assert (len(known), len(promised)) > (20, 9)
    rows = [*known, *promised]
    named = [TESTS.findall(row) for row in rows]
    assert all(named)
    tests = {test for row in named for test in row}
    assert [test for test in sorted(tests) if not is_there(test)] == []
    assert_collected(sorted(f"tests/{test}" for test in tests if "[" in test))


def is_there(test: str) -> bool:
    """Whether a file has tests, or one of this name, with whatever parameters."""
    file, _, name = test.partition("[")[0].partition("::")
    path = ROOT / "tests" / file
    found = names_of_tests(path) if path.is_file() else set()
    return name in found if name else bool(found)


def names_of_tests(path: Path) -> set[str]:
    """Names of the tests in a file."""
    found = ast.walk(ast.parse(path.read_text()))
    return {f.name for f in found if isinstance(f, ast.FunctionDef) and f.name[:5] == "test_"}


def assert_collected(tests: list[str]) -> None:
    """Pytest finds them; it loads their files, which takes its time."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:xdist", *tests]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


PRELUDE = {
    "README.md": "import numpy as np; images = np.zeros((2, 1, 8, 8), np.float32)",
    "SECURITY.md": "import numpy as np; images = np.zeros((2, 1, 8, 8), np.float32)",
    "docs/answers.md": """
import json
counts = [[0, 0, 5], [0, 2, 1], [1, 1, 7]]
json.dump({"confusion": {"labels": None, "counts": counts}}, open("result.json", "w"))
""",
    "docs/deploying.md": """
from adder_onnx.cli.compile import main
assert main(["resnet20.onnx", "resnet20_compiled.onnx"]) == 0
""",
    "docs/embedding.md": """
import numpy as np
images = np.random.default_rng(0).normal(size=(9, 1, 8, 8)).astype(np.float32)
""",
    "docs/migrating.md": """
import torch
from adder_onnx.export import AdderConv2d
net = torch.nn.Sequential(AdderConv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.LazyLinear(2)).eval()
net(torch.zeros(1, 3, 64, 64))
""",
    "docs/quantisation.md": """
import torch
from adder_onnx.export.resnet import ResNet, ResNetConfig
model = ResNet(ResNetConfig("cifar", "basic", (1,), (4,), 10, in_channels=1)).eval()
some_training_images = [torch.randn(8, 1, 8, 8)]
""",
    "docs/scaling.md": f"""
import atexit, shutil, socket, tempfile
folder = tempfile.mkdtemp(prefix="ray")
atexit.register(shutil.rmtree, folder, ignore_errors=True)  # after Ray's own, of its import
import ray
from ray import serve
quiet = {{"include_dashboard": False, "logging_level": "ERROR", "log_to_driver": False}}
ray.init(address="local", num_cpus=4, object_store_memory=10**8, _temp_dir=folder, **quiet)
free = socket.create_server(("127.0.0.1", 0))
port = free.getsockname()[1]
free.close()
serve.start(http_options={{"port": port}})
shutil.copytree({str(DIGITS / "test" / "3")!r}, "photos")
""",
}
"""What the code of a page takes for granted."""


OF_A_PROCESS = {"SECURITY.md", "docs/embedding.md", "docs/scaling.md"}
"""Pages whose code sets what holds for the whole process."""


WITH_LIBRARY = {"docs/deploying.md"}
"""Pages whose code needs the operators for a stock onnxruntime."""


def python_blocks(path: Path) -> list[str]:
    text = path.read_text()
    found = re.findall(r"^( *)```python\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def test_all_code_is_known() -> None:
    assert {str(path.relative_to(ROOT)) for path in DOCS if python_blocks(path)} == set(PRELUDE)


SLOW = [pytest.param("docs/scaling.md", marks=pytest.mark.slow)]


@pytest.mark.parametrize("name", [*sorted(PRELUDE.keys() - {"docs/scaling.md"}), *SLOW])
def test_code_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a page, one block after the other."""
    if name in WITH_LIBRARY:
        try:
            adder_onnx.get_library_path()
        except MissingDependencyError as error:
            pytest.skip(str(error))
    if name == "docs/scaling.md":
        pytest.importorskip("ray", reason="needs adder-onnx[ray]")
    for model in ("model.onnx", "resnet20.onnx"):
        shutil.copy(DIGITS / "resnet8_digits.onnx", tmp_path / model)
    code = "\n".join([PRELUDE[name], *python_blocks(ROOT / name)])
    if name not in OF_A_PROCESS:
        monkeypatch.chdir(tmp_path)
        exec(code, {"__name__": "__main__"})
        return
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_links(page: Path) -> None:
    """Between pages, and to their headings."""
    for link in LINK.findall(page.read_text()):
        if ":" in link:
            continue
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not heading or heading in headings(target), link


def headings(page: Path) -> set[str]:
    """The names that headings of a page have in links."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_library_sets_no_handlers_of_signals() -> None:
    code = """
import signal
before = {n: signal.getsignal(n) for n in signal.valid_signals()}
import adder_onnx, adder_onnx.evaluation, adder_onnx.quantization, adder_onnx.inspection
import numpy as np, sys
session = adder_onnx.InferenceSession(sys.argv[1])
session.run(None, {"input": np.zeros((1, 1, 8, 8), np.float32)}, timeout=60)
assert before == {n: signal.getsignal(n) for n in signal.valid_signals()}
"""
    model = str(DIGITS / "resnet8_digits.onnx")
    subprocess.run([sys.executable, "-c", code, model], check=True)
