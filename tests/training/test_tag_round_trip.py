"""The entities of the data are those of its labels, of `predict`, of the pipelines of transformers, and of ONNX."""

from types import SimpleNamespace

import pytest
import torch
from seqeval.metrics.sequence_labeling import get_entities
from transformers import pipeline

from hf_maskattn.inference.predict import predict
from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.training.task_data import training_data
from tests.tagged_sentences import Oracle, random_rows, write_tagged_rows
from tests.training.toy_recipe import write_recipe

COUNT = 300


def load(folder, rows, kind):
    path = write_recipe(folder, "token-classification", data={"tokenizer": kind, "vocab_size": 300})
    files = (f"data.train_file={write_tagged_rows(folder / 'tagged.jsonl', rows)}", "data.validation_file=", "data.test_file=")
    return training_data(load_recipe(path, files), seed=0)


def entities_of_labels(data, rows):
    """Read the entities off the labels of the tokens, by seqeval."""
    found = []
    for item, encoded in zip(rows, data.splits["train"], strict=True):
        offsets = data.tokenizer(item["text"], return_offsets_mapping=True)["offset_mapping"]
        tags = [data.labels[label] for label in encoded["labels"]]
        found.append([(name, offsets[first][0], offsets[last][1]) for name, first, last in get_entities(tags)])
    return found


def entities_of(results):
    return [[(item["entity_group"], item["start"], item["end"]) for item in result] for result in results]


@pytest.mark.parametrize("kind", ["char", "word", "bpe", "wordpiece"])
@pytest.mark.parametrize("scheme", ["IOB1", "IOB2", "BIOES", "BILOU"])
def test_entities_survive(tmp_path, monkeypatch, scheme, kind):
    rows = random_rows(scheme, COUNT, seed=len(scheme + kind), with_text=scheme in ("IOB1", "BIOES"))
    data = load(tmp_path, rows, kind)
    assert data.tag_scheme == scheme
    assert set(data.labels) == {"O", *(f"{prefix}-{name}" for prefix in "BI" for name in ("PER", "LOC", "MISC-x"))}
    expected = [item["entities"] for item in rows]
    assert entities_of_labels(data, rows) == expected

    oracle = Oracle.from_split(data.splits["train"], data.labels, data.tag_scheme)
    texts = [item["text"] for item in rows]
    read = pipeline("token-classification", model=oracle, tokenizer=data.tokenizer, aggregation_strategy="simple", device="cpu")
    assert entities_of(read(texts, batch_size=32)) == expected

    oracle.config.save_pretrained(tmp_path)
    data.tokenizer.save_pretrained(tmp_path)
    monkeypatch.setattr("hf_maskattn.inference.predict.load_verified_model", lambda *args, **settings: oracle)
    assert entities_of(result["predictions"] for result in predict(tmp_path, texts)) == expected

    def run(input_ids, attention_mask):
        return oracle(torch.from_numpy(input_ids), torch.from_numpy(attention_mask)).logits.numpy(), None

    session = SimpleNamespace(run=run, logits_shape=["batch", "time", len(data.labels)])
    monkeypatch.setattr("hf_maskattn.onnx.runtime.OnnxSession", lambda path: session)
    results = predict(tmp_path, texts[:50], onnx_file=tmp_path / "model.onnx")
    assert entities_of(result["predictions"] for result in results) == expected[:50]
