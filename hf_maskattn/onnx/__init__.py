"""Export to ONNX, comparison with PyTorch, and inference with onnxruntime."""
