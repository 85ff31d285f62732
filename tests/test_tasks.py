import pytest

from hf_maskattn import MaskAttnConfig
from hf_maskattn.model.configuration_rnnsearch import RNNSearchConfig
from hf_maskattn.tasks import loading_call, task_of


@pytest.mark.parametrize(
    ("architectures", "task"),
    [
        (["MaskAttnForSequenceClassification"], "text-classification"),
        (["BertForTokenClassification"], "token-classification"),
        (["MaskAttnForMaskedLM"], "fill-mask"),
        (["RNNSearchForConditionalGeneration"], "text2text-generation"),
        (["RNNSearchModel"], None),
        (["MaskAttnModel"], None),
        ([], None),
        (None, None),
    ],
)
def test_the_class_tells_the_task(architectures, task):
    assert task_of(architectures) == task


def test_a_model_is_loaded_as_a_pipeline_or_by_its_auto_class():
    classifier = MaskAttnConfig()
    assert loading_call(classifier, "fill-mask", "a/b") == 'pipeline("fill-mask", model="a/b")'
    assert (
        loading_call(classifier, "fill-mask", "a/b", revision="dev", trust_remote_code=True)
        == 'pipeline("fill-mask", model="a/b", revision="dev", trust_remote_code=True)'
    )
    assert loading_call(classifier, None, "a/b") == 'AutoModel.from_pretrained("a/b")'
    assert loading_call(RNNSearchConfig(), "text2text-generation", "a/b") == 'AutoModelForSeq2SeqLM.from_pretrained("a/b")'
    headless = RNNSearchConfig(architectures=["RNNSearchModel"])
    assert loading_call(headless, None, "a/b") == 'AutoModel.from_pretrained("a/b")'
