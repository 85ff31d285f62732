import pytest
import torch
from accelerate import cpu_offload
from safetensors.torch import load_file

from hf_maskattn import RNNSearchForConditionalGeneration
from hf_maskattn.model.generation import CACHE_NAME
from tests.masks import MASK_KINDS, ragged_mask
from tests.rnnsearch_reference import ReferenceRNNSearch, run_reference
from tests.tolerances import GRADIENT, OUTPUT, assert_near

FORMS = [
    {},
    {"rnn_type": "lstm", "decoder_layers": 2, "num_attention_heads": 2, "output_layer": "linear"},
    {"attention_query": "current", "decoder_layers": 2, "encoder_layers": 2},
    {"attention_query": "current", "rnn_type": "lstm", "share_embeddings": False, "source_vocab_size": 30},
    {"attention_query": "current", "input_feeding": True, "num_attention_heads": 2, "tie_word_embeddings": False},
    {"attention_query": "current", "input_feeding": True, "rnn_type": "lstm", "decoder_layers": 2, "output_size": None},
]


@pytest.mark.parametrize("mask_kind", MASK_KINDS)
@pytest.mark.parametrize("implementation", ["eager", "ragged", "chunked"])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_model_matches_single_row_reference(tiny_rnnsearch_config, form, implementation, mask_kind):
    config = tiny_rnnsearch_config(attention_implementation=implementation, **form)
    model = RNNSearchForConditionalGeneration(config).train()
    reference = ReferenceRNNSearch(model)
    mask, target_mask = ragged_mask(4, 6, mask_kind), ragged_mask(4, 5, mask_kind)
    source, target = torch.randint(3, 30, mask.shape), torch.randint(3, 30, target_mask.shape)

    outputs = model(source, mask, target, target_mask, output_attentions=True, output_hidden_states=True, use_cache=False)
    logits = torch.where(target_mask[..., None], outputs.logits, 0)
    actual = (logits, outputs.cross_attentions[0], *outputs.decoder_hidden_states[1:])
    scores, weights, states = run_reference(reference, source, mask, target, target_mask)
    expected = (scores, weights, *states)
    for one, other in zip(actual, expected, strict=True):
        assert_near(one, other, OUTPUT)

    directions = [torch.randn_like(tensor) for tensor in expected]
    sum((tensor * d).sum() for tensor, d in zip(actual, directions, strict=True)).backward()
    sum((tensor * d).sum() for tensor, d in zip(expected, directions, strict=True)).backward()
    gradients = reference.gradients()
    for name, parameter in model.named_parameters():
        assert_near(parameter.grad, gradients[name], GRADIENT, name)


IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
LABELS = torch.tensor([[11, 12, 2], [13, 2, -100]])
DECODER_IDS = torch.tensor([[1, 11, 12], [1, 13, 2]])


def build(tiny_rnnsearch_config, **changes):
    return RNNSearchForConditionalGeneration(tiny_rnnsearch_config(**changes)).eval()


@pytest.mark.parametrize("changes", [{}, {"rnn_type": "lstm", "attention_query": "current"}], ids=str)
def test_output_shapes(tiny_rnnsearch_config, changes):
    model = build(tiny_rnnsearch_config, encoder_layers=2, decoder_layers=3, num_attention_heads=2, **changes)
    outputs = model(IDS, MASK, labels=LABELS, output_attentions=True, output_hidden_states=True)
    assert outputs.logits.shape == (2, 3, 40)
    assert [tuple(h.shape) for h in outputs.encoder_hidden_states] == [(2, 4, 6), (2, 4, 8), (2, 4, 8)]
    assert torch.equal(outputs.encoder_hidden_states[-1], outputs.encoder_last_hidden_state)
    assert [tuple(h.shape) for h in outputs.decoder_hidden_states] == [(2, 3, 6), *[(2, 3, 10)] * 3]
    assert [tuple(w.shape) for w in outputs.cross_attentions] == [(2, 2, 3, 4)]
    assert all(not h[MASK == 0].any() for h in outputs.encoder_hidden_states)
    assert all(not h[LABELS == -100].any() for h in outputs.decoder_hidden_states)
    assert outputs.get(CACHE_NAME) is None
    base = model.rnnsearch(IDS, MASK, DECODER_IDS)
    assert base.last_hidden_state.shape == (2, 3, 6)
    assert base[CACHE_NAME].get_seq_length() == 3


