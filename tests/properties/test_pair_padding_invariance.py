"""The values, place and amount of padding in a source or a target change no loss, gradient or generated token."""

import hypothesis.strategies as st
import torch
from hypothesis import given

from tests.properties.cases import assert_close, assert_same_bits, move_tokens, randomize_padding
from tests.properties.rnnsearch_cases import generate_tokens, pairs, run_pair
from tests.tolerances import OUTPUT_BY_DTYPE, PAIR_AUTOCAST, assert_near


@given(case=pairs(dtypes=tuple(OUTPUT_BY_DTYPE)))
def test_source_ids_at_padding_change_no_bit(case):
    random_ids = randomize_padding(case.ids, case.mask)
    outputs, gradients = run_pair(case.model, case.ids, case.mask, case.labels)
    again, gradients_again = run_pair(case.model, random_ids, case.mask, case.labels)
    assert_same_bits(again, outputs)
    assert_same_bits(gradients_again, gradients)
    assert torch.equal(generate_tokens(case.model, random_ids, case.mask), generate_tokens(case.model, case.ids, case.mask))


@given(case=pairs(), value=st.sampled_from([torch.nan, torch.inf, 6e4]))
def test_embeddings_at_padding_change_no_bit(case, value):
    target_mask = case.labels != -100
    target = torch.randn(*case.labels.shape, 6, dtype=case.dtype)
    source = torch.randn(*case.ids.shape, 6, dtype=case.dtype)
    results = []
    for fill in (0.0, value):
        embedded = [
            torch.where(m[..., None], x, fill).requires_grad_() for x, m in ((source, case.mask), (target, target_mask))
        ]
        results.append(
            run_pair(
                case.model,
                None,
                case.mask,
                case.labels,
                inputs_embeds=embedded[0],
                decoder_inputs_embeds=embedded[1],
                decoder_attention_mask=target_mask,
            )
        )
        for inputs, mask in zip(embedded, (case.mask, target_mask), strict=True):
            assert not inputs.grad[~mask].any()
            assert inputs.grad.isfinite().all()
    for actual, expected in zip(*results, strict=True):
        assert_same_bits(actual, expected)


@given(case=pairs(), extra=st.integers(0, 20), kind=st.sampled_from(["right", "left", "holes"]))
def test_moving_and_adding_source_padding(case, extra, kind):
    outputs, gradients = run_pair(case.model, case.ids, case.mask, case.labels)
    time = max(1, int(case.mask.sum(dim=1).max()) + extra)
    ids, mask = move_tokens(case.ids, case.mask, time, kind, torch.randint(12, (len(case.ids), time)))
    again, gradients_again = run_pair(case.model, ids, mask, case.labels)
    for key in ("loss", "logits", *(key for key in outputs if key.startswith("state"))):
        assert_close({key: again[key]}, {key: outputs[key]}, case.dtype)
    weights = [actual["weights"].permute(0, 3, 1, 2)[is_token] for actual, is_token in ((again, mask), (outputs, case.mask))]
    assert_close({"weights": weights[0]}, {"weights": weights[1]}, case.dtype)
    assert_close(gradients_again, gradients, case.dtype, scale=10)


@given(case=pairs(dtypes=(torch.float64,)), extra=st.integers(0, 20), kind=st.sampled_from(["right", "left", "holes"]))
def test_moving_and_adding_source_padding_in_generation(case, extra, kind):
    time = max(1, int(case.mask.sum(dim=1).max()) + extra)
    ids, mask = move_tokens(case.ids, case.mask, time, kind, torch.randint(12, (len(case.ids), time)))
    assert torch.equal(generate_tokens(case.model, ids, mask), generate_tokens(case.model, case.ids, case.mask))


@given(case=pairs(), extra=st.integers(0, 9), kind=st.sampled_from(["right", "left"]))
def test_moving_and_adding_target_padding(case, extra, kind):
    outputs, gradients = run_pair(case.model, case.ids, case.mask, case.labels)
    has_label = case.labels != -100
    labels, _ = move_tokens(case.labels, has_label, case.labels.shape[1] + extra, kind, -100)
    again, gradients_again = run_pair(case.model, case.ids, case.mask, labels)
    assert_close({"loss": again["loss"]}, {"loss": outputs["loss"]}, case.dtype)
    assert_close({"logits": again["logits"][labels != -100]}, {"logits": outputs["logits"][has_label]}, case.dtype)
    assert_close(gradients_again, gradients, case.dtype, scale=10)


@given(case=pairs())
def test_batch_matches_single_rows(case):
    outputs, _ = run_pair(case.model, case.ids, case.mask, case.labels)
    _, gradients = run_pair(case.model, case.ids, case.mask, case.labels)
    total = {}
    for row in range(len(case.ids)):
        single = slice(row, row + 1)
        single_outputs, single_gradients = run_pair(case.model, *case.rows(single))
        for key, value in single_outputs.items():
            if key != "loss":
                assert_close({key: value}, {key: outputs[key][single]}, case.dtype)
        count = int((case.labels[row] != -100).sum())
        for key, value in single_gradients.items():
            total[key] = total.get(key, 0) + count * value
    count = max(1, int((case.labels != -100).sum()))
    assert_close({key: value / count for key, value in total.items()}, gradients, case.dtype, scale=10)


@given(case=pairs(dtypes=(torch.float32,)))
def test_autocast(case):
    random_ids = randomize_padding(case.ids, case.mask)
    results = []
    for ids in (case.ids, random_ids):
        with torch.autocast("cpu", torch.bfloat16):  # one for each run: it caches the weights that it has cast
            results.append(run_pair(case.model, ids, case.mask, case.labels))
    for actual, expected in zip(*results, strict=True):
        assert_same_bits(actual, expected)
    outputs, gradients = results[0]
    float32_outputs, float32_gradients = run_pair(case.model, case.ids, case.mask, case.labels)
    pairs_to_compare = [(outputs, float32_outputs)]
    if case.model.config.output_layer == "linear":  # after rounding, maxout may select the other of two numbers
        pairs_to_compare.append((gradients, float32_gradients))
    for actual, expected in pairs_to_compare:
        for key, value in expected.items():
            assert_near(actual[key].float(), value, PAIR_AUTOCAST, key)
