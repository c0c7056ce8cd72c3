"""Images that a model is wrong about: the worst (`worst`), what they look like, and their page."""

from adder_onnx.evaluation.mistakes.page import MOST_SHOWN, mistakes_page
from adder_onnx.evaluation.mistakes.worst import Mistake, WorstMistakes

__all__ = ["MOST_SHOWN", "Mistake", "WorstMistakes", "mistakes_page"]