def test_input_forms_have_same_outputs(tiny_rnnsearch_config):
    model = build(tiny_rnnsearch_config)
    expected = model(IDS, MASK, DECODER_IDS).logits
    embed, embed_target = model.get_input_embeddings(), model.rnnsearch.get_target_embeddings()
    assert torch.equal(model(inputs_embeds=embed(IDS), attention_mask=MASK, decoder_input_ids=DECODER_IDS).logits, expected)
    assert torch.equal(model(IDS, MASK, decoder_inputs_embeds=embed_target(DECODER_IDS)).logits, expected)
    encoded = model.get_encoder()(IDS, MASK)
    for outputs in (encoded, encoded.to_tuple(), [*encoded.to_tuple()]):
        actual = model(encoder_outputs=outputs, attention_mask=MASK, decoder_input_ids=DECODER_IDS).logits
        assert torch.equal(actual, expected)
    as_tuple = model(IDS, MASK, labels=LABELS, return_dict=False)
    assert isinstance(as_tuple, tuple)
    assert as_tuple[0].dim() == 0
    model.config.return_dict = False
    assert isinstance(model(IDS, MASK, DECODER_IDS), tuple)
    assert model.get_decoder() is model.rnnsearch.decoder


def test_config_requests_outputs_and_cache(tiny_rnnsearch_config):
    model = build(tiny_rnnsearch_config, output_attentions=True, output_hidden_states=True, use_cache=False)
    outputs = model(IDS, MASK, DECODER_IDS)
    assert len(outputs.cross_attentions) == 1
    assert len(outputs.decoder_hidden_states) == len(outputs.encoder_hidden_states) == 2
    assert outputs.get(CACHE_NAME) is None
    assert model(IDS, MASK, DECODER_IDS, use_cache=True).get(CACHE_NAME) is not None


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_state_is_accepted_under_both_names(tiny_rnnsearch_config, name):
    model = build(tiny_rnnsearch_config)
    complete = model(IDS, MASK, DECODER_IDS).logits
    state = model(IDS, MASK, DECODER_IDS[:, :1])[CACHE_NAME]
    for mask in (None, torch.ones(2, 2), torch.ones(2, 3)):
        actual = model(decoder_input_ids=DECODER_IDS[:, 1:], decoder_attention_mask=mask, **{name: state})
        torch.testing.assert_close(actual.logits, complete[:, 1:], atol=OUTPUT, rtol=0)
        assert actual[CACHE_NAME].get_seq_length() == 3


def test_decoder_input_ids_are_shifted_labels(tiny_rnnsearch_config):
    model = build(tiny_rnnsearch_config)
    assert torch.equal(model.prepare_decoder_input_ids_from_labels(LABELS), DECODER_IDS)
    left = torch.tensor([[11, 12, 2], [-100, 13, 2], [-100, -100, -100]])
    assert model.prepare_decoder_input_ids_from_labels(left).tolist() == [[1, 11, 12], [0, 1, 13], [1, 0, 0]]


def test_loss_of_next_tokens_is_shifted_once(tiny_rnnsearch_config):
    model = build(tiny_rnnsearch_config)
    logits = model(IDS, MASK, DECODER_IDS).logits
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), LABELS.flatten())
    torch.testing.assert_close(model(IDS, MASK, labels=LABELS).loss, expected)
    torch.testing.assert_close(model(IDS, MASK, DECODER_IDS, labels=LABELS).loss, expected)
    torch.testing.assert_close(model(IDS, MASK, labels=LABELS, num_items_in_batch=20).loss, expected * 5 / 20)
    nothing = torch.full_like(LABELS, -100)
    assert model(IDS, MASK, labels=nothing).loss == 0


def test_loss_does_not_depend_on_label_padding(tiny_rnnsearch_config):
    model = build(tiny_rnnsearch_config)
    expected = model(IDS, MASK, labels=LABELS).loss
    left = torch.tensor([[11, 12, 2], [-100, 13, 2]])
    for labels in (
        left,
        torch.nn.functional.pad(LABELS, (0, 5), value=-100),
        torch.nn.functional.pad(left, (3, 2), value=-100),
    ):
        torch.testing.assert_close(model(IDS, MASK, labels=labels).loss, expected)
        given = model.prepare_decoder_input_ids_from_labels(labels)  # as a collator does
        torch.testing.assert_close(model(IDS, MASK, given, labels=labels).loss, expected)


def test_target_token_without_label_is_read(tiny_rnnsearch_config):
    model = build(tiny_rnnsearch_config)
    prompt = torch.tensor([[-100, 12, 2], [-100, 2, -100]])
    outputs = model(IDS, MASK, DECODER_IDS, labels=prompt)
    logits = model(IDS, MASK, DECODER_IDS).logits
    torch.testing.assert_close(outputs.loss, torch.nn.functional.cross_entropy(logits.flatten(0, 1), prompt.flatten()))


