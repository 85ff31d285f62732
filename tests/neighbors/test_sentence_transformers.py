"""sentence-transformers: a vector for a text from our own attention, or from the mean over the states of its tokens."""

import pytest
import torch
from datasets import Dataset

from tests.neighbors.conftest import TEXTS

pytest.importorskip("sentence_transformers")

from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

from tests.tolerances import OUTPUT

OF_POOLER = {"text": {"method": "forward", "method_output_name": "pooler_output"}}
WITH_EMPTY = [*TEXTS, ""]


def with_our_attention(folder):
    return [Transformer(str(folder), modality_config=OF_POOLER, module_output_name="sentence_embedding")]


def with_mean_of_states(folder):
    return [Transformer(str(folder)), Pooling(8, pooling_mode="mean")]


def by_hand(model, tokenizer, text, modules):
    """What the model says of a text alone, without padding."""
    encoded = tokenizer(text, return_tensors="pt")
    outputs = model(**encoded)
    if modules is with_our_attention:
        return outputs.pooler_output[0]
    return outputs.last_hidden_state[0].sum(dim=0) / max(1, encoded["input_ids"].shape[1])


@pytest.mark.parametrize("implementation", ["eager", "ragged", "chunked"])
@pytest.mark.parametrize("modules", [with_our_attention, with_mean_of_states])
def test_embeddings_are_those_of_the_model_in_batches_and_alone(saved, tokenizer, modules, implementation):
    model, folder = saved("MaskAttnModel", attention_implementation=implementation)
    encoder = SentenceTransformer(modules=modules(folder), device="cpu")
    found = encoder.encode(WITH_EMPTY, batch_size=4, convert_to_tensor=True)
    with torch.no_grad():
        expected = torch.stack([by_hand(model, tokenizer, text, modules) for text in WITH_EMPTY])
    assert expected[:-1].abs().amax(dim=1).min() > 1e-3
    torch.testing.assert_close(found, expected, atol=OUTPUT, rtol=0)


def test_a_folder_of_ours_is_taken_as_it_is(saved):
    _, folder = saved("MaskAttnModel")
    made, found = SentenceTransformer(modules=with_mean_of_states(folder)), SentenceTransformer(str(folder))
    assert torch.equal(found.encode(TEXTS, convert_to_tensor=True), made.encode(TEXTS, convert_to_tensor=True))


def test_a_saved_encoder_loads_equal_and_carries_the_code(saved, tmp_path):
    _, folder = saved("MaskAttnModel")
    encoder = SentenceTransformer(modules=with_our_attention(folder), device="cpu")
    encoder.save(str(tmp_path / "encoder"))
    assert (tmp_path / "encoder" / "modeling_maskattn.py").is_file()
    again = SentenceTransformer(str(tmp_path / "encoder"), device="cpu")
    assert torch.equal(again.encode(TEXTS, convert_to_tensor=True), encoder.encode(TEXTS, convert_to_tensor=True))


def test_its_trainer_brings_pairs_together(saved, tmp_path):
    _, folder = saved("MaskAttnModel")
    encoder = SentenceTransformer(modules=with_our_attention(folder), device="cpu")
    pairs = Dataset.from_dict({"anchor": TEXTS, "positive": [text.upper() for text in TEXTS]})
    arguments = SentenceTransformerTrainingArguments(
        str(tmp_path / "run"),
        max_steps=20,
        per_device_train_batch_size=len(TEXTS),
        learning_rate=0.05,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        use_cpu=True,
    )
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    loss = MultipleNegativesRankingLoss(encoder)
    trainer = SentenceTransformerTrainer(encoder, arguments, pairs, loss=loss)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.7 * losses[0]
    assert all(not torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
