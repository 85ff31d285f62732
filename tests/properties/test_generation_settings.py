"""Each setting of `generate()` has the same result as row by row without padding and state, or raises with its name."""

import itertools

import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration, CompileConfig, GenerationConfig

from hf_maskattn.data.tokenizers import train_tokenizer
from hf_maskattn.model.generation import UNSUPPORTED
from tests.properties.generation_cases import CASES, EOS, FORMS, IDS, MASK, SEARCHES, SOURCE, case_id, decided_model, generate
from tests.tolerances import LOG_PROBABILITY

OTHER_TESTS = {
    # tests/properties/test_generation.py
    *("return_dict_in_generate", "output_scores", "output_logits", "output_attentions", "output_hidden_states"),
    *("max_new_tokens", "do_sample", "use_cache", "stop_strings"),  # in all cases, or below
}
MOVED_TO_HUB = {"num_beam_groups", "diversity_penalty", "constraints", "force_words_ids"}
ASSISTANT_SETTINGS = {
    "num_assistant_tokens": 7,
    "num_assistant_tokens_schedule": "heuristic",
    "assistant_confidence_threshold": 0.9,
    "max_matching_ngram_size": 3,
    "assistant_lookbehind": 3,
    "target_lookbehind": 3,
    "assistant_ensemble_weight": 0.5,
}
UNUSED = {"low_memory", "continuous_batching_config", "transformers_version"}  # not read by generate()


@pytest.fixture(params=FORMS)
def model(request, tiny_rnnsearch_config):
    return decided_model(tiny_rnnsearch_config(**FORMS[request.param]))


@pytest.fixture
def one_model(tiny_rnnsearch_config):
    return decided_model(tiny_rnnsearch_config())


def test_every_setting_has_a_case():
    covered = {name for case in CASES for name in case}
    known = covered | UNSUPPORTED.keys() | OTHER_TESTS | MOVED_TO_HUB | ASSISTANT_SETTINGS.keys() | UNUSED
    assert {name for name in vars(GenerationConfig()) if not name.startswith("_")} <= known


@pytest.mark.parametrize(("arguments", "form"), list(zip(CASES, itertools.cycle(FORMS), strict=False)), ids=case_id)
def test_use_cache_changes_no_token(tiny_rnnsearch_config, arguments, form):
    model = decided_model(tiny_rnnsearch_config(**FORMS[form]))
    results = [generate(model, use_cache, **SOURCE, **arguments) for use_cache in (True, False)]
    assert torch.equal(*results)
    assert len(results[0]) == len(MASK) * arguments.get("num_return_sequences", 1)


@pytest.mark.parametrize("arguments", CASES, ids=case_id)
def test_padding_changes_no_token(one_model, arguments):
    random_padding = torch.tensor([10**6, -100, 7, 0, 38, 2])
    for row, mask in zip(IDS[1:], MASK[1:], strict=True):
        single = generate(one_model, input_ids=row[mask.bool()][None], **arguments)
        padded = torch.where(mask == 1, row, random_padding)[None]
        assert torch.equal(generate(one_model, input_ids=padded, attention_mask=mask[None], **arguments), single)


@pytest.mark.parametrize("arguments", SEARCHES, ids=case_id)
def test_batch_matches_single_rows(one_model, arguments):
    count = arguments.get("num_return_sequences", 1)
    batched = generate(one_model, input_ids=torch.where(MASK == 1, IDS, 99), attention_mask=MASK, **arguments)
    fillers = {arguments.get("pad_token_id", 0), EOS}
    for row, is_token in enumerate(MASK.bool()):
        single = generate(one_model, input_ids=IDS[row : row + 1, is_token], **arguments)
        actual = batched[row * count : (row + 1) * count]
        assert torch.equal(actual[:, : single.shape[1]], single)
        assert set(actual[:, single.shape[1] :].flatten().tolist()) <= fillers


