import shutil

import pytest
import torch

from hf_maskattn.inference.export import export
from tests.heads import build_head


@pytest.fixture
def saved(exported, tmp_path, monkeypatch):
    """A saved model; its export, known from elsewhere, takes no time."""
    model, path = exported("lstm")
    model.save_pretrained(tmp_path / "model")

    def known(loaded, target):
        assert loaded.config.attention_implementation == "eager"
        assert loaded.dtype == torch.float32
        shutil.copy(path, target)

    monkeypatch.setattr("hf_maskattn.inference.export.export_onnx", known)
    return tmp_path / "model"


def test_a_file_appears_alone_when_all_is_well(saved, tmp_path):
    (tmp_path / "files").mkdir()
    report = export(saved, tmp_path / "files" / "out.onnx")
    assert len(report.checks) == 5
    assert report.size == report.path.stat().st_size
    assert list((tmp_path / "files").iterdir()) == [tmp_path / "files" / "out.onnx"]


def test_a_model_saved_as_ragged_in_16_bits_is_exported_as_eager_in_32(saved, exported, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_maskattn.inference.export.check_onnx", lambda model, path: [])
    model = type(exported("lstm")[0]).from_pretrained(saved, attention_implementation="ragged", dtype=torch.bfloat16)
    model.save_pretrained(saved)
    export(saved, tmp_path / "out.onnx")


def test_nothing_is_left_of_a_file_that_is_not_equal(saved, exported, tmp_path):
    model = type(exported("lstm")[0]).from_pretrained(saved)
    with torch.no_grad():
        model.classifier.bias += 1
    model.save_pretrained(saved)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match="the ONNX file is not equal to the model"):
        export(saved, tmp_path / "out.onnx")
    assert sorted(tmp_path.iterdir()) == before
    (tmp_path / "out.onnx").write_text("old")
    with pytest.raises(ValueError, match="the ONNX file is not equal to the model"):
        export(saved, tmp_path / "out.onnx", overwrite=True)
    assert (tmp_path / "out.onnx").read_text() == "old"


def test_a_file_is_replaced_only_if_asked_for(saved, tmp_path):
    (tmp_path / "out.onnx").write_text("old")
    with pytest.raises(ValueError, match=r"out.onnx exists: replace it with --overwrite, or name another file"):
        export(saved, tmp_path / "out.onnx")
    export(saved, tmp_path / "out.onnx", overwrite=True)
    assert (tmp_path / "out.onnx").stat().st_size > 1000


def test_places_that_are_no_file_are_refused(saved, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere to write out.onnx to"):
        export(saved, tmp_path / "nowhere" / "out.onnx")
    with pytest.raises(ValueError, match="is a folder, give the name of a file"):
        export(saved, saved, overwrite=True)


def test_texts_that_say_nothing_are_refused(saved, tmp_path):
    with pytest.raises(ValueError, match="there is no text to compare predictions of 8-bit integers on"):
        export(saved, tmp_path / "out.onnx", int8_texts=["", " "])


@pytest.mark.parametrize("head", ["MaskAttnForMaskedLM", "MaskAttnModel"])
def test_heads_that_cannot_be_exported_are_named(tiny_config, tmp_path, head):
    build_head(head, tiny_config).save_pretrained(tmp_path)
    words = f"was saved as {head}, which cannot be exported: models for text-classification and token-classification can"
    with pytest.raises(ValueError, match=words):
        export(tmp_path, tmp_path / "out.onnx")


def test_other_models_are_refused(tmp_path):
    from transformers import BertConfig

    BertConfig(architectures=["BertForSequenceClassification"]).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a 'bert' model, only 'maskattn' models are exported here"):
        export(tmp_path, tmp_path / "out.onnx")
