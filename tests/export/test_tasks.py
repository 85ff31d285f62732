import pytest

from hf_maskattn.export.tasks import task_of


@pytest.mark.parametrize(
    ("architectures", "task"),
    [
        (["MaskAttnForSequenceClassification"], "text-classification"),
        (["BertForTokenClassification"], "token-classification"),
        (["MaskAttnForMaskedLM"], "fill-mask"),
        (["MaskAttnModel"], None),
        ([], None),
        (None, None),
    ],
)
def test_the_class_tells_the_task(architectures, task):
    assert task_of(architectures) == task
