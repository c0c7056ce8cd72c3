"""What a model's nodes cost, where they run, and how long they take."""

from adder_onnx.inspection.cost import Cost, Operations
from adder_onnx.inspection.inputs import random_feed
from adder_onnx.inspection.json_report import to_json
from adder_onnx.inspection.report import (
    NodeReport,
    Report,
    StepReport,
    ValueReport,
    inspect_model,
)

__all__ = [
    "Cost",
    "NodeReport",
    "Operations",
    "Report",
    "StepReport",
    "ValueReport",
    "inspect_model",
    "random_feed",
    "to_json",
]