WITHOUT_EFFECT = {"renormalize_logits", "max_time", "length_penalty"}


@pytest.mark.parametrize("arguments", [case for case in SEARCHES[1:] if not WITHOUT_EFFECT & case.keys()], ids=case_id)
def test_each_case_changes_tokens(one_model, arguments):
    plain = {name: value for name, value in arguments.items() if name == "num_beams"}
    assert generate(one_model, **SOURCE, **arguments).tolist() != generate(one_model, **SOURCE, **plain).tolist()


def next_scores(model, source, ids):
    """Score the next token of one row, `[V]`, from the whole target."""
    return model(source, decoder_input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].log_softmax(dim=-1)


@torch.no_grad()
def test_source_settings_read_tokens_only(model):
    doubled = IDS[:, [0, 0, 2, 2, 5, 5]]
    source = {"input_ids": torch.where(MASK == 1, doubled, 9), "attention_mask": MASK}
    with_penalty = generate(model, **source, encoder_repetition_penalty=9.0)
    actual = generate(model, **source, encoder_repetition_penalty=9.0, encoder_no_repeat_ngram_size=2)
    assert with_penalty.tolist() != actual.tolist()
    for row, ids in enumerate(doubled):
        ids = ids[MASK[row].bool()].tolist()
        pairs = set(itertools.pairwise(ids))
        tokens = [1]
        while tokens[-1] != EOS and len(tokens) < 9:
            scores = model(torch.tensor([ids]), decoder_input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]
            for token in set(ids):
                scores[token] = scores[token] / 9 if scores[token] < 0 else scores[token] * 9
                if (tokens[-1], token) in pairs:
                    scores[token] = -torch.inf
            tokens.append(int(scores.argmax()))
        assert actual[row, : len(tokens)].tolist() == tokens


@pytest.mark.parametrize(("length_penalty", "early_stopping"), [(0.0, False), (1.0, False), (-1.5, "never"), (2.0, "never")])
@torch.no_grad()
def test_wide_beam_returns_best_target(one_model, length_penalty, early_stopping):
    allowed = [EOS, 10, 11, 30]
    actual = generate(
        one_model,
        **SOURCE,
        max_new_tokens=3,
        num_beams=48,
        prefix_allowed_tokens_fn=lambda row, ids: allowed,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
        return_dict_in_generate=True,
        output_scores=True,
    )
    for row, ids in enumerate(IDS):
        source = ids[MASK[row].bool()][None]
        finished = {}
        unfinished = {(1,): 0.0}
        for length in (1, 2, 3):
            extended = {}
            for target, score in unfinished.items():
                scores = next_scores(one_model, source, target)
                for token in allowed:
                    total = score + float(scores[token])
                    if token == EOS or length == 3:
                        finished[*target, token] = total / length**length_penalty
                    else:
                        extended[*target, token] = total
            unfinished = extended
        best = max(finished, key=finished.get)
        assert actual.sequences[row, : len(best)].tolist() == list(best)
        assert actual.sequences_scores[row].item() == pytest.approx(finished[best], abs=LOG_PROBABILITY)


def unsupported_settings():
    value = {
        "cache_implementation": "dynamic",
        "cache_config": {"backend": "quanto"},
        "compile_config": CompileConfig(),
        "speculation_type": "dflash",
        "use_mtp": True,
        "is_assistant": True,
        "penalty_alpha": 0.6,
        "dola_layers": "low",
        "guidance_scale": 1.5,
        "token_healing": True,
        "assistant_model": torch.nn.Identity(),
        "negative_prompt_ids": IDS,
        "negative_prompt_attention_mask": MASK,
    }
    return [{name: value.get(name, 2)} for name in UNSUPPORTED]


