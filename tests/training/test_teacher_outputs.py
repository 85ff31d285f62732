import logging
import shutil

import numpy as np
import pytest
import torch

from hf_maskattn.training import teacher_outputs
from hf_maskattn.training.teacher import Teacher, Words
from hf_maskattn.training.teacher_outputs import teacher_logits, teacher_texts
from tests.training.teachers import build_teacher, save_pair_teacher

TEXTS = ["meow", "woof bark paw", "purr purr", "a b c d", "tail", "bark"]
CPU = torch.device("cpu")


@pytest.fixture
def teacher(monkeypatch, cache):
    monkeypatch.setattr(teacher_outputs, "_ROWS_PER_SHARD", 2)
    model, tokenizer = build_teacher(["a", "b", "c"])
    return Teacher(model, tokenizer, model.config, "text-classification")


def count_calls(teacher, monkeypatch):
    calls, compute = [], teacher.compute_logits
    monkeypatch.setattr(teacher, "compute_logits", lambda rows, device: (calls.append(list(rows)), compute(rows, device))[1])
    return calls


def test_logits_are_in_the_order_of_the_texts(teacher):
    expected = np.concatenate([teacher.compute_logits([text], CPU)[0] for text in TEXTS])
    assert np.allclose(teacher_logits(teacher, TEXTS, batch_size=4, device=CPU), expected, atol=1e-5)


def test_teacher_runs_once(teacher, monkeypatch):
    calls = count_calls(teacher, monkeypatch)
    first = teacher_logits(teacher, TEXTS, batch_size=2, device=CPU)
    assert sorted(len(rows[0]) for rows in calls) == [4, 7, 13]  # the longest of each shard
    assert np.array_equal(teacher_logits(teacher, TEXTS, batch_size=1, device=CPU), first)
    assert len(calls) == 3
    teacher_logits(teacher, TEXTS[:5], batch_size=2, device=CPU)
    assert len(calls) == 6


@pytest.mark.parametrize("damage", ["missing", "truncated", "of other rows"])
def test_killed_pass_resumes(teacher, monkeypatch, cache, damage):
    expected = teacher_logits(teacher, TEXTS, batch_size=2, device=CPU)
    path = next(cache.rglob("00001.safetensors"))
    if damage == "missing":
        path.unlink()
        path.with_suffix(".part").write_bytes(b"half")
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        teacher_logits(teacher, ["a"], batch_size=2, device=CPU)
        shutil.copy(next(other for other in cache.rglob("00000.safetensors") if other.parent != path.parent), path)
    calls = count_calls(teacher, monkeypatch)
    assert np.array_equal(teacher_logits(teacher, TEXTS, batch_size=2, device=CPU), expected)
    assert len(calls) == 1


def test_words_have_a_row_each(cache):
    model, tokenizer = build_teacher(["O", "B-X"], "token-classification")
    teacher = Teacher(model, tokenizer, model.config, "token-classification")
    rows = [Words("meow", (0,)), Words("", ()), Words("woof bark paw", (0, 5, 10))]
    expected = np.concatenate([teacher.compute_logits([row], CPU)[0] for row in rows])
    found = teacher_logits(teacher, rows, batch_size=2, device=CPU)
    assert found.shape == (4, 2)
    assert np.allclose(found, expected, atol=1e-5)


def test_truncated_texts_are_reported(teacher, caplog):
    teacher.max_length = 3
    with caplog.at_level(logging.WARNING):
        teacher_logits(teacher, TEXTS, batch_size=2, device=CPU)
    assert "The teacher read 3 of 6 texts only up to its limit of 3 tokens." in caplog.messages


def test_too_little_space_raises_before_the_pass(teacher, monkeypatch):
    calls = count_calls(teacher, monkeypatch)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 100, 71))
    with pytest.raises(OSError, match=r"The cache of the teacher's outputs needs .* Free some space, or set HF_HOME"):
        teacher_logits(teacher, TEXTS, batch_size=2, device=CPU)
    assert calls == []


def test_generated_texts_are_in_the_order_of_the_sources(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(teacher_outputs, "_ROWS_PER_SHARD", 2)
    teacher = Teacher.from_pretrained(save_pair_teacher(tmp_path / "teacher"), "text2text-generation")
    sources = ["a", "a b c", "d c b a", "b c"]
    expected = [teacher.generate([source], CPU)[0][0] for source in sources]
    assert teacher_texts(teacher, sources, batch_size=2, device=CPU) == expected
    monkeypatch.setattr(teacher, "generate", None)
    assert teacher_texts(teacher, sources, batch_size=2, device=CPU) == expected
