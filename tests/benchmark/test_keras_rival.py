import os
import sys
from types import SimpleNamespace

import pytest
import torch

from hf_maskattn.benchmark.keras_rival import keras_classifier
from hf_maskattn.model.configuration_maskattn import MaskAttnConfig

CONFIG = MaskAttnConfig(vocab_size=20, num_labels=3, embedding_size=4, hidden_size=6, classifier_dropout=0.5)


def test_a_missing_or_unfit_keras_is_told(monkeypatch):
    monkeypatch.setitem(os.environ, "KERAS_BACKEND", "torch")
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(ImportError, match="keras is not installed: pip install keras"):
        keras_classifier(CONFIG)
    other = SimpleNamespace(backend=SimpleNamespace(backend=lambda: "jax"))
    monkeypatch.setitem(sys.modules, "keras", other)
    with pytest.raises(ImportError, match="keras runs on jax here: set KERAS_BACKEND=torch"):
        keras_classifier(CONFIG)


def test_keras_reads_rows_of_different_lengths(monkeypatch):
    monkeypatch.setitem(os.environ, "KERAS_BACKEND", "torch")
    pytest.importorskip("keras")
    model = keras_classifier(CONFIG)
    short = model(torch.tensor([[3, 4, 5], [6, 0, 0]]))
    torch.testing.assert_close(short, model(torch.tensor([[3, 4, 5, 0], [6, 0, 0, 0]])))
    assert short.shape == (2, 3)
