"""What importing the package does."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def _python(code, folder, *options):
    return subprocess.run(
        [sys.executable, *options, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
    )


def test_importing_it_is_quick():
    """The session and all that it needs are imported once they are asked for."""
    code = "import sys, adder_onnx; print('numpy' in sys.modules); adder_onnx.InferenceSession"
    run = _python(code, ROOT)
    assert (run.returncode, run.stdout) == (0, "False\n")


def test_what_there_is_not():
    run = _python("import adder_onnx; adder_onnx.Nonsense", ROOT)
    assert "module 'adder_onnx' has no attribute 'Nonsense'" in run.stderr
    assert "InferenceSession" in _python("import adder_onnx; print(dir(adder_onnx))", ROOT).stdout


def test_a_source_folder_that_shadows_the_package(tmp_path):
    """As in a checkout where the package is installed, but not as an editable one."""
    for name in ("adder_onnx", "kernels", "export"):
        shutil.copytree(
            ROOT / name,
            tmp_path / name,
            symlinks=True,
            ignore=shutil.ignore_patterns("_native*.so", "__pycache__"),
        )
    # Here an editable install finds the package; its finder goes first.
    code = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if "ScikitBuild" not in type(f).__name__]
import adder_onnx
adder_onnx.InferenceSession
"""
    run = _python(code, tmp_path)
    last = run.stderr.splitlines()[-1]
    assert f"adder_onnx is imported from its source folder, {tmp_path.resolve()}, where" in last
    assert "run Python in another folder" in last
