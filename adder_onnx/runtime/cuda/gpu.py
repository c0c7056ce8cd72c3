"""What a runner needs of one GPU."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from numpy.typing import NDArray

from adder_onnx.kernels.cuda.launch.device import Device
from adder_onnx.kernels.cuda.launch.variants import Kernel

__all__ = ["Gpu"]


class Gpu(Device, Protocol):
    """What a runner needs of a GPU: memory, streams, graphs, exchange of arrays.

    All methods raise DeviceError where the GPU fails: DeviceMemoryError where its memory does not
    suffice, DeviceLostError where nothing on it can be used any more.

    Attributes:
        name: ``cuda:0``.
        ort_device: type and number, as onnxruntime's IOBinding takes them.
    """

    name: str
    ort_device: tuple[str, int]

    def prepare(self, kernels: Iterable[Kernel]) -> None:
        """Compiles kernels, so that no run has to wait for it."""

    def owns(self, value: Any) -> bool:
        """Whether a value is an array of this device."""

    def adopt(self, value: Any) -> Any:
        """An array of this device from one of another library on it, without a copy.

        Raises:
            ValueError: it is on another device.
        """

    def contiguous(self, array: Any) -> Any:
        """An array of this device in C order."""

    def download(self, array: Any) -> NDArray[Any]:
        """A NumPy array with the values of one of this device, once they are there."""

    def wrap(self, address: int, shape: Sequence[int], dtype: Any, owner: object) -> Any:
        """An array of memory that ``owner`` keeps."""

    def copy(self, source: Any, destination: Any) -> None:
        """Copies between arrays of one shape and type, both in C order."""

    def free_unused(self, stream: Any = None) -> None:
        """Gives memory that no array uses back to the device, for others than this pool.

        Args:
            stream: whose arrays have used it; None for all.
        """

    def to_torch(self, array: Any) -> Any:
        """A torch tensor on the same memory, for torch's current stream."""

    def new_stream(self) -> Any:
        """A stream of its own."""

    def stream_address(self, stream: Any) -> int:
        """The ``cudaStream_t`` of a stream."""

    def callers_stream(self, values: Collection[Any]) -> Any:
        """The stream on which the calling thread has made ``values``, and uses results.

        It is torch's current stream where one of them is a tensor of torch's on a GPU, which waits
        for CuPy's where another one is not; else it is CuPy's.

        Raises:
            DeviceError: a CUDA graph is being captured there.
        """

    def using(self, stream: Any) -> AbstractContextManager[Any]:
        """Makes this device and a stream current, and afterwards those that were so before."""

    def wait(self, stream: Any, other: Any) -> None:
        """Lets a stream wait for all that has been started on another one."""

    def synchronize(self, stream: Any) -> None:
        """Waits for all that has been started on a stream."""

    def capture(self, work: Callable[[], None]) -> Any:
        """A graph of the launches that ``work`` does on the current stream; none of them is run.

        Their arguments are part of it: the memory that they point at must stay.
        """

    def replay(self, graph: Any) -> None:
        """Starts the launches of a graph on the current stream."""
