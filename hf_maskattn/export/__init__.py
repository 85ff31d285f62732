"""What leaves the house: model cards, ONNX files."""
