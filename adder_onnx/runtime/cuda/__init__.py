"""Running plans on a GPU: the runner, its chains, onnxruntime beside them, and CuPy below."""
