import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hf_maskattn.data.tokenizers import train_tokenizer
from tests.cli.conftest import assert_error, run
from tests.heads import build_head


@pytest.fixture
def folder(tiny_config, tmp_path):
    build_head("MaskAttnForSequenceClassification", tiny_config).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_audit_of_own_model_passes(folder, tmp_path):
    result = run("audit", folder, "--gradients", "--max-length", 9, "--json", tmp_path / "report.json")
    assert result.exit_code == 0, result.stderr
    assert "MaskAttnForSequenceClassification, float32 on cpu: random ids, 4 rows of 1 to 9 tokens" in result.stdout
    assert "│ attention to pads     │ exact " in result.stdout
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["passed"] is True
    assert report["findings"]["gradients at pads"]["verdict"] == "exact"


def test_audit_of_a_crf_passes(tiny_config, tmp_path):
    labels = dict(enumerate(["O", "B-X", "I-X"]))
    build_head("MaskAttnForTokenClassification with CRF", tiny_config, id2label=labels).save_pretrained(tmp_path)
    result = run("audit", tmp_path, "--gradients", "--max-length", 9)  # logits of forbidden labels are minus infinity
    assert result.exit_code == 0, result.stdout
    assert "not finite" not in result.stdout


def test_leak_has_exit_code_1_and_is_in_json(folder, tmp_path, monkeypatch):
    attention = "hf_maskattn.model.modeling_maskattn.MaskAttnPreTrainedModel._token_mask"
    monkeypatch.setattr(attention, lambda self, ids, embeds, *_: torch.ones((embeds if ids is None else ids).shape[:2]).bool())
    result = run("audit", folder, "--json", tmp_path / "report.json")
    assert result.exit_code == 1, result.stderr
    assert "LEAKS" in result.stdout
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["passed"] is False


def test_text_file_is_tokenized(folder, tmp_path):
    train_tokenizer(["a b c"], kind="word", vocab_size=20, max_length=8).save_pretrained(folder)
    (tmp_path / "texts").write_text("a\n\na b c\n", encoding="utf-8")
    result = run("audit", folder, "--text-file", tmp_path / "texts")
    assert "texts, 2 rows of 1 to 3 tokens" in result.stdout


def test_report_is_replaced_on_request(folder, tmp_path):
    (tmp_path / "report.json").write_text("an earlier one")
    assert run("audit", folder, "--json", tmp_path / "report.json", "--overwrite").exit_code == 0
    assert json.loads((tmp_path / "report.json").read_text())["passed"]


def test_audit_errors_are_one_line(folder, tmp_path):
    (tmp_path / "blank").write_text("\n \n", encoding="utf-8")
    (tmp_path / "latin").write_bytes(b"a\ncaf\xe9\n")
    (tmp_path / "texts").write_text("a\n", encoding="utf-8")
    for arguments, message in {
        (tmp_path / "no-model",): "no-model' is not a folder and",
        (folder, "--text-file", tmp_path / "blank"): "blank has no text.",
        (folder, "--text-file", tmp_path / "latin"): "latin, line 2: not UTF-8 (byte 0xe9)",
        (folder, "--text-file", tmp_path / "nowhere"): "No such file or directory",
        (folder, "--text-file", tmp_path / "texts"): "`tokenizer` must be given if `batch` is texts",
        (folder, "--max-length", 0): "`max_length` must be at least 1, got 0",
        (folder, "--json", tmp_path / "texts"): "texts exists. Replace it with --overwrite, or choose another file.",
        (folder, "--json", tmp_path / "no" / "folder.json"): f"The folder {tmp_path / 'no'} does not exist.",
    }.items():
        assert_error(run("audit", *arguments), message)


@pytest.mark.slow
def test_program_audits_own_model(folder):
    train_tokenizer(["abc"], kind="char", vocab_size=40, max_length=32).save_pretrained(folder)
    program = Path(sys.executable).with_name("hf-maskattn")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([program, "audit", folder], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "You are using a model of type" not in done.stderr
    assert "MaskAttnForSequenceClassification" in done.stdout
    done = subprocess.run([program, "audit", "--help"], env=environment, capture_output=True, text=True)
    assert all(option in done.stdout for option in ("--text-file", "--gradients", "--max-length", "--json", "--trust-remote"))
