import shutil

import pytest
import torch

from hf_maskattn.inference.export import export_onnx
from tests.heads import build_head


@pytest.fixture
def saved(exported, tmp_path, monkeypatch):
    """A saved model whose export is replaced by a copy of a file that was exported once."""
    model, path = exported("lstm")
    model.save_pretrained(tmp_path / "model")

    def copy_export(loaded, target, contributions):
        assert not contributions
        assert loaded.config.attention_implementation == "eager"
        assert loaded.dtype == torch.float32
        shutil.copy(path, target)

    monkeypatch.setattr("hf_maskattn.inference.export.write_onnx", copy_export)
    return tmp_path / "model"


def test_export_leaves_one_file(saved, tmp_path):
    (tmp_path / "files").mkdir()
    report = export_onnx(saved, tmp_path / "files" / "out.onnx")
    assert len(report.checks) == 5
    assert report.size == report.path.stat().st_size
    assert list((tmp_path / "files").iterdir()) == [tmp_path / "files" / "out.onnx"]


def test_export_uses_eager_attention_and_float32(saved, exported, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_maskattn.inference.export.check_onnx", lambda model, path: [])
    model = type(exported("lstm")[0]).from_pretrained(saved, attention_implementation="ragged", dtype=torch.bfloat16)
    model.save_pretrained(saved)
    export_onnx(saved, str(tmp_path / "out.onnx"))


def test_export_leaves_nothing_if_file_differs(saved, exported, tmp_path):
    model = type(exported("lstm")[0]).from_pretrained(saved)
    with torch.no_grad():
        model.classifier.bias += 1
    model.save_pretrained(saved)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match="The ONNX file differs from the model"):
        export_onnx(saved, tmp_path / "out.onnx")
    assert sorted(tmp_path.iterdir()) == before
    (tmp_path / "out.onnx").write_text("old")
    with pytest.raises(ValueError, match="The ONNX file differs from the model"):
        export_onnx(saved, tmp_path / "out.onnx", overwrite=True)
    assert (tmp_path / "out.onnx").read_text() == "old"


def test_export_replaces_file_only_with_overwrite(saved, tmp_path):
    (tmp_path / "out.onnx").write_text("old")
    with pytest.raises(ValueError, match=r"out.onnx exists\. Replace it with --overwrite, or choose another file"):
        export_onnx(saved, tmp_path / "out.onnx")
    export_onnx(saved, tmp_path / "out.onnx", overwrite=True)
    assert (tmp_path / "out.onnx").stat().st_size > 1000


def test_export_rejects_empty_texts(saved, tmp_path):
    with pytest.raises(ValueError, match="texts to compare predictions of 8-bit integers on must not be empty"):
        export_onnx(saved, tmp_path / "out.onnx", int8_texts=["", " "])


def test_export_rejects_contributions_it_cannot_write(saved, tiny_config, tmp_path):
    with pytest.raises(ValueError, match="contributions must be false with 8-bit integers"):
        export_onnx(saved, tmp_path / "out.onnx", contributions=True, int8_texts=["a"])
    build_head("MaskAttnForTokenClassification", tiny_config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="must be a model for text-classification, got MaskAttnForTokenClassification"):
        export_onnx(tmp_path, tmp_path / "out.onnx", contributions=True)


@pytest.mark.parametrize("head", ["MaskAttnForMaskedLM", "MaskAttnModel"])
def test_export_rejects_other_heads(tiny_config, tmp_path, head):
    build_head(head, tiny_config).save_pretrained(tmp_path)
    words = f"must be a model for text-classification or token-classification or joint-classification, got {head}"
    with pytest.raises(ValueError, match=words):
        export_onnx(tmp_path, tmp_path / "out.onnx")


def test_export_rejects_other_models(tmp_path):
    from transformers import BertConfig

    BertConfig(architectures=["BertForSequenceClassification"]).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="must be a 'maskattn' model, got 'bert'"):
        export_onnx(tmp_path, tmp_path / "out.onnx")
