import pytest
import torch
from transformers import GenerationConfig, LogitsProcessorList
from transformers.generation.logits_process import EncoderNoRepeatNGramLogitsProcessor, EncoderRepetitionPenaltyLogitsProcessor

from hf_maskattn.model.source_processors import read_real_tokens, source_settings

IDS = torch.tensor([[5, 9, 6, 7], [9, 9, 6, 5], [9, 9, 9, 9]])
MASK = torch.tensor([[1, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0]]).bool()


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, []),
        ({"encoder_repetition_penalty": 1.0, "encoder_no_repeat_ngram_size": 0}, []),
        ({"encoder_repetition_penalty": 2.0}, ["encoder_repetition_penalty"]),
        ({"encoder_no_repeat_ngram_size": 1}, ["encoder_no_repeat_ngram_size"]),
    ],
)
def test_settings_that_read_the_source(settings, names):
    assert source_settings(GenerationConfig(**settings)) == names


def test_each_source_is_read_without_its_pads():
    config = GenerationConfig(encoder_repetition_penalty=2.0, encoder_no_repeat_ngram_size=2)
    made = LogitsProcessorList([EncoderRepetitionPenaltyLogitsProcessor(2.0, IDS), EncoderNoRepeatNGramLogitsProcessor(2, IDS)])
    penalty, ngrams = read_real_tokens(made, config, (), IDS, MASK)
    words, scores = torch.tensor([[1, 6]] * 6), torch.ones(6, 10)  # two beams of each source
    promoted = penalty(words, scores)
    assert [set(row.nonzero()[:, 0].tolist()) for row in promoted == 2] == [{5, 6, 7}] * 2 + [{5, 6}] * 2 + [set()] * 2
    forbidden = ngrams(words, scores).isinf()
    assert [row.nonzero()[:, 0].tolist() for row in forbidden] == [[7], [7], [5], [5], [], []]


def test_processors_of_the_caller_stay():
    own = EncoderNoRepeatNGramLogitsProcessor(2, IDS)
    config = GenerationConfig(encoder_no_repeat_ngram_size=3)
    assert read_real_tokens(LogitsProcessorList([own]), config, [own], IDS, MASK)[0] is own
