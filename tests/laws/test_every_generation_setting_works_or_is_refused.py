"""Law: each setting that `generate()` has gives what it gives row by row without padding and state, or is refused by name."""

import itertools

import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration, CompileConfig, GenerationConfig

from hf_maskattn.data.tokenizer_training import train_tokenizer
from hf_maskattn.model.generation_limits import REFUSED
from tests.laws.generation_cases import CASES, EOS, FORMS, IDS, MASK, SEARCHES, SOURCE, decided_model, generate, named
from tests.tolerances import LOG_PROBABILITY

ELSEWHERE = {
    # tests/laws/test_generation_behaves.py
    *("return_dict_in_generate", "output_scores", "output_logits", "output_attentions", "output_hidden_states"),
    *("max_new_tokens", "do_sample", "use_cache", "stop_strings"),  # in all cases, or below
}
MOVED_OUT = {"num_beam_groups", "diversity_penalty", "constraints", "force_words_ids"}
OF_ASSISTANTS = {
    "num_assistant_tokens": 7,
    "num_assistant_tokens_schedule": "heuristic",
    "assistant_confidence_threshold": 0.9,
    "max_matching_ngram_size": 3,
    "assistant_lookbehind": 3,
    "target_lookbehind": 3,
    "assistant_ensemble_weight": 0.5,
}
OF_NOTHING = {"low_memory", "continuous_batching_config", "transformers_version"}  # read by nothing in generate()


@pytest.fixture(params=FORMS)
def model(request, tiny_rnnsearch_config):
    return decided_model(tiny_rnnsearch_config(**FORMS[request.param]))


@pytest.fixture
def one_model(tiny_rnnsearch_config):
    return decided_model(tiny_rnnsearch_config())


def test_every_setting_has_a_case_or_a_reason():
    tried = {name for case in CASES for name in case}
    known = tried | REFUSED.keys() | ELSEWHERE | MOVED_OUT | OF_ASSISTANTS.keys() | OF_NOTHING
    assert {name for name in vars(GenerationConfig()) if not name.startswith("_")} <= known


@pytest.mark.parametrize(("arguments", "form"), list(zip(CASES, itertools.cycle(FORMS), strict=False)), ids=named)
def test_the_state_changes_no_choice(tiny_rnnsearch_config, arguments, form):
    model = decided_model(tiny_rnnsearch_config(**FORMS[form]))
    results = [generate(model, use_cache, **SOURCE, **arguments) for use_cache in (True, False)]
    assert torch.equal(*results)
    assert len(results[0]) == len(MASK) * arguments.get("num_return_sequences", 1)


@pytest.mark.parametrize("arguments", CASES, ids=named)
def test_padding_changes_no_choice(one_model, arguments):
    junk = torch.tensor([10**6, -100, 7, 0, 38, 2])
    for row, mask in zip(IDS[1:], MASK[1:], strict=True):
        alone = generate(one_model, input_ids=row[mask.bool()][None], **arguments)
        padded = torch.where(mask == 1, row, junk)[None]
        assert torch.equal(generate(one_model, input_ids=padded, attention_mask=mask[None], **arguments), alone)


@pytest.mark.parametrize("arguments", SEARCHES, ids=named)
def test_a_batch_gives_what_its_rows_give_alone(one_model, arguments):
    count = arguments.get("num_return_sequences", 1)
    together = generate(one_model, input_ids=torch.where(MASK == 1, IDS, 99), attention_mask=MASK, **arguments)
    fillers = {arguments.get("pad_token_id", 0), EOS}
    for row, real in enumerate(MASK.bool()):
        alone = generate(one_model, input_ids=IDS[row : row + 1, real], **arguments)
        found = together[row * count : (row + 1) * count]
        assert torch.equal(found[:, : alone.shape[1]], alone)
        assert set(found[:, alone.shape[1] :].flatten().tolist()) <= fillers


WITHOUT_DIFFERENCE = {"renormalize_logits", "max_time", "length_penalty"}


@pytest.mark.parametrize("arguments", [case for case in SEARCHES[1:] if not WITHOUT_DIFFERENCE & case.keys()], ids=named)
def test_each_case_makes_a_difference(one_model, arguments):
    plain = {name: value for name, value in arguments.items() if name == "num_beams"}
    assert generate(one_model, **SOURCE, **arguments).tolist() != generate(one_model, **SOURCE, **plain).tolist()


def next_scores(model, source, words):
    """Scores of the next word of one row, the target scored as a whole: [V]."""
    return model(source, decoder_input_ids=torch.tensor([words]), use_cache=False).logits[0, -1].log_softmax(dim=-1)


