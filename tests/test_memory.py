"""How much memory may be taken."""

import resource
import subprocess
import sys

import pytest

from adder_onnx import memory
from adder_onnx.errors import AdderError, DataError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("1k", 1024),
        ("1.5GiB", 3 << 29),
        ("2G", 2 << 30),
        ("7 MB", 7 << 20),
        ("1T", 1 << 40),
    ],
)
def test_a_size(text, size):
    assert memory.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1", "1e9", "nan", "1.5.2G", "2GG", "9" * 30])
def test_no_size(text):
    with pytest.raises(ValueError, match="512M"):
        memory.parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1536, "1.5 KiB"), (3 << 29, "1.5 GiB"), (1 << 62, "4.0 EiB")],
)
def test_a_size_for_people(size, text):
    assert memory.describe_size(size) == text


def test_what_is_allowed_is_taken_and_what_is_not_is_refused():
    with memory.limited(1 << 20):
        memory.require(1 << 20, "x")
        with pytest.raises(DataError, match=r"^x.npz takes 1.0 MiB of memory, more than the"):
            memory.require((1 << 20) + 1, "x.npz", DataError)
        with memory.limited(None):
            assert memory.limit() == 1 << 20
    assert memory.limit() > 1 << 20


def test_a_limit_ends_with_an_error():
    before = memory.limit()
    with pytest.raises(AdderError), memory.limited(1):
        memory.require(2, "x")
    assert memory.limit() == before


def test_the_default_is_half_of_what_the_process_may_have():
    script = "from adder_onnx import memory; print(memory.limit())"

    def bound():
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))

    run = subprocess.run(
        [sys.executable, "-c", script], preexec_fn=bound, capture_output=True, text=True, check=True
    )
    assert int(run.stdout) == 3 << 29
