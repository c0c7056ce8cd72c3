"""Random graphs of integer adder nodes, whose results must be the same bits everywhere.

    python -m tests.integer_chains FOLDER COUNT [QUANTIZED.onnx]

writes models, and for each an .npz with inputs and what our runtime makes of them; the integer part
of a quantized network may be among them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from adder_onnx.ops import DOMAIN, VERSION, ConvAttributes, function_bodies, write_out_levels


def random_chain(
    seed: int, *, few: int | None = None
) -> tuple[onnx.ModelProto, dict[str, NDArray[np.uint8]]]:
    """A model from uint8 to uint8, with residuals, groups, strides and several outputs.

    Those of odd seeds have nodes with levels; all nodes have, with ``few``, as many on a grid of
    16, the zero point among them.
    """
    rng, levels_rng = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    top = 2 ** int(rng.integers(2, 9)) if few is None else 16
    shapes = {"X": (int(rng.integers(1, 3)), int(rng.choice([3, 6, 16, 24])), 8, 9)}
    scales = {"X": np.float32(rng.uniform(0.01, 0.2))}
    zeros = {"X": np.uint8(rng.integers(0, top // 2))}
    constants: dict[str, NDArray[Any]] = {"none": np.asarray(np.uint8(0))}
    constants |= {"one": np.asarray(np.float32(1))}
    nodes = []
    for i in range(int(rng.integers(2, 6))):
        x = str(rng.choice(list(shapes)))
        batch, channels, *size = shapes[x]
        group = int(rng.choice([g for g in (1, 1, 2, 3) if channels % g == 0]))
        keep = rng.random() < 0.6
        filters = channels if keep else group * int(rng.integers(1, 9))
        kernel = (3, 3) if keep else tuple(int(k) for k in rng.integers(1, 4, 2))
        attributes: dict[str, Any] = {
            "auto_pad": "NOTSET",
            "dilations": [1, 1],
            "group": group,
            "kernel_shape": list(kernel),
            "pads": [1, 1, 1, 1] if keep else [int(p) for p in rng.integers(0, 3, 4)],
            "strides": [1, 1] if keep else [int(s) for s in rng.integers(1, 3, 2)],
        }
        a = ConvAttributes.from_mapping(attributes)
        padded = [size[j] + a.pads[j] + a.pads[j + 2] for j in range(2)]
        if any(k > p for k, p in zip(kernel, padded, strict=True)):
            continue
        y = f"Y{i}"
        shapes[y] = (batch, filters, *a.output_size(size, kernel))
        taps = channels // group * kernel[0] * kernel[1]
        scale = rng.uniform(-2, 2, filters).astype(np.float32)
        zeros[y] = np.uint8(rng.integers(0, top // 2))
        scales[y] = np.float32(scales[x] * taps**0.5 * rng.uniform(0.5, 2))
        constants |= {
            f"w{i}": rng.integers(0, top, (filters, channels // group, *kernel), np.uint8),
            f"scale{i}": scale,
            f"bias{i}": (scale * scales[x] * taps * top / 3).astype(np.float32),
        }
        others = [v for v in shapes if shapes[v] == shapes[y] and v != y]
        z = str(rng.choice(others)) if others and rng.random() < 0.7 else None
        residual = ["none", "one", "none"] if z is None else [z, f"s_{z}", f"z_{z}"]
        inputs = [x, f"w{i}", f"s_{x}", f"z_{x}", f"scale{i}", f"bias{i}"]
        inputs += [*residual, f"s_{y}", f"z_{y}"]
        attributes |= {
            "bits": int(top).bit_length() - 1,
            "clip_min": 0.0 if rng.random() < 0.7 else -float("inf"),
        }
        if few is not None:
            free = [level for level in range(top) if level != zeros[y]]
            some = levels_rng.choice(free, few - 1, replace=False)
            attributes["levels"] = sorted([int(zeros[y]), *some.tolist()])
        elif seed % 2 == 1 and levels_rng.random() < 0.6:
            some = levels_rng.choice(top, min(16, top - 1), replace=False)
            attributes["levels"] = sorted(some.tolist())
        nodes.append(
            helper.make_node("QLinearAdderConv", inputs, [y], f"n_{y}", domain=DOMAIN, **attributes)
        )
    constants |= {f"s_{v}": np.asarray(s) for v, s in scales.items()}
    constants |= {f"z_{v}": np.asarray(z) for v, z in zeros.items()}
    used = {name for node in nodes for name in node.input}
    outputs = [v for v in shapes if v != "X"]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("X", TensorProto.UINT8, ["N", *shapes["X"][1:]])],
        [helper.make_tensor_value_info(v, TensorProto.UINT8, [None] * 4) for v in outputs],
        [onnx.numpy_helper.from_array(v, n) for n, v in constants.items() if n in used],
    )
    has_levels = write_out_levels(graph.node)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, VERSION)],
        functions=function_bodies(18, levels=has_levels),
        ir_version=10,
    )
    onnx.checker.check_model(model)
    return model, {"X": rng.integers(0, top, shapes["X"], np.uint8)}


def integer_part(model: onnx.ModelProto) -> onnx.ModelProto:
    """The integer nodes of a quantized network alone, from uint8 to uint8."""
    nodes = [n for n in model.graph.node if n.op_type == "QLinearAdderConv"]
    constants = {t.name: t for t in model.graph.initializer}
    made = [name for n in nodes for name in n.output]
    taken = dict.fromkeys(name for n in nodes for name in n.input)
    given = [name for name in taken if name not in constants and name not in made]

    def value(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.UINT8, [None] * 4)

    graph = helper.make_graph(
        nodes,
        "integers",
        [value(name) for name in given],
        [value(name) for name in made if name not in taken],
        [constants[name] for name in taken if name in constants],
    )
    return helper.make_model(
        graph,
        opset_imports=model.opset_import,
        functions=model.functions,
        ir_version=model.ir_version,
    )


def main() -> None:
    import adder_onnx

    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    cases = [random_chain(seed) for seed in range(count)]
    for path in sys.argv[3:]:
        model = integer_part(onnx.load(path))
        (name,) = (value.name for value in model.graph.input)
        image = np.random.default_rng(0).integers(0, 256, (2, 16, 32, 32), np.uint8)
        cases.append((model, {name: image}))
    for number, (model, feed) in enumerate(cases):
        session = adder_onnx.InferenceSession(model.SerializeToString())
        names = [value.name for value in session.get_outputs()]
        results = dict(zip(names, session.run(names, feed), strict=True))
        onnx.save(model, folder / f"integers{number}.onnx")
        np.savez(folder / f"integers{number}.npz", **feed, **results)


if __name__ == "__main__":
    main()