@torch.no_grad()
def test_what_compares_with_the_source_reads_its_real_tokens(model):
    doubled = IDS[:, [0, 0, 2, 2, 5, 5]]
    source = {"input_ids": torch.where(MASK == 1, doubled, 9), "attention_mask": MASK}
    promoted = generate(model, **source, encoder_repetition_penalty=9.0)
    found = generate(model, **source, encoder_repetition_penalty=9.0, encoder_no_repeat_ngram_size=2)
    assert promoted.tolist() != found.tolist()
    for row, ids in enumerate(doubled):
        ids = ids[MASK[row].bool()].tolist()
        pairs = set(itertools.pairwise(ids))
        words = [1]
        while words[-1] != EOS and len(words) < 9:
            scores = model(torch.tensor([ids]), decoder_input_ids=torch.tensor([words]), use_cache=False).logits[0, -1]
            for word in set(ids):
                scores[word] = scores[word] / 9 if scores[word] < 0 else scores[word] * 9
                if (words[-1], word) in pairs:
                    scores[word] = -torch.inf
            words.append(int(scores.argmax()))
        assert found[row, : len(words)].tolist() == words


@pytest.mark.parametrize(("length_penalty", "early_stopping"), [(0.0, False), (1.0, False), (-1.5, "never"), (2.0, "never")])
@torch.no_grad()
def test_a_wide_beam_finds_the_best_of_all_targets(one_model, length_penalty, early_stopping):
    allowed = [EOS, 10, 11, 30]
    found = generate(
        one_model,
        **SOURCE,
        max_new_tokens=3,
        num_beams=48,
        prefix_allowed_tokens_fn=lambda row, words: allowed,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
        return_dict_in_generate=True,
        output_scores=True,
    )
    for row, ids in enumerate(IDS):
        source = ids[MASK[row].bool()][None]
        scored = {}
        open_targets = {(1,): 0.0}
        for length in (1, 2, 3):
            grown = {}
            for words, score in open_targets.items():
                scores = next_scores(one_model, source, words)
                for word in allowed:
                    into = scored if word == EOS or length == 3 else grown
                    total = score + float(scores[word])
                    into[*words, word] = total / length**length_penalty if into is scored else total
            open_targets = grown
        best = max(scored, key=scored.get)
        assert found.sequences[row, : len(best)].tolist() == list(best)
        assert found.sequences_scores[row].item() == pytest.approx(scored[best], abs=LOG_PROBABILITY)


def refusals():
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
    return [{name: value.get(name, 2)} for name in REFUSED]


@pytest.mark.parametrize("more", [{}, {"num_beams": 2}, {"do_sample": True, "use_cache": False}], ids=named)
@pytest.mark.parametrize("arguments", refusals(), ids=lambda arguments: next(iter(arguments)))
def test_what_has_no_meaning_is_refused_before_anything_is_computed(one_model, monkeypatch, arguments, more):
    (name,) = arguments
    begins_with = one_model.rnnsearch.decoder if name.startswith("negative") else one_model.rnnsearch.encoder
    monkeypatch.setattr(begins_with, "forward", lambda *args, **kwargs: pytest.fail("something was computed"))
    with pytest.raises(ValueError, match=rf"^{name}(=\S+)? \w.*[Ll]eave it out"):
        generate(one_model, **SOURCE, **arguments, **more)


def test_a_setting_of_the_saved_configuration_is_refused_too(one_model):
    one_model.generation_config.prompt_lookup_num_tokens = 3
    with pytest.raises(ValueError, match="prompt_lookup_num_tokens=3 lets words be guessed ahead"):
        generate(one_model, **SOURCE)


def test_it_guesses_for_no_other_model(one_model):
    sizes = dict.fromkeys(("encoder_layers", "decoder_layers", "encoder_attention_heads", "decoder_attention_heads"), 1)
    config = BartConfig(vocab_size=40, d_model=4, encoder_ffn_dim=4, decoder_ffn_dim=4, max_position_embeddings=20, **sizes)
    other = BartForConditionalGeneration(config).eval()
    with pytest.raises(ValueError, match="is_assistant=True lets words be guessed ahead, of which some are taken back"):
        other.generate(IDS[:1], max_new_tokens=4, assistant_model=one_model)


