import pytest
import torch

from tests.inspection.explained_models import build_model, tag_names


@pytest.fixture(scope="session")
def classifier():
    """A classifier of texts with three classes, two layers and two heads."""
    torch.manual_seed(1)
    return build_model(**tag_names("x", "y", "z"), num_attention_heads=2, num_hidden_layers=2)


@pytest.fixture(scope="session")
def joint():
    """A classifier of texts (x, y) and of their words (O, B-A and I-A, with a CRF)."""
    torch.manual_seed(4)
    names = {**tag_names("O", "B-A", "I-A"), "sequence_label_names": ["x", "y"]}
    return build_model("MaskAttnForJointClassification", **names, use_crf=True, tag_scheme="IOB2")


@pytest.fixture(scope="session")
def tagger():
    """A tagger with the tags O, B-A and I-A."""
    torch.manual_seed(2)
    return build_model("MaskAttnForTokenClassification", **tag_names("O", "B-A", "I-A"))