@pytest.mark.parametrize("more", [{}, {"num_beams": 2}, {"do_sample": True, "use_cache": False}], ids=case_id)
@pytest.mark.parametrize("arguments", unsupported_settings(), ids=lambda arguments: next(iter(arguments)))
def test_unsupported_setting_raises_before_computing(one_model, monkeypatch, arguments, more):
    (name,) = arguments
    first_module = one_model.rnnsearch.decoder if name.startswith("negative") else one_model.rnnsearch.encoder
    monkeypatch.setattr(first_module, "forward", lambda *args, **kwargs: pytest.fail("forward was called"))
    with pytest.raises(ValueError, match=rf"^{name}(=\S+)? is not supported, because .* Remove it"):
        generate(one_model, **SOURCE, **arguments, **more)


def test_unsupported_setting_of_generation_config_raises(one_model):
    one_model.generation_config.prompt_lookup_num_tokens = 3
    with pytest.raises(ValueError, match="prompt_lookup_num_tokens=3 is not supported, because it proposes tokens"):
        generate(one_model, **SOURCE)


def test_model_cannot_assist_other_models(one_model):
    sizes = dict.fromkeys(("encoder_layers", "decoder_layers", "encoder_attention_heads", "decoder_attention_heads"), 1)
    config = BartConfig(vocab_size=40, d_model=4, encoder_ffn_dim=4, decoder_ffn_dim=4, max_position_embeddings=20, **sizes)
    other = BartForConditionalGeneration(config).eval()
    message = "is_assistant=True is not supported, because it proposes tokens of which some are taken back"
    with pytest.raises(ValueError, match=message):
        other.generate(IDS[:1], max_new_tokens=4, assistant_model=one_model)


