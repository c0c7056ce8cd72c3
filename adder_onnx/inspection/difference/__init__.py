"""How two models differ: in their graphs, in what they cost, and in the values inside of them."""

from adder_onnx.inspection.difference.comparison import Comparison, compare_models
from adder_onnx.inspection.difference.json_report import to_json
from adder_onnx.inspection.difference.tables import print_comparison
from adder_onnx.inspection.difference.values import Answers, Values, compare_values

__all__ = [
    "Answers",
    "Comparison",
    "Values",
    "compare_models",
    "compare_values",
    "print_comparison",
    "to_json",
]
