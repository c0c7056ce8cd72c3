"""Kernels, by device. They know arrays and shapes, never ONNX."""
