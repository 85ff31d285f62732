"""Law: what stands at a pad of a source or a target, and where pads stand, changes no loss, gradient or generated word."""

import hypothesis.strategies as st
import torch
from hypothesis import given

from tests.laws.cases import assert_close, assert_same_bits
from tests.laws.rnnsearch_cases import pairs, run_pair, words_of
from tests.tolerances import AUTOCAST_OF_PAIRS, OUTPUT_BY_DTYPE, assert_near


def moved(values, real, time, kind, fill):
    """The real entries of each row at other columns out of `time`, with `fill` elsewhere, and where they are."""
    found = fill.clone() if torch.is_tensor(fill) else torch.full((len(values), time, *values.shape[2:]), fill)
    mask = torch.zeros(len(values), time, dtype=torch.bool)
    for row, own in enumerate(real):
        n = int(own.sum())
        columns = {
            "right": torch.arange(n),
            "left": torch.arange(time - n, time),
            "holes": torch.randperm(time)[:n].sort().values,
        }[kind]
        found[row, columns], mask[row, columns] = values[row, own], True
    return found, mask


@given(case=pairs(dtypes=tuple(OUTPUT_BY_DTYPE)))
def test_junk_under_the_mask_changes_no_bit(case):
    junk = torch.where(case.mask, case.ids, torch.randint(-(10**6), 10**6, case.ids.shape))
    outputs, gradients = run_pair(case.model, case.ids, case.mask, case.labels)
    again, gradients_again = run_pair(case.model, junk, case.mask, case.labels)
    assert_same_bits(again, outputs)
    assert_same_bits(gradients_again, gradients)
    assert torch.equal(words_of(case.model, junk, case.mask), words_of(case.model, case.ids, case.mask))


@given(case=pairs(), junk=st.sampled_from([torch.nan, torch.inf, 6e4]))
def test_junk_embeddings_under_either_mask_change_no_bit(case, junk):
    target_mask = case.labels != -100
    words = torch.randn(*case.labels.shape, 6, dtype=case.dtype)
    source = torch.randn(*case.ids.shape, 6, dtype=case.dtype)
    results = []
    for fill in (0.0, junk):
        embedded = [torch.where(m[..., None], x, fill).requires_grad_() for x, m in ((source, case.mask), (words, target_mask))]
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
    for found, expected in zip(*results, strict=True):
        assert_same_bits(found, expected)


@given(case=pairs(), extra=st.integers(0, 20), kind=st.sampled_from(["right", "left", "holes"]))
def test_moving_and_adding_source_pads_changes_nothing(case, extra, kind):
    outputs, gradients = run_pair(case.model, case.ids, case.mask, case.labels)
    time = max(1, int(case.mask.sum(dim=1).max()) + extra)
    ids, mask = moved(case.ids, case.mask, time, kind, torch.randint(12, (len(case.ids), time)))
    again, gradients_again = run_pair(case.model, ids, mask, case.labels)
    for key in ("loss", "logits", *(key for key in outputs if key.startswith("state"))):
        assert_close({key: again[key]}, {key: outputs[key]}, case.dtype)
    weights = [found["weights"].permute(0, 3, 1, 2)[real] for found, real in ((again, mask), (outputs, case.mask))]
    assert_close({"weights": weights[0]}, {"weights": weights[1]}, case.dtype)
    assert_close(gradients_again, gradients, case.dtype, scale=10)


@given(case=pairs(dtypes=(torch.float64,)), extra=st.integers(0, 20), kind=st.sampled_from(["right", "left", "holes"]))
def test_moving_and_adding_source_pads_changes_no_word(case, extra, kind):
    time = max(1, int(case.mask.sum(dim=1).max()) + extra)
    ids, mask = moved(case.ids, case.mask, time, kind, torch.randint(12, (len(case.ids), time)))
    assert torch.equal(words_of(case.model, ids, mask), words_of(case.model, case.ids, case.mask))


@given(case=pairs(), extra=st.integers(0, 9), kind=st.sampled_from(["right", "left"]))
def test_moving_and_adding_target_pads_changes_nothing(case, extra, kind):
    outputs, gradients = run_pair(case.model, case.ids, case.mask, case.labels)
    real = case.labels != -100
    labels, _ = moved(case.labels, real, case.labels.shape[1] + extra, kind, -100)
    again, gradients_again = run_pair(case.model, case.ids, case.mask, labels)
    assert_close({"loss": again["loss"]}, {"loss": outputs["loss"]}, case.dtype)
    assert_close({"logits": again["logits"][labels != -100]}, {"logits": outputs["logits"][real]}, case.dtype)
    assert_close(gradients_again, gradients, case.dtype, scale=10)


@given(case=pairs())
def test_a_batch_is_its_rows_alone(case):
    outputs, _ = run_pair(case.model, case.ids, case.mask, case.labels)
    _, gradients = run_pair(case.model, case.ids, case.mask, case.labels)
    total = {}
    for row in range(len(case.ids)):
        one = slice(row, row + 1)
        alone, own = run_pair(case.model, *case.rows(one))
        for key, value in alone.items():
            if key != "loss":
                assert_close({key: value}, {key: outputs[key][one]}, case.dtype)
        count = int((case.labels[row] != -100).sum())
        for key, value in own.items():
            total[key] = total.get(key, 0) + count * value
    count = max(1, int((case.labels != -100).sum()))
    assert_close({key: value / count for key, value in total.items()}, gradients, case.dtype, scale=10)


@given(case=pairs(dtypes=(torch.float32,)))
def test_under_autocast_pads_stay_invisible_and_numbers_are_near(case):
    junk = torch.where(case.mask, case.ids, torch.randint(-(10**6), 10**6, case.ids.shape))
    results = []
    for ids in (case.ids, junk):
        with torch.autocast("cpu", torch.bfloat16):  # one for each run: it keeps the weights that it has cast
            results.append(run_pair(case.model, ids, case.mask, case.labels))
    for found, expected in zip(*results, strict=True):
        assert_same_bits(found, expected)
    outputs, gradients = results[0]
    wide_outputs, wide_gradients = run_pair(case.model, case.ids, case.mask, case.labels)
    near = [(outputs, wide_outputs)]
    if case.model.config.output_layer == "linear":  # of two numbers that rounding brings together, maxout may take the other
        near.append((gradients, wide_gradients))
    for found, expected in near:
        for key, value in expected.items():
            assert_near(found[key].float(), value, AUTOCAST_OF_PAIRS, key)
