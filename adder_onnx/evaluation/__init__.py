"""Data sets, preprocessing and accuracy.

`FORMATS` and `SPLITS` are the formats and splits that `open_dataset` takes.
"""

from adder_onnx.evaluation.accuracy import Accuracy, evaluate
from adder_onnx.evaluation.dataset import Dataset
from adder_onnx.evaluation.formats import FORMATS, SPLITS, open_dataset
from adder_onnx.evaluation.inference import infer, load_inputs

__all__ = [
    "FORMATS",
    "SPLITS",
    "Accuracy",
    "Dataset",
    "evaluate",
    "infer",
    "load_inputs",
    "open_dataset",
]