def test_tied_output_embeddings(tiny_rnnsearch_config, tmp_path):
    tied = build(tiny_rnnsearch_config)
    assert tied.lm_head.weight is tied.get_input_embeddings().weight
    apart = build(tiny_rnnsearch_config, share_embeddings=False, source_vocab_size=20)
    assert apart.lm_head.weight is apart.rnnsearch.target_embeddings.weight
    assert apart.get_input_embeddings().num_embeddings == 20
    assert build(tiny_rnnsearch_config, tie_word_embeddings=False, output_size=5).lm_head.weight.shape == (40, 5)
    for model in (tied, apart):
        model.save_pretrained(tmp_path)
        assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
        again = RNNSearchForConditionalGeneration.from_pretrained(tmp_path)
        torch.testing.assert_close(again(IDS % 20, MASK, DECODER_IDS).logits, model(IDS % 20, MASK, DECODER_IDS).logits)


def test_resize_token_embeddings(tiny_rnnsearch_config):
    model = build(tiny_rnnsearch_config)
    model.resize_token_embeddings(50)
    assert model.config.vocab_size == 50
    assert model(torch.full((1, 2), 49), decoder_input_ids=torch.full((1, 1), 49)).logits.shape[-1] == 50
    assert model.lm_head.weight is model.get_input_embeddings().weight
    apart = build(tiny_rnnsearch_config, share_embeddings=False)
    message = "share_embeddings must be True for resize_token_embeddings, which resizes one vocabulary, got False"
    with pytest.raises(ValueError, match=message):
        apart.resize_token_embeddings(50)


def test_resized_model_with_source_vocab_size_is_saved(tiny_rnnsearch_config, tmp_path):
    model = build(tiny_rnnsearch_config, source_vocab_size=40)
    model.resize_token_embeddings(50)
    model.save_pretrained(tmp_path)
    again = RNNSearchForConditionalGeneration.from_pretrained(tmp_path)
    assert again.get_input_embeddings().num_embeddings == again.config.vocab_size == 50
    assert again.config.source_vocab_size is None


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"decoder_input_ids": DECODER_IDS}, "Exactly one of `input_ids` and `inputs_embeds` must be given, got neither."),
        ({"input_ids": IDS}, "one of `decoder_input_ids` and `decoder_inputs_embeds` must be given, got neither."),
        (
            {"input_ids": IDS, "decoder_input_ids": DECODER_IDS[0]},
            r"`decoder_input_ids` must have shape \[batch, time\], got \[3\].",
        ),
        (
            {"input_ids": IDS, "decoder_inputs_embeds": torch.randn(2, 3, 5)},
            "`decoder_inputs_embeds` must have width embedding_size=6, got 5.",
        ),
        (
            {"input_ids": IDS, "decoder_input_ids": DECODER_IDS + 38},
            r"`decoder_input_ids` must be in \[0, 39\], the ids of the vocabulary, got 49.",
        ),
        (
            {"input_ids": IDS + 38, "decoder_input_ids": DECODER_IDS},
            r"`input_ids` must be in \[0, 39\], the ids of the vocabulary, got 43.",
        ),
        ({"input_ids": IDS, "decoder_input_ids": DECODER_IDS[:, :0]}, "The target must have at least one column, got none."),
        (
            {"input_ids": IDS, "attention_mask": MASK[:, :3], "labels": LABELS},
            r"`attention_mask` must have shape \[2, 4\] as the inputs, got \[2, 3\].",
        ),
        (
            {"input_ids": IDS, "decoder_input_ids": DECODER_IDS, "decoder_attention_mask": torch.ones(2, 5)},
            r"`attention_mask` must have shape \[2, 3\] as the inputs, got \[2, 5\].",
        ),
        (
            {"input_ids": IDS, "labels": LABELS[0]},
            r"`labels` must have shape \[batch, time\] with at least the end token, got \[3\].",
        ),
        ({"input_ids": IDS, "labels": LABELS[:, :0]}, r"with at least the end token, got \[2, 0\]."),
        (
            {"input_ids": IDS, "decoder_input_ids": DECODER_IDS, "labels": LABELS[:, :2]},
            r"`labels` must have shape \[2, 3\], got \[2, 2\].",
        ),
        (
            {"input_ids": IDS, "decoder_input_ids": DECODER_IDS, "labels": LABELS + 28},
            r"`labels` must be in \[0, 39\], the classes of the model, .* got 40.",
        ),
        ({"input_ids": IDS[:1], "decoder_input_ids": DECODER_IDS}, "must have the same number of rows, got 1 and 2."),
    ],
)
def test_model_rejects_bad_inputs(tiny_rnnsearch_config, inputs, message):
    with pytest.raises(ValueError, match=message):
        build(tiny_rnnsearch_config)(**inputs)


