"""What CMake says where there is no compiler for the kernels: one line, with what to install."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CMAKE, MAKE, COMPILER = shutil.which("cmake"), shutil.which("make"), shutil.which("g++")

pytestmark = pytest.mark.skipif(
    not (CMAKE and MAKE and COMPILER), reason="needs cmake, make and g++"
)


def error_of(build: Path, environment: dict[str, str], *options: str) -> str:
    """The one line of CMake's error."""
    command = [str(CMAKE), "-S", str(ROOT), "-B", str(build), "-G", "Unix Makefiles"]
    command += [f"-DCMAKE_MAKE_PROGRAM={MAKE}", *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith("CMake Error at CMakeLists.txt:"), done.stderr
    (line,) = (line for line in done.stderr.splitlines()[1:] if line.strip())
    return line.strip()


def compiler_that(folder: Path, *options: str) -> dict[str, str]:
    """An environment in which CXX is a g++ with further options; without any, one that fails."""
    script = folder / "some-g++"
    command = f'exec {COMPILER} "$@" {" ".join(options)}' if options else "exit 1"
    script.write_text(f"#!/bin/sh\n{command}\n")
    script.chmod(0o755)
    return {**os.environ, "CXX": str(script)}


def test_no_compiler_at_all(tmp_path):
    """Nothing is on the path, and the next try looks again."""
    environment = {"PATH": str(tmp_path)}
    for _ in range(2):
        assert error_of(tmp_path / "build", environment) == (
            "adder-onnx needs a C++ compiler: install g++ 12 or clang++ 13, or a later one"
        )


def test_compiler_of_python_is_missing(tmp_path):
    """scikit-build-core sets CXX to what Python was built with."""
    assert error_of(tmp_path / "build", {"PATH": str(tmp_path), "CXX": "g++"}) == (
        "adder-onnx needs a C++ compiler, and CXX=g++ does not work: install g++ 12 or clang++ 13, "
        "or a later one, and set CXX to it"
    )


def test_compiler_fails(tmp_path):
    """A program that compiles nothing is none."""
    message = error_of(tmp_path / "build", compiler_that(tmp_path))
    assert f"CXX={tmp_path}/some-g++ does not work: install g++ 12" in message


def test_compiler_is_too_old(tmp_path):
    """The version is what the preprocessor says."""
    environment = compiler_that(tmp_path, "-U__GNUC__", "-D__GNUC__=11")
    message = error_of(tmp_path / "build", environment)
    assert message.startswith(
        f"adder-onnx needs g++ 12 or clang++ 13, or a later one, and {tmp_path}/some-g++ is GNU 11."
    )
    assert message.endswith(": set CXX to one")


def test_another_compiler(tmp_path):
    """Such as one that CMake does not know."""
    environment = compiler_that(tmp_path, "-D__NVCOMPILER", "-D__NVCOMPILER_MAJOR__=26")
    message = error_of(tmp_path / "build", environment)
    assert f"or a later one, and {tmp_path}/some-g++ is of an unknown kind" in message
