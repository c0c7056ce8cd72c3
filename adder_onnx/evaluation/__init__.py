"""Data sets, preprocessing and accuracy, and what a program needs for images of its own.

`FORMATS` and `SPLITS` are the formats and splits that `open_dataset` takes.
"""

from adder_onnx.evaluation.accuracy import Accuracy, evaluate
from adder_onnx.evaluation.dataset import Dataset
from adder_onnx.evaluation.formats import FORMATS, SPLITS, open_dataset
from adder_onnx.evaluation.images import decode_image
from adder_onnx.evaluation.inference import infer, load_inputs
from adder_onnx.evaluation.network import Network
from adder_onnx.evaluation.outputs import Classified, choose_output
from adder_onnx.evaluation.preprocessing import preprocess
from adder_onnx.evaluation.probabilities import KindOfScores, to_probabilities

__all__ = [
    "FORMATS",
    "SPLITS",
    "Accuracy",
    "Classified",
    "Dataset",
    "KindOfScores",
    "Network",
    "choose_output",
    "decode_image",
    "evaluate",
    "infer",
    "load_inputs",
    "open_dataset",
    "preprocess",
    "to_probabilities",
]
