"""What failures of CUDA, and of onnxruntime on a GPU, mean for a caller."""

from __future__ import annotations

import re

from adder_onnx.errors import DeviceError

__all__ = ["DeviceLostError", "DeviceMemoryError", "cuda_failure", "onnxruntime_failure"]

_OUT_OF_MEMORY = 2

_LOST = frozenset(
    (
        *(214, 220, 226),  # memory or a link is broken
        *(700, 702, 709, 710, *range(714, 720), 721),  # a kernel did what it must not
        *(810, 911),  # the server of several processes, or a device beside this one, has ended it
    )
)
"""Numbers of errors after which a process can use a GPU no more; most of them are said by
driver_types.h to need a new process, the others leave the memory's contents undefined."""

_CAPTURE = range(900, 909)
"""Numbers of errors that say that a stream is being captured."""

_ONNXRUNTIME_OUT_OF_MEMORY = (
    *("out of memory", "failed to allocate memory", "bfc_arena", "alloc_failed"),
)
_ONNXRUNTIME_CUDA = re.compile(r"CUDA (?:failure|error) (\d+)")
_ONNXRUNTIME_LIBRARY = re.compile(r"\b(?:CUDA|CUDNN|CUDNN_FE|CUBLAS|CUFFT|CUSPARSE) failure\b")


class DeviceMemoryError(DeviceError):
    """A GPU's memory does not suffice; with less in it, the same may succeed."""


class DeviceLostError(DeviceError):
    """Nothing on a GPU can be used in this process any more."""


def cuda_failure(device: str, doing: str, status: int, text: str) -> DeviceError:
    """What to raise for an error of CUDA.

    Args:
        device: ``cuda:0``.
        doing: what failed: ``starting adder_conv_gemm<...>``.
        status: the error's number, a ``cudaError_t``.
        text: what CUDA says.
    """
    text = " ".join(text.split())
    if status == _OUT_OF_MEMORY:
        return DeviceMemoryError(
            f"{device} is out of memory while {doing} ({text}): use a smaller batch, or free what "
            "else is on the GPU"
        )
    if status in _LOST:
        return DeviceLostError(
            f"{device} failed while {doing} ({text}), and cannot be used in this process any more: "
            "start the process again; with CUDA_LAUNCH_BLOCKING=1 in its environment the error "
            "names the kernel that fails"
        )
    if status in _CAPTURE:
        return DeviceError(
            f"{device} failed while {doing} ({text}): a CUDA graph is being captured in this "
            "process; run the session outside of the capture"
        )
    return DeviceError(f"{device} failed while {doing}: {text}")


def onnxruntime_failure(error: BaseException | None, device: str) -> DeviceError | None:
    """What to raise where onnxruntime fails because of a GPU; None for any other reason."""
    text = " ".join(str(error).split())
    doing = "running standard nodes in onnxruntime"
    if any(words in text.lower() for words in _ONNXRUNTIME_OUT_OF_MEMORY):
        return cuda_failure(device, doing, _OUT_OF_MEMORY, text)
    match = _ONNXRUNTIME_CUDA.search(text)
    if match:
        return cuda_failure(device, doing, int(match[1]), text)
    if _ONNXRUNTIME_LIBRARY.search(text):
        return DeviceError(f"{device} failed while {doing}: {text}")
    return None
