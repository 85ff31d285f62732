"""Predictions, metrics and ONNX files from a model folder."""
