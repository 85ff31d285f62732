import dataclasses
import subprocess
import sys

import pytest

import hf_maskattn.tasks
from hf_maskattn.tasks import TASKS, ImportPath, loading_call, task_of


@pytest.mark.parametrize(
    ("architectures", "task"),
    [
        (["MaskAttnForSequenceClassification"], "text-classification"),
        (["BertForTokenClassification"], "token-classification"),
        (["MaskAttnForJointClassification"], "joint-classification"),
        (["MaskAttnForMaskedLM"], "fill-mask"),
        (["RNNSearchForConditionalGeneration"], "text2text-generation"),
        (["RNNSearchModel"], None),
        (["MaskAttnModel"], None),
        ([], None),
        (None, None),
    ],
)
def test_task_of_architectures(architectures, task):
    assert task_of(architectures) == task


def test_loading_call_uses_pipeline_or_auto_class():
    assert loading_call("fill-mask", "a/b") == 'pipeline("fill-mask", model="a/b")'
    call = loading_call("fill-mask", "a/b", revision="dev", trust_remote_code=True)
    assert call == 'pipeline("fill-mask", model="a/b", revision="dev", trust_remote_code=True)'
    assert loading_call("text2text-generation", "a/b") == 'AutoModelForSeq2SeqLM.from_pretrained("a/b")'
    assert loading_call("joint-classification", "a/b") == 'pipeline("token-classification", model="a/b")'
    assert loading_call(None, "a/b") == 'AutoModel.from_pretrained("a/b")'


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_every_import_path_of_a_task_exists(task):
    for item in dataclasses.fields(task):
        path = getattr(task, item.name)
        if isinstance(path, ImportPath):
            assert callable(path.load()), path


def test_reading_tasks_imports_no_heavy_package():
    code = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('tasks', {hf_maskattn.tasks.__file__!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "sys.modules['tasks'] = module\n"
        "spec.loader.exec_module(module)\n"
        "print({'torch', 'transformers', 'numpy'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
