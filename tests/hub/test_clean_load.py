import json

import pytest
import torch

from hf_maskattn import MaskAttnForSequenceClassification, RNNSearchForConditionalGeneration
from hf_maskattn.data.tokenizers import train_tokenizer
from hf_maskattn.hub.clean_load import load_without_package
from tests.toy_folder import write_model_folder


def test_a_whole_encoder_decoder_loads_with_its_tied_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    folder = write_model_folder(tmp_path, "RNNSearchForConditionalGeneration")
    with (folder / "packing.py").open("a") as code:  # it is run, so it can tell what it sees
        code.write(
            f"import os, pathlib\npathlib.Path({str(tmp_path / 'seen')!r}).write_text(str(os.environ.get('HF_TOKEN')))\n"
        )
    assert load_without_package(folder) == RNNSearchForConditionalGeneration.from_pretrained(folder).num_parameters()
    assert (tmp_path / "seen").read_text() == "None"


def test_all_that_does_not_fit_is_told(tmp_path):
    folder = write_model_folder(tmp_path)
    model = MaskAttnForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        model.classifier.bias[0] = torch.nan
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2, "attention_size": 4}))
    words = [f"word{n}" for n in range(90)]
    train_tokenizer(words, kind="word", vocab_size=90, max_length=8).save_pretrained(folder)
    with pytest.raises(ValueError, match="the model does not fit its files: ") as caught:
        load_without_package(folder)
    told = str(caught.value)
    assert "weights are missing (maskattn.recurrence.layers.1" in told
    assert "weights have other sizes (maskattn.pooling" in told
    assert "weights are not finite (classifier.bias)" in told
    assert "the tokenizer has 90 tokens, the model has embeddings of 10" in told


def test_code_that_is_not_there(tmp_path):
    folder = write_model_folder(tmp_path)
    (folder / "packing.py").unlink()
    with pytest.raises(ValueError, match=r"the model does not load: .*packing.py"):
        load_without_package(folder)
