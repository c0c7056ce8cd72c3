"""A chain of adder and MaxPool nodes with the conversions around it: shapes and memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from adder_onnx.errors import InputError, ModelError
from adder_onnx.graph.adder_node import AdderNode
from adder_onnx.graph.plan import ChainStep, ConversionStep, Step
from adder_onnx.graph.pools import PoolNode
from adder_onnx.kernels import cpu as native

__all__ = [
    "Chain",
    "ChainMemory",
    "Image",
    "Passes",
    "Shape",
    "check_filters",
    "plan_passes",
    "type_inside",
]

Shape = tuple[int, ...]
Image = tuple[int, int, int, int]
"""The shape (N, C, H, W) of an image."""


def type_inside(type_: str, device: str) -> str:
    """The type of tensors inside a chain on ``cpu`` or ``cuda``, by their type in the graph."""
    return "float32" if device == "cpu" and type_ == "float16" else type_


@dataclass(frozen=True)
class ChainMemory:
    """The memory of a chain for one combination of input shapes.

    Attributes:
        shapes: of the chain's inputs, by name.
        peak_bytes: what a run needs for all its channels-last tensors.
        arenas: how many blocks of that size are kept at the moment: on the CPU one for each run at
            the same time; on a GPU one for each of its streams that has a graph for these shapes,
            while other runs take their memory from a pool.
    """

    shapes: dict[str, tuple[int, ...]]
    peak_bytes: int
    arenas: int


@dataclass(frozen=True)
class Passes:
    """How the images of a batch go through a chain on the CPU.

    Attributes:
        batch: images of all tensors; the largest number, where tensors differ and there is one
            pass only.
        images: that go through together.
        at_once: passes that have memory at the same time, one for each thread.
    """

    batch: int
    images: int
    at_once: int

    def image_of_one(self, shape: Image) -> Image:
        """The shape of a tensor in one pass."""
        return (min(shape[0], self.images), *shape[1:])


def plan_passes(
    shapes: Mapping[str, Image], floats: Callable[[str, Image], int], threads: int
) -> Passes:
    """Cuts a batch into passes, alike for all threads and rounds.

    Args:
        shapes: of a chain's tensors, by name.
        floats: what a tensor of a shape takes, in units of four bytes.
        threads: that share the passes.
    """
    bytes_of_one = [4 * floats(name, (1, *shape[1:])) for name, shape in shapes.items()]
    return Passes(*native.plan_passes(list(shapes.values()), bytes_of_one, threads))


class Chain:
    """What an executor of a chain starts from.

    Attributes:
        nodes: in the order in which they run.
        entries: conversions of what enters.
        exits: conversions of what leaves.
        weights: names of the computed weights.
        inputs: names of all values that it takes, each once.
        outputs: names of the values that it gives, in the order of ``exits``.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        (chain,) = [step for step in steps if isinstance(step, ChainStep)]
        self.nodes = chain.nodes
        self.entries = [s for s in steps if isinstance(s, ConversionStep) and s.to_kernels]
        self.exits = [s for s in steps if isinstance(s, ConversionStep) and not s.to_kernels]
        self.weights = chain.weights
        images = [step.value for step in self.entries]
        self.inputs = tuple(dict.fromkeys((*images, *self.weights)))
        self.outputs = tuple(step.value for step in self.exits)

    def forget_weights(self) -> None:
        """Keeps the shapes of constant weights only, which the kernels have packed."""
        self.nodes = tuple(node.without_weight() for node in self.nodes)

    def infer_shapes(
        self, entering: Sequence[Shape], weights: Mapping[str, Shape]
    ) -> dict[str, Image]:
        """The shapes of all images of the chain, by name.

        Args:
            entering: shapes of the values that enter, in the order of ``entries``.
            weights: shapes of the computed weights, by name.

        Raises:
            InputError: shapes do not fit a node; the message names it.
        """
        shapes = dict(zip((step.inside for step in self.entries), entering, strict=True))
        for node in self.nodes:
            if isinstance(node, PoolNode):
                shapes[node.y] = _pooled_shape(node, shapes[node.x])
                continue
            weight = weights[node.weight] if isinstance(node.weight, str) else node.weight.shape
            shapes[node.y] = _output_shape(node, weight, shapes)
        return {name: _image(shape) for name, shape in shapes.items()}

    def place(
        self, shapes: Mapping[str, Image], size: Callable[[str, Image], int]
    ) -> tuple[dict[str, int], int]:
        """Places all channels-last tensors in one block of memory.

        Args:
            shapes: of the images, by name.
            size: the elements that an image of that name and shape takes.

        Returns:
            Offsets in elements, by name, each a multiple of 16; and the size of the block.
        """
        # Time: all inputs are converted, then nodes run one by one, then outputs are converted.
        end = len(self.nodes)
        entering = [step.inside for step in self.entries]
        first = dict.fromkeys(entering, -1)
        last = dict.fromkeys(entering, -1)
        for time, node in enumerate(self.nodes):
            first[node.y] = last[node.y] = time
            for name in (node.x, node.residual):
                if name is not None:
                    last[name] = time
        last.update(dict.fromkeys((step.inside for step in self.exits), end))
        names = list(first)
        buffers = [(size(name, shapes[name]), first[name], last[name]) for name in names]
        offsets, total = native.place_buffers(buffers)
        return dict(zip(names, offsets, strict=True)), total


def check_filters(node: AdderNode, weight: Shape) -> None:
    """Checks a weight, given or computed, against what a node declares.

    Raises:
        ModelError: it does not fit the attributes.
        InputError: it has another number of filters than the model says.
    """
    try:
        node.attributes.check_weight(weight)
    except ModelError as error:
        raise ModelError(f"node {node.name!r}: {error}") from error
    if weight[0] != len(node.scale):
        raise InputError(
            f"node {node.name!r}: the weight has {weight[0]} filters; the model declares "
            f"{len(node.scale)}"
        )


def _output_shape(node: AdderNode, weight: Shape, shapes: Mapping[str, Shape]) -> Shape:
    """The shape of a node's output; checks its inputs' shapes.

    Raises:
        InputError: the input's channels, the residual's shape or the image's size do not fit.
    """
    x = shapes[node.x]
    try:
        if len(x) != 4:
            raise ModelError(f"the input has shape {list(x)}; expected (N, C, H, W)")
        node.attributes.check_weight(weight, x[1])
        height, width = node.attributes.output_size(x[2:], weight[2:])
    except ModelError as error:
        raise InputError(f"node {node.name!r}: {error}") from error
    shape = (x[0], weight[0], height, width)
    if node.residual is not None and shapes[node.residual] != shape:
        raise InputError(
            f"node {node.name!r}: the residual has shape {shapes[node.residual]}, expected {shape}"
        )
    return shape


def _pooled_shape(node: PoolNode, x: Shape) -> Shape:
    """The shape of a MaxPool's output.

    Raises:
        InputError: the image is smaller than the kernel.
    """
    batch, channels, height, width = x
    try:
        return (batch, channels, *node.output_size((height, width)))
    except ModelError as error:
        raise InputError(f"node {node.name!r}: {error}") from error


def _image(shape: Shape) -> Image:
    batch, channels, height, width = shape
    return (batch, channels, height, width)
