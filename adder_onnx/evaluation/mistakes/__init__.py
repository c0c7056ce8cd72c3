"""Images that a model is wrong about: the worst of them, and what they look like."""

from adder_onnx.evaluation.mistakes.contact_sheet import MOST_SHOWN, contact_sheet
from adder_onnx.evaluation.mistakes.worst import Mistake, WorstMistakes

__all__ = ["MOST_SHOWN", "Mistake", "WorstMistakes", "contact_sheet"]
