"""Data sets, preprocessing and accuracy."""

from adder_onnx.evaluation.accuracy import Accuracy, evaluate, predict
from adder_onnx.evaluation.dataset import Dataset
from adder_onnx.evaluation.formats import FORMATS, SPLITS, open_dataset

__all__ = ["FORMATS", "SPLITS", "Accuracy", "Dataset", "evaluate", "open_dataset", "predict"]