@pytest.mark.parametrize(
    "arguments",
    [{"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0}, {"num_beams": 2, "force_words_ids": [[5]]}],
    ids=str,
)
def test_searches_moved_to_the_hub_raise(one_model, arguments):
    with pytest.raises(ValueError, match=r"(Group|Constrained) Beam Search requires `trust_remote_code=True`"):
        generate(one_model, **SOURCE, **arguments)


def test_assistant_settings_without_assistant(one_model):
    assert torch.equal(generate(one_model, **SOURCE, **ASSISTANT_SETTINGS), generate(one_model, **SOURCE))


def test_streamer_with_beams_raises(one_model):
    for do_sample in (False, True):
        with pytest.raises(ValueError, match=r"num_beams must be 1 with a streamer, got 2, .* Set num_beams=1"):
            generate(one_model, **SOURCE, num_beams=2, do_sample=do_sample, streamer=object())


@pytest.mark.parametrize("name", ["encoder_repetition_penalty", "encoder_no_repeat_ngram_size"])
def test_source_settings_require_one_vocabulary(tiny_rnnsearch_config, one_model, name):
    value = {name: 2 if name.endswith("size") else 2.0}
    with pytest.raises(ValueError, match=f"{name} needs input_ids, because it compares tokens with those of the source"):
        generate(one_model, inputs_embeds=torch.zeros(1, 2, 6), **value)
    two_vocabularies = decided_model(tiny_rnnsearch_config(share_embeddings=False, source_vocab_size=40))
    with pytest.raises(ValueError, match=f"{name} is not supported with source_vocab_size=40, because it compares tokens"):
        generate(two_vocabularies, **SOURCE, **value)


def test_stop_strings(one_model):
    tokenizer = train_tokenizer(["abcdefghijklmnopqrstuvwxyzABCDEFGHIJ"], kind="char", vocab_size=40, max_length=9)
    free = generate(one_model, **SOURCE, suppress_tokens=[EOS])
    string = tokenizer.decode(free[0, 3:5])
    stopped = generate(one_model, **SOURCE, suppress_tokens=[EOS], stop_strings=[string], tokenizer=tokenizer)
    for row, expected in zip(stopped.tolist(), free.tolist(), strict=True):
        end = next((i for i in range(2, 9) if tokenizer.decode(expected[1 : i + 1]).endswith(string)), 8)
        assert row[: end + 1] == expected[: end + 1]
        assert not any(row[end + 1 :])


def test_max_time(one_model):
    assert generate(one_model, **SOURCE, max_time=1e-9).shape[1] == 2


def test_start_token_for_each_row(one_model):
    starts = [1, 4, 5, 1]
    batched = generate(one_model, **SOURCE, decoder_start_token_id=starts, min_new_tokens=8, num_beams=2)
    for row, start in enumerate(starts):
        one = {name: tensor[row : row + 1] for name, tensor in SOURCE.items()}
        single = generate(one_model, **one, decoder_start_token_id=start, min_new_tokens=8, num_beams=2)
        assert torch.equal(batched[row : row + 1], single)


def test_custom_generate(one_model):
    def loop(model, input_ids, logits_processor, **settings):
        del settings["stopping_criteria"], settings["generation_config"]
        for _ in range(8):
            step = model(**model.prepare_inputs_for_generation(input_ids, **{**settings, "use_cache": False}))
            token = logits_processor(input_ids, step.logits[:, -1]).argmax(dim=-1, keepdim=True)
            input_ids = torch.cat([input_ids, token], dim=1)
        return input_ids

    assert torch.equal(
        generate(one_model, **SOURCE, suppress_tokens=[EOS], custom_generate=loop),
        generate(one_model, **SOURCE, suppress_tokens=[EOS]),
    )


def test_synced_gpus(one_model):
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        for arguments in ({}, {"num_beams": 2}):
            synced = generate(one_model, **SOURCE, synced_gpus=True, **arguments)
            assert torch.equal(synced, generate(one_model, **SOURCE, **arguments))
    finally:
        torch.distributed.destroy_process_group()


def test_generate_without_input_starts_from_bos(one_model):
    assert torch.equal(generate(one_model), generate(one_model, input_ids=torch.tensor([[1]])))


PROMPTS = {"with start": [[1, 7, 8], [1, 7], [1]], "without start": [[7, 8, 9], [8], [9, 9]], "mixed": [[7, 8, 9], [1], [1, 9]]}


@pytest.mark.parametrize("arguments", [{"num_beams": 2}, {"repetition_penalty": 5.0}], ids=case_id)
@pytest.mark.parametrize("padding", [1, 10**6])
@pytest.mark.parametrize("prompts", PROMPTS.values(), ids=PROMPTS)
def test_padded_prompts_have_one_start_token(model, prompts, padding, arguments):
    ids = torch.tensor([[padding] * (5 - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (5 - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    arguments = {"min_new_tokens": 5, "max_new_tokens": 5, **arguments}
    source = {name: tensor[:3] for name, tensor in SOURCE.items()}
    batched = generate(model, **source, decoder_input_ids=ids, decoder_attention_mask=mask, **arguments)
    for row, prompt in enumerate(prompts):
        one = {name: tensor[row : row + 1] for name, tensor in SOURCE.items()}
        single = generate(model, **one, decoder_input_ids=torch.tensor([prompt]), **arguments)
        assert batched[row, -5:].tolist() == single[0, -5:].tolist()
        assert single[0, 0] == 1


@pytest.mark.parametrize("prompt", [[[1, 7], [1, 9]], [[7, 9], [1, 9]], [[7, 1], [9, 1]]], ids=case_id)
def test_prompts_with_and_without_start_token(model, prompt):
    arguments = {"min_new_tokens": 4, "max_new_tokens": 4}
    source = {name: tensor[:2] for name, tensor in SOURCE.items()}
    batched = generate(model, **source, decoder_input_ids=torch.tensor(prompt), **arguments)
    for row in range(2):
        one = {name: tensor[row : row + 1] for name, tensor in SOURCE.items()}
        single = generate(model, **one, decoder_input_ids=torch.tensor(prompt[row : row + 1]), **arguments)
        assert batched[row, -4:].tolist() == single[0, -4:].tolist()
