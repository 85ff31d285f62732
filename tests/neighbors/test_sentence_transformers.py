"""sentence-transformers: text embeddings by our attention pooling, or by the mean of the states."""

import pytest
import torch
from datasets import Dataset

from tests.neighbors.conftest import TEXTS
from tests.quiet_training import QUIET

pytest.importorskip("sentence_transformers")

from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

from tests.tolerances import OUTPUT

POOLER_OUTPUT = {"text": {"method": "forward", "method_output_name": "pooler_output"}}
TEXTS_AND_EMPTY = [*TEXTS, ""]


def build_attention_pooling(folder):
    return [Transformer(str(folder), modality_config=POOLER_OUTPUT, module_output_name="sentence_embedding")]


def build_mean_pooling(folder):
    return [Transformer(str(folder)), Pooling(8, pooling_mode="mean")]


def embed_single(model, tokenizer, text, modules):
    """The embedding of a text without padding."""
    encoded = tokenizer(text, return_tensors="pt")
    outputs = model(**encoded)
    if modules is build_attention_pooling:
        return outputs.pooler_output[0]
    return outputs.last_hidden_state[0].sum(dim=0) / max(1, encoded["input_ids"].shape[1])


@pytest.mark.parametrize("implementation", ["eager", "ragged", "chunked"])
@pytest.mark.parametrize("modules", [build_attention_pooling, build_mean_pooling])
def test_embeddings_do_not_depend_on_the_batch(saved, tokenizer, modules, implementation):
    model, folder = saved("MaskAttnModel", attention_implementation=implementation)
    encoder = SentenceTransformer(modules=modules(folder), device="cpu")
    embeddings = encoder.encode(TEXTS_AND_EMPTY, batch_size=4, convert_to_tensor=True)
    with torch.no_grad():
        expected = torch.stack([embed_single(model, tokenizer, text, modules) for text in TEXTS_AND_EMPTY])
    assert expected[:-1].abs().amax(dim=1).min() > 1e-3
    torch.testing.assert_close(embeddings, expected, atol=OUTPUT, rtol=0)


def test_model_folder_loads_with_mean_pooling(saved):
    _, folder = saved("MaskAttnModel")
    expected, loaded = SentenceTransformer(modules=build_mean_pooling(folder)), SentenceTransformer(str(folder))
    assert torch.equal(loaded.encode(TEXTS, convert_to_tensor=True), expected.encode(TEXTS, convert_to_tensor=True))


def test_saved_encoder_loads_equal_and_has_the_code(saved, tmp_path):
    _, folder = saved("MaskAttnModel")
    encoder = SentenceTransformer(modules=build_attention_pooling(folder), device="cpu")
    encoder.save(str(tmp_path / "encoder"))
    assert (tmp_path / "encoder" / "modeling_maskattn.py").is_file()
    loaded = SentenceTransformer(str(tmp_path / "encoder"), device="cpu")
    assert torch.equal(loaded.encode(TEXTS, convert_to_tensor=True), encoder.encode(TEXTS, convert_to_tensor=True))


@pytest.mark.slow
def test_trainer_reduces_the_loss_of_pairs(saved, tmp_path):
    _, folder = saved("MaskAttnModel")
    encoder = SentenceTransformer(modules=build_attention_pooling(folder), device="cpu")
    pairs = Dataset.from_dict({"anchor": TEXTS, "positive": [text.upper() for text in TEXTS]})
    arguments = SentenceTransformerTrainingArguments(
        str(tmp_path / "run"),
        max_steps=20,
        per_device_train_batch_size=len(TEXTS),
        learning_rate=0.05,
        logging_steps=1,
        **QUIET,
    )
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    loss = MultipleNegativesRankingLoss(encoder)
    trainer = SentenceTransformerTrainer(encoder, arguments, pairs, loss=loss)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.7 * losses[0]
    assert all(not torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
