"""Which classes a model takes for which: counted (`counts`), placed and drawn (`drawing`)."""

from adder_onnx.evaluation.confusion.counts import ClassAccuracy, Confusion, ConfusionCounter
from adder_onnx.evaluation.confusion.drawing import draw_confusion

__all__ = ["ClassAccuracy", "Confusion", "ConfusionCounter", "draw_confusion"]
