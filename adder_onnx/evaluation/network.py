"""A session as a function from batches to outputs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adder_onnx.errors import ModelError
from adder_onnx.evaluation.inference import Outputs
from adder_onnx.graph.plan import ChainStep, OnnxruntimeStep
from adder_onnx.metadata import ModelMetadata, Preprocessing
from adder_onnx.runtime import InferenceSession

__all__ = ["Network"]

_FLOATS = {
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
}


class Network:
    """A model that is run over a data set.

    Args:
        session: the model.
        outputs: names of the outputs that a call gives; None for all.
        timeout: how many seconds a call may take; None for any.

    Attributes:
        inputs: names of the model's inputs.
        batch_size: the only one that the model takes, or None.
        metadata: what the model says about itself.
        seconds: time spent in ``session.run`` so far.

    Raises:
        ModelError: the model has no inputs, or its metadata cannot be understood.
    """

    def __init__(
        self,
        session: InferenceSession,
        outputs: Sequence[str] | None = None,
        *,
        timeout: float | None = None,
    ) -> None:
        self._session = session
        self._timeout = timeout
        self._inputs = session.get_inputs()
        if not self._inputs:
            raise ModelError("the model has no inputs that data could be given to")
        self._names = tuple(dict.fromkeys(outputs or [o.name for o in session.get_outputs()]))
        self.metadata = ModelMetadata.from_props(session.metadata)
        sizes = [i.shape[0] for i in self._inputs if i.shape]
        self.inputs = tuple(i.name for i in self._inputs)
        self.batch_size = next((size for size in sizes if isinstance(size, int)), None)
        self.seconds = 0.0

    def __call__(self, *batch: NDArray[Any]) -> Outputs:
        """The outputs by name for a batch (N, …) of each input.

        Raises:
            InputError: an array has another shape or type than the model's input.
            RunTimeoutError: the run takes longer than it may.
        """
        feed = self.feed(batch)
        start = time.perf_counter()
        values = self._session.run(self._names, feed, timeout=self._timeout)
        self.seconds += time.perf_counter() - start
        return dict(zip(self._names, values, strict=True))

    def feed(self, batch: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """A batch (N, …) of each input by the input's name, floats in its precision."""
        return {
            expected.name: _same_float(value, _FLOATS.get(expected.type))
            for expected, value in zip(self._inputs, batch, strict=True)
        }

    @property
    def precision(self) -> str:
        """Types of its adder nodes' tensors, such as ``uint8``; of its outputs where it has none.

        Without a float among these, that of its inputs.
        """
        types = []
        for step in self._session.plan.steps:
            if isinstance(step, ChainStep):
                types += [node.type for node in step.nodes]
            elif isinstance(step, OnnxruntimeStep):  # by the function body
                ops = {node.op_type for node in step.model.graph.node}
                types += ["uint8"] * ("QLinearAdderConv" in ops)
        if types:
            return ", ".join(dict.fromkeys(types))
        values = (*self._session.get_outputs(), *self._inputs)
        floats = (np.dtype(_FLOATS[v.type]).name for v in values if v.type in _FLOATS)
        return next(floats, values[0].type)

    def check_takes_images(self) -> None:
        """Checks that the model takes images, and how they are preprocessed.

        Raises:
            ModelError: it has several inputs or none that is float, (N, C, H, W).
        """
        inputs = self._inputs
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in _FLOATS:
            raise ModelError(
                "this command needs a model with one float input (N, C, H, W); this one has "
                + ", ".join(f"{i.name} {i.type} {i.shape}" for i in inputs)
            )

    def preprocessing(self) -> Preprocessing | None:
        """How images become the model's input, if the model says so.

        Raises:
            ModelError: that does not make images of the input's shape.
        """
        how = self.metadata.preprocessing
        shape = next((i.shape[1:] for i in self._inputs if len(i.shape) == 4), None)
        if how is None or shape is None:
            return how
        made = [how.channels, how.height, how.width]
        if any(isinstance(e, int) and e != size for e, size in zip(shape, made, strict=True)):
            raise ModelError(
                f"the model takes images of {shape}, but its metadata preprocess them to {made}"
            )
        return how


def _same_float(value: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """A float array in the precision that an input has; any other array as it is."""
    return value.astype(dtype, copy=False) if dtype and value.dtype.kind == "f" else value
