"""Files in which each chain of adder nodes is one node, and the library that executes them."""

from adder_onnx.compilation.compile import Compiled, CompiledChain, compile_model
from adder_onnx.compilation.library import get_include, get_library_path

__all__ = ["Compiled", "CompiledChain", "compile_model", "get_include", "get_library_path"]
