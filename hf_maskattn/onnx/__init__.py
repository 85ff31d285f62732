"""Export to ONNX, checks against PyTorch, and running the file."""
