"""The model files, which travel with the weights: see README.md in this folder."""
