import pytest
from transformers import TextClassificationPipeline

from hf_maskattn.data.tokenizer_training import train_tokenizer
from hf_maskattn.export.onnx_pipeline import onnx_pipeline
from tests.tolerances import MANY_STEPS


@pytest.fixture
def tokenizer():
    return train_tokenizer(["abc"], kind="char", vocab_size=12, max_length=16)


def test_results_are_those_of_the_pipeline_of_the_model(exported, tokenizer):
    model, path = exported("lstm")
    expected = TextClassificationPipeline(model=model, tokenizer=tokenizer, device=-1)(["abc", "b"], top_k=None)
    found = onnx_pipeline("text-classification", path, model.config, tokenizer)(["abc", "b"], top_k=None, batch_size=2)
    assert len(found) == 2
    for one, other in zip(found, expected, strict=True):
        assert [item["label"] for item in one] == [item["label"] for item in other]
        assert [item["score"] for item in one] == pytest.approx([item["score"] for item in other], abs=MANY_STEPS)


def test_a_task_without_a_file_is_refused(exported, tokenizer):
    model, path = exported("lstm")
    with pytest.raises(ValueError, match="fill-mask does not run from an ONNX file; text-classification and token-class"):
        onnx_pipeline("fill-mask", path, model.config, tokenizer)


def test_a_file_of_another_model_is_refused(exported, tokenizer, tiny_config):
    model, path = exported("lstm")
    words = r"model.onnx has logits \['batch', 3\], the model has \['batch', {}\] for {}: give the file that was exported"
    with pytest.raises(ValueError, match=words.format(2, "text-classification")):
        onnx_pipeline("text-classification", path, tiny_config(num_labels=2), tokenizer)
    with pytest.raises(ValueError, match=words.format("'time', 3", "token-classification")):
        onnx_pipeline("token-classification", path, model.config, tokenizer)
