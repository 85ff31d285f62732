import inspect

import pytest

import hf_maskattn
from tests.clean_process import run_clean
from tests.toy_folder import write_model_folder

EXPORTS = [
    "AuditReport",
    "DistillationArguments",
    "DistillationTrainer",
    "Explanation",
    "MaskAttnConfig",
    "MaskAttnForJointClassification",
    "MaskAttnForMaskedLM",
    "MaskAttnForSequenceClassification",
    "MaskAttnForTokenClassification",
    "MaskAttnModel",
    "MaskAttnPreTrainedModel",
    "RNNSearchConfig",
    "RNNSearchForConditionalGeneration",
    "RNNSearchModel",
    "RNNSearchPreTrainedModel",
    "alignment_maps",
    "attention_maps",
    "audit",
    "evaluate",
    "explain",
    "export_onnx",
    "load_embeddings",
    "load_recipe",
    "predict",
    "publish",
    "train",
    "train_tokenizer",
    "tune",
]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return write_model_folder(tmp_path_factory.mktemp("model"))


def test_exports_are_pinned():
    assert hf_maskattn.__all__ == EXPORTS
    assert set(EXPORTS) <= set(dir(hf_maskattn))
    for name in EXPORTS:
        assert inspect.getdoc(getattr(hf_maskattn, name)), name
    with pytest.raises(AttributeError, match="module 'hf_maskattn' has no attribute 'MaskAttn'"):
        hf_maskattn.MaskAttn  # noqa: B018


def test_exports_are_known_to_type_checkers():
    source = inspect.getsource(hf_maskattn).partition("if TYPE_CHECKING:")[2].partition("__version__")[0]
    assert all(f" {name}\n" in source or f" {name},\n" in source or f" {name}, " in source for name in EXPORTS)


def test_import_is_lazy(tmp_path):
    probe = """
        import sys
        import hf_maskattn
        print(*sorted({"torch", "transformers", "datasets", "numpy", "sklearn"} & set(sys.modules)))
        print(hf_maskattn.MaskAttnConfig.__name__, "torch" in sys.modules)
    """
    done = run_clean(probe, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["", "MaskAttnConfig True"]


USES = {
    "pipeline": "from transformers import pipeline; print(type(pipeline('text-classification', FOLDER).model).__name__)",
    "auto_model": "from transformers import AutoModelForSequenceClassification as A; "
    "print(type(A.from_pretrained(FOLDER)).__name__)",
    "auto_config": "from transformers import AutoConfig, AutoModelForSequenceClassification as A; "
    "print(type(A.from_config(AutoConfig.from_pretrained(FOLDER))).__name__)",
    "auto_config_module": "from transformers.models.auto.configuration_auto import CONFIG_MAPPING; "
    "print(CONFIG_MAPPING['maskattn'].__name__)",
    "for_model": "from transformers import AutoConfig; print(type(AutoConfig.for_model('maskattn')).__name__)",
    "auto_tokenizer": "from transformers import AutoTokenizer; print(type(AutoTokenizer.from_pretrained(FOLDER)).__name__)",
    "own_config": "from transformers import AutoModelForSequenceClassification as A; "
    "print(type(A.from_config(hf_maskattn.MaskAttnConfig())).__name__)",
    "config_module": "from hf_maskattn.model.configuration_maskattn import MaskAttnConfig; "
    "from transformers import AutoModelForSequenceClassification as A; print(type(A.from_config(MaskAttnConfig())).__name__)",
    "seq2seq": "from transformers import AutoConfig, AutoModelForSeq2SeqLM as A; "
    "print(type(A.from_config(AutoConfig.for_model('maskattn_rnnsearch'))).__name__)",
    "all_configs": "from transformers import CONFIG_MAPPING; print('maskattn' in list(CONFIG_MAPPING))",
    "reload": "import importlib; importlib.reload(hf_maskattn); from transformers import AutoConfig; "
    "print(type(AutoConfig.for_model('maskattn')).__name__)",
    "saved_code": "hf_maskattn.MaskAttnModel(hf_maskattn.MaskAttnConfig(vocab_size=9)).save_pretrained('new'); "
    "import os; print('modeling_maskattn.py' in os.listdir('new'))",
}
IMPORTS = {
    "first": "import hf_maskattn\n",
    "after transformers": "import transformers\nimport hf_maskattn\n",
    "after Auto classes": "from transformers import AutoModel, AutoTokenizer, Trainer\nimport hf_maskattn\n",
}
ORDERS = [("first", use) for use in USES] + [
    ("after transformers", "auto_tokenizer"),
    ("after Auto classes", "auto_model"),
    ("after Auto classes", "own_config"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("order", "use"), ORDERS)
def test_models_are_registered_on_first_use(model_folder, tmp_path, order, use):
    done = run_clean(IMPORTS[order] + f"FOLDER = {str(model_folder)!r}\n" + USES[use], tmp_path)
    assert done.returncode == 0, done.stderr
    answers = ("MaskAtt", "RNNSearch", "True")
    assert done.stdout.strip().startswith(answers), done.stdout


@pytest.mark.slow
def test_registration_is_resumed_after_an_interruption(tmp_path):
    probe = """
        import hf_maskattn, hf_maskattn.auto as auto
        complete, auto._register = auto._register, lambda: 1 / 0
        from transformers import AutoConfig
        try:
            AutoConfig.for_model("maskattn")
        except ZeroDivisionError:
            auto._register = complete
        print(type(AutoConfig.for_model("maskattn")).__name__)
    """
    assert run_clean(probe, tmp_path).stdout == "MaskAttnConfig\n"
