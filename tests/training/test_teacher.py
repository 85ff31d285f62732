import pytest
import torch

import hf_maskattn
from hf_maskattn.training.teacher import Teacher, Words, match_labels
from tests.training.teachers import build_teacher, build_tokenizer, save_teacher


def test_labels_are_matched_by_name():
    assert match_labels(["b", "a", "c"], ["a", "b", "c"], {}, "t") == [1, 0, 2]
    assert match_labels(["LABEL_0", "LABEL_1"], ["a", "b"], {"LABEL_0": "b", "LABEL_1": "a"}, "t") == [1, 0]


@pytest.mark.parametrize(
    ("names", "renamed", "message"),
    [
        (["a", "c"], {}, r"must have the labels of the data \(a, b\), got t with a, c. Set teacher.labels"),
        (["a", "b", "c"], {}, "got t with a, b, c"),
        (["LABEL_0", "LABEL_1"], {}, "default names, which do not say .* Look it up, and set teacher.labels={LABEL_0: "),
        (["x", "y"], {"x": "a", "y": "a"}, "got t with a, a"),
        (
            ["x", "y"],
            {"z": "a"},
            r"teacher.labels must map labels of the teacher \(x, y\) to those of the data \(a, b\), got z: a",
        ),
        (["x", "y"], {"x": "q"}, "got x: q"),
    ],
)
def test_other_labels_raise(names, renamed, message):
    with pytest.raises(ValueError, match=message):
        match_labels(names, ["a", "b"], renamed, "t")


def test_model_without_the_head_raises(tmp_path):
    folder = save_teacher(tmp_path, ["O", "B-X"], "token-classification")
    with pytest.raises(ValueError, match=r"must be a model for text-classification, got .*, a BertForTokenClassification"):
        Teacher.from_pretrained(folder, "text-classification")


def test_pickled_weights_raise(tmp_path):
    folder = save_teacher(tmp_path, ["a", "b"])
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="a pickle can run any code"):
        Teacher.from_pretrained(folder, "text-classification")


def test_missing_weights_raise(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = save_teacher(tmp_path, ["a", "b"])
    weights = load_file(tmp_path / "model.safetensors")
    save_file({name: value for name, value in weights.items() if "classifier" not in name}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"must have all weights, got .* without classifier.bias, classifier.weight"):
        Teacher.from_pretrained(folder, "text-classification").model  # noqa: B018


def test_tokenizer_without_padding_raises():
    model, tokenizer = build_teacher(["a", "b"])
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match="must have a padding token, got none"):
        Teacher(model, tokenizer, model.config, "text-classification")


def test_length_beyond_the_positions_raises():
    model, tokenizer = build_teacher(["a", "b"])
    with pytest.raises(ValueError, match=r"teacher.max_length must be at most 64, .* got 65"):
        Teacher(model, tokenizer, model.config, "text-classification", max_length=65)


def test_logits_of_words_are_those_of_their_first_tokens():
    model, tokenizer = build_teacher(["O", "B-X", "I-X"], "token-classification")
    teacher = Teacher(model, tokenizer, model.config, "token-classification", max_length=6)
    rows = [Words("meow xbarkx", (0, 5)), Words("woof", (0,))]
    found, _ = teacher.compute_logits(rows, torch.device("cpu"))
    encoded = tokenizer(["meow xbarkx", "woof"], padding=True, truncation=True, max_length=6, return_tensors="pt")
    logits = model(encoded["input_ids"], encoded["attention_mask"]).logits.detach().numpy()
    starts = [[encoded.char_to_token(row, start) for start in words.starts] for row, words in enumerate(rows)]
    expected = [logits[row, token] for row, tokens in enumerate(starts) for token in tokens]
    assert found.tolist() == pytest.approx([pytest.approx(values.tolist(), abs=1e-5) for values in expected])


def test_truncated_words_have_no_logits():
    model, tokenizer = build_teacher(["O", "B-X"], "token-classification")
    teacher = Teacher(model, tokenizer, model.config, "token-classification", max_length=3)
    found, num_truncated = teacher.compute_logits([Words("meow woof", (0, 5))], torch.device("cpu"))
    assert torch.from_numpy(found).isnan().all(-1).tolist() == [False, True]
    assert num_truncated == 1


def test_fingerprint_depends_on_weights_and_length(tmp_path):
    folders = [save_teacher(tmp_path / str(seed), ["a", "b"], seed=seed) for seed in (0, 1)]
    teachers = [Teacher.from_pretrained(folder, "text-classification") for folder in folders]
    teachers.append(Teacher.from_pretrained(folders[0], "text-classification", max_length=7))
    assert len({teacher.fingerprint for teacher in teachers}) == 3
    again = Teacher.from_pretrained(folders[0], "text-classification")
    again.compute_logits(["meow"], torch.device("cpu"))  # which sets the truncation of the tokenizer
    assert again.fingerprint == teachers[0].fingerprint


def test_logits_of_a_crf_are_those_of_its_marginals(tiny_config):
    tokenizer = build_tokenizer()
    config = tiny_config(vocab_size=len(tokenizer), id2label={0: "O", 1: "B-X", 2: "I-X"}, use_crf=True)
    model = hf_maskattn.MaskAttnForTokenClassification(config).eval()
    teacher = Teacher(model, tokenizer, config, "token-classification")
    logits, _ = teacher.compute_logits([Words("meow woof", (0, 5))], torch.device("cpu"))
    inputs = tokenizer("meow woof", return_tensors="pt")
    probabilities = model(inputs["input_ids"], inputs["attention_mask"], output_marginals=True).marginals[0]
    found = torch.from_numpy(logits).softmax(-1)
    torch.testing.assert_close(found[0], probabilities[inputs.char_to_token(0, 0)])
    torch.testing.assert_close(found[1], probabilities[inputs.char_to_token(0, 5)])