@pytest.mark.parametrize("name", ["decoder_start_token_id", "pad_token_id"])
def test_labels_require_special_token_ids(tiny_rnnsearch_config, name):
    model = build(tiny_rnnsearch_config, **{name: None})
    message = rf"config\.{name} must be an id of the tokenizer to derive targets from labels, got None\."
    with pytest.raises(ValueError, match=message):
        model(IDS, MASK, labels=LABELS)


def test_labels_longer_than_max_target_length_raise(tiny_rnnsearch_config):
    model = build(tiny_rnnsearch_config, max_target_length=2)
    message = r"at most config\.max_target_length=2 columns, got 3\. .*truncation=True, max_length=2"
    with pytest.raises(ValueError, match=message):
        model(IDS, MASK, labels=LABELS)
    within = LABELS[:, :2]
    expected = model(IDS, MASK, labels=within).loss
    padded = torch.nn.functional.pad(within, (0, 4), value=-100)
    torch.testing.assert_close(model(IDS, MASK, labels=padded).loss, expected)


# Before 5.20, transformers warns that the weights are not on the device of the ids.
@pytest.mark.filterwarnings("ignore:You are calling .generate:UserWarning")
@pytest.mark.parametrize("changes", [{}, {"attention_query": "current", "decoder_layers": 2}], ids=str)
def test_cpu_offload(tiny_rnnsearch_config, changes):
    model = build(tiny_rnnsearch_config, **changes)
    expected = model(IDS, MASK, labels=LABELS).logits
    sequences = model.generate(IDS, attention_mask=MASK, max_new_tokens=4)
    cpu_offload(model, execution_device=torch.device("cpu"))
    assert all(parameter.is_meta for parameter in model.rnnsearch.decoder.parameters())
    torch.testing.assert_close(model(IDS, MASK, labels=LABELS).logits, expected, atol=OUTPUT, rtol=0)
    assert torch.equal(model.generate(IDS, attention_mask=MASK, max_new_tokens=4), sequences)


def test_unknown_ids_raise_with_offloaded_embeddings(tiny_rnnsearch_config):
    model = build(tiny_rnnsearch_config)
    cpu_offload(model.rnnsearch.encoder.word_embeddings, execution_device=torch.device("meta"))
    with pytest.raises(ValueError, match=r"`input_ids` must be in \[0, 39\], the ids of the vocabulary, got 43\."):
        model(IDS + 38, MASK, DECODER_IDS)


def test_index_error_of_hook_is_raised(tiny_rnnsearch_config):
    model = build(tiny_rnnsearch_config)
    model.rnnsearch.encoder.word_embeddings.register_forward_hook(lambda *_: [][0])
    with pytest.raises(IndexError, match="list index out of range"):
        model(IDS, MASK, DECODER_IDS)


def test_dropout_in_training_only(tiny_rnnsearch_config):
    model = build(
        tiny_rnnsearch_config, hidden_dropout_prob=0.5, embedding_dropout_prob=0.5, attention_dropout_prob=0.5, decoder_layers=2
    )
    assert torch.equal(*(model(IDS, MASK, DECODER_IDS).logits for _ in range(2)))
    model.train()
    outputs = [model(IDS, MASK, DECODER_IDS, output_attentions=True) for _ in range(2)]
    assert not torch.equal(*(output.logits for output in outputs))
    torch.testing.assert_close(outputs[0].cross_attentions[0].sum(dim=-1), torch.ones(2, 1, 3))


@pytest.mark.parametrize("attention_query", ["previous", "current"])
@pytest.mark.parametrize("attention_implementation", ["eager", "ragged", "chunked"])
@pytest.mark.parametrize("rnn_type", ["lstm", "gru"])
def test_batch_without_rows(tiny_rnnsearch_config, attention_query, attention_implementation, rnn_type):
    choices = {"attention_query": attention_query, "attention_implementation": attention_implementation, "rnn_type": rnn_type}
    model = RNNSearchForConditionalGeneration(tiny_rnnsearch_config(decoder_layers=2, **choices))
    loss = model(torch.zeros(0, 3, dtype=torch.long), labels=torch.zeros(0, 2, dtype=torch.long)).loss
    loss.backward()
    assert loss == 0
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())
