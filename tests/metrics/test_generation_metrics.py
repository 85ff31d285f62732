import sys

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    DataCollatorForSeq2Seq,
    EvalPrediction,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

from hf_maskattn.data.pair_encoding import encode_pairs, references_of
from hf_maskattn.data.tokenizers import train_tokenizer
from hf_maskattn.metrics import evaluation_for_generation
from hf_maskattn.metrics.task_metrics import LOWER_IS_BETTER

PAD, UNKNOWN, BEGIN, END = range(4)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["abcdef"], kind="char", vocab_size=20, max_length=99, for_generation=True)


@pytest.fixture(scope="module")
def ids(tokenizer):
    """Token ids of texts, in rows of equal length."""

    def encode(texts, begin=(), filler=PAD, width=6):
        rows = [[*begin, *tokenizer.convert_tokens_to_ids(list(text)), END] for text in texts]
        return np.array([row + [filler] * (width - len(row)) for row in rows])

    return encode


@pytest.mark.parametrize(
    ("metric", "names", "rising"),
    [
        ("text-match", ("exact_match", "cer"), [True, False]),
        ("pronunciation", ("wer", "per"), [False, False]),
        ("translation", ("bleu", "chrf"), [True, True]),
    ],
)
def test_metrics_by_name(tokenizer, metric, names, rising):
    evaluation = evaluation_for_generation(metric, tokenizer)
    assert evaluation.metric_names == names
    assert [name not in LOWER_IS_BETTER for name in names] == rising
    assert evaluation.include_for_metrics == ()


def test_labels_are_the_references_where_no_others_are_given(tokenizer, ids):
    evaluation = evaluation_for_generation("text-match", tokenizer)
    predictions = ids(["ab", "", "abce"], begin=[BEGIN])
    predictions[0, -1] = -100
    values = evaluation.compute_metrics(EvalPrediction(predictions, ids(["ab", "", "abcd"], filler=-100)))
    assert values == {"exact_match": pytest.approx(2 / 3), "cer": 1 / 6}


def test_an_unknown_token_in_a_prediction_stays_wrong(tokenizer, ids):
    predictions = ids(["ab"])
    predictions[0, 2] = UNKNOWN
    evaluation = evaluation_for_generation("text-match", tokenizer)
    assert evaluation.compute_metrics(EvalPrediction(predictions, ids(["ab"])))["exact_match"] == 0


def test_references_are_found_whatever_the_order_and_the_padding(tokenizer, ids):
    references = {
        (tuple(ids(["ab"], width=3)[0]), tuple(ids(["f"], width=2)[0])): ["d", "e"],
        (tuple(ids(["abc"])[0]), tuple(ids(["f"])[0])): ["long reference"],
    }
    evaluation = evaluation_for_generation("text-match", tokenizer, references=references)
    assert evaluation.include_for_metrics == ("inputs",)
    labels = ids(["f", "f"], filler=-100)
    labels[1, 3:] = PAD
    first, second = ids(["ab", "abc"])
    for order in ([first, second], [second, first], [np.roll(first, 3), np.where(second == PAD, -100, second)]):
        predictions = ids(["f" if row is second else "e" for row in order])
        values = evaluation.compute_metrics(EvalPrediction(ids(["e", "e"]), labels, inputs=np.array(order)))
        assert values["exact_match"] == 0.5, predictions


def test_rows_with_sources_that_are_cut_alike_are_judged_by_their_own_answers(tokenizer):
    rows = Dataset.from_dict({"source": ["abc", "abd", "?", "!"], "target": ["a", "b", "c", "d"]})
    columns = {"source_column": "source", "target_column": "target"}
    encoded = encode_pairs(rows, tokenizer, **columns, max_source_length=3, max_target_length=9)
    assert len({tuple(row) for row in encoded["input_ids"]}) == 2
    evaluation = evaluation_for_generation("text-match", tokenizer, references=references_of(rows, encoded, "target"))
    sources, labels = (np.array(encoded[name][:], dtype=object) for name in ("input_ids", "labels"))
    for answers, right in ((labels, 1.0), (labels[[1, 0, 3, 2]], 0.0)):
        values = evaluation.compute_metrics(EvalPrediction(answers, labels, inputs=sources))
        assert values["exact_match"] == right


