"""Pretrained token embeddings: read from models and vector files, reduced in size, and loaded into a model."""