@pytest.mark.parametrize(
    "arguments",
    [{"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0}, {"num_beams": 2, "force_words_ids": [[5]]}],
    ids=str,
)
def test_searches_that_transformers_has_moved_out_are_refused_by_it(one_model, arguments):
    with pytest.raises(ValueError, match=r"(Group|Constrained) Beam Search requires `trust_remote_code=True`"):
        generate(one_model, **SOURCE, **arguments)


def test_settings_that_speak_of_assistants_change_nothing_without_one(one_model):
    assert torch.equal(generate(one_model, **SOURCE, **OF_ASSISTANTS), generate(one_model, **SOURCE))


def test_beams_tell_no_streamer(one_model):
    for do_sample in (False, True):
        with pytest.raises(ValueError, match=r"streamer cannot be told .* \(num_beams=2\): set num_beams=1"):
            generate(one_model, **SOURCE, num_beams=2, do_sample=do_sample, streamer=object())


@pytest.mark.parametrize("name", ["encoder_repetition_penalty", "encoder_no_repeat_ngram_size"])
def test_words_are_compared_with_a_source_of_the_same_vocabulary(tiny_rnnsearch_config, one_model, name):
    value = {name: 2 if name.endswith("size") else 2.0}
    with pytest.raises(ValueError, match=f"{name} compares words with those of the source: pass input_ids"):
        generate(one_model, inputs_embeds=torch.zeros(1, 2, 6), **value)
    apart = decided_model(tiny_rnnsearch_config(share_embeddings=False, source_vocab_size=40))
    with pytest.raises(ValueError, match=f"{name} compares .* source_vocab_size=40 says that the source has a"):
        generate(apart, **SOURCE, **value)


def test_it_stops_at_a_string(one_model):
    tokenizer = train_tokenizer(["abcdefghijklmnopqrstuvwxyzABCDEFGHIJ"], kind="char", vocab_size=40, max_length=9)
    free = generate(one_model, **SOURCE, suppress_tokens=[EOS])
    string = tokenizer.decode(free[0, 3:5])
    stopped = generate(one_model, **SOURCE, suppress_tokens=[EOS], stop_strings=[string], tokenizer=tokenizer)
    for row, words in zip(stopped.tolist(), free.tolist(), strict=True):
        end = next((i for i in range(2, 9) if tokenizer.decode(words[1 : i + 1]).endswith(string)), 8)
        assert row[: end + 1] == words[: end + 1]
        assert not any(row[end + 1 :])


def test_it_stops_when_the_time_is_over(one_model):
    assert generate(one_model, **SOURCE, max_time=1e-9).shape[1] == 2


def test_each_row_may_start_with_a_token_of_its_own(one_model):
    starts = [1, 4, 5, 1]
    together = generate(one_model, **SOURCE, decoder_start_token_id=starts, min_new_tokens=8, num_beams=2)
    for row, start in enumerate(starts):
        one = {name: tensor[row : row + 1] for name, tensor in SOURCE.items()}
        alone = generate(one_model, **one, decoder_start_token_id=start, min_new_tokens=8, num_beams=2)
        assert torch.equal(together[row : row + 1], alone)


def test_a_loop_of_ones_own_may_be_used(one_model):
    def loop(model, input_ids, logits_processor, **settings):
        del settings["stopping_criteria"], settings["generation_config"]
        for _ in range(8):
            step = model(**model.prepare_inputs_for_generation(input_ids, **{**settings, "use_cache": False}))
            word = logits_processor(input_ids, step.logits[:, -1]).argmax(dim=-1, keepdim=True)
            input_ids = torch.cat([input_ids, word], dim=1)
        return input_ids

    assert torch.equal(
        generate(one_model, **SOURCE, suppress_tokens=[EOS], custom_generate=loop),
        generate(one_model, **SOURCE, suppress_tokens=[EOS]),
    )


def test_processes_may_wait_for_each_other(one_model):
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        for arguments in ({}, {"num_beams": 2}):
            waiting = generate(one_model, **SOURCE, synced_gpus=True, **arguments)
            assert torch.equal(waiting, generate(one_model, **SOURCE, **arguments))
    finally:
        torch.distributed.destroy_process_group()


def test_nothing_given_is_the_token_that_begins_a_text(one_model):
    assert torch.equal(generate(one_model), generate(one_model, input_ids=torch.tensor([[1]])))


PROMPTS = {"begun": [[1, 7, 8], [1, 7], [1]], "not begun": [[7, 8, 9], [8], [9, 9]], "mixed": [[7, 8, 9], [1], [1, 9]]}


@pytest.mark.parametrize("arguments", [{"num_beams": 2}, {"repetition_penalty": 5.0}], ids=named)
@pytest.mark.parametrize("junk", [1, 10**6])
@pytest.mark.parametrize("prompts", PROMPTS.values(), ids=PROMPTS)
def test_each_target_begins_with_the_start_token_once_wherever_it_is_padded(model, prompts, junk, arguments):
    words = torch.tensor([[junk] * (5 - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (5 - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    arguments = {"min_new_tokens": 5, "max_new_tokens": 5, **arguments}
    source = {name: tensor[:3] for name, tensor in SOURCE.items()}
    together = generate(model, **source, decoder_input_ids=words, decoder_attention_mask=mask, **arguments)
    for row, prompt in enumerate(prompts):
        one = {name: tensor[row : row + 1] for name, tensor in SOURCE.items()}
        alone = generate(model, **one, decoder_input_ids=torch.tensor([prompt]), **arguments)
        assert together[row, -5:].tolist() == alone[0, -5:].tolist()
        assert alone[0, 0] == 1


@pytest.mark.parametrize("prompt", [[[1, 7], [1, 9]], [[7, 9], [1, 9]], [[7, 1], [9, 1]]], ids=named)
def test_unpadded_targets_may_differ_in_whether_they_have_begun(model, prompt):
    arguments = {"min_new_tokens": 4, "max_new_tokens": 4}
    source = {name: tensor[:2] for name, tensor in SOURCE.items()}
    together = generate(model, **source, decoder_input_ids=torch.tensor(prompt), **arguments)
    for row in range(2):
        one = {name: tensor[row : row + 1] for name, tensor in SOURCE.items()}
        alone = generate(model, **one, decoder_input_ids=torch.tensor(prompt[row : row + 1]), **arguments)
        assert together[row, -4:].tolist() == alone[0, -4:].tolist()