def test_references_that_are_missing_are_told(tokenizer, ids):
    evaluation = evaluation_for_generation("text-match", tokenizer, references={((4, END), (4, END)): ["a"]})
    with pytest.raises(ValueError, match=r'set training\.include_for_metrics: \["inputs"\]'):
        evaluation.compute_metrics(EvalPrediction(ids(["a"]), ids(["a"])))
    with pytest.raises(
        ValueError,
        match=r"no references for the source with the token ids \(5, 3\) and the labels \(4, 3\): collect them .* with ref",
    ):
        evaluation.compute_metrics(EvalPrediction(ids(["a"]), ids(["a"]), inputs=ids(["b"])))


def test_ids_pass_and_logits_are_refused(tokenizer):
    preprocess = evaluation_for_generation("text-match", tokenizer).preprocess_logits
    generated = torch.tensor([[1, 2]])
    assert preprocess(generated, generated) is generated
    for logits in (torch.zeros(1, 2, 3), (torch.zeros(1, 2, 3), torch.zeros(1))):
        with pytest.raises(ValueError, match=r"set training\.predict_with_generate: true"):
            preprocess(logits, generated)


@pytest.mark.parametrize(
    ("metric", "package"), [("text-match", "jiwer"), ("pronunciation", "jiwer"), ("translation", "sacrebleu")]
)
def test_a_missing_package_is_told_before_training(monkeypatch, tokenizer, metric, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'{package}.*pip install "hf-maskattn\[examples\] @ git\+https'):
        evaluation_for_generation(metric, tokenizer)


def test_unknown_metrics_are_refused(tokenizer):
    with pytest.raises(ValueError, match="metric='rouge' does not exist: use text-match, pronunciation, translation"):
        evaluation_for_generation("rouge", tokenizer)


def test_a_trainer_scores_what_its_model_generates(tokenizer, tmp_path):
    rows = Dataset.from_dict({"source": ["a", "bcd", "ef"], "references": [["b", ""], ["c", "d"], ["e"]]})
    encoded = encode_pairs(
        rows, tokenizer, source_column="source", target_column="references", max_source_length=9, max_target_length=9
    )
    evaluation = evaluation_for_generation("text-match", tokenizer, references=references_of(rows, encoded, "references"))
    tiny = {"d_model": 4, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 1, "decoder_attention_heads": 1}
    model = BartForConditionalGeneration(
        BartConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=16,
            encoder_ffn_dim=4,
            decoder_ffn_dim=4,
            pad_token_id=PAD,
            bos_token_id=BEGIN,
            eos_token_id=END,
            decoder_start_token_id=BEGIN,
            forced_eos_token_id=END,
            **tiny,
        )
    )
    # Nothing but the end is ever written.
    model.final_logits_bias[0, END] = 1e4
    arguments = Seq2SeqTrainingArguments(
        str(tmp_path),
        predict_with_generate=True,
        include_for_metrics=list(evaluation.include_for_metrics),
        per_device_eval_batch_size=2,
        train_sampling_strategy="group_by_length",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Seq2SeqTrainer(
        model,
        arguments,
        data_collator=DataCollatorForSeq2Seq(tokenizer, model),
        eval_dataset=encoded,
        processing_class=tokenizer,
        compute_metrics=evaluation.compute_metrics,
        preprocess_logits_for_metrics=evaluation.preprocess_logits,
    )
    values = trainer.evaluate(max_new_tokens=4)
    assert values["eval_exact_match"] == pytest.approx(1 / 3)
    assert values["eval_cer"] == 1.0
