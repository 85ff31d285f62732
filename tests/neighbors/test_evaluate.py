"""evaluate: its evaluator on a saved folder, with our metrics, which need no download.

Folders alone: evaluate 0.4 looks for a class that transformers 5 no longer has when it is given a pipeline or a model.
"""

import evaluate
from datasets import Dataset
from transformers import pipeline

from hf_maskattn.metrics.classification import SingleLabelMetric
from tests.neighbors.conftest import TEXTS


def test_the_evaluator_scores_a_folder_as_its_pipeline_answers(saved):
    model, folder = saved("MaskAttnForSequenceClassification")
    answers = [model.config.label2id[answer["label"]] for answer in pipeline("text-classification", str(folder))(TEXTS)]
    labels = [*answers[:-1], (answers[-1] + 1) % 3]
    scores = evaluate.evaluator("text-classification").compute(
        model_or_pipeline=str(folder),
        data=Dataset.from_dict({"text": TEXTS, "label": labels}),
        metric=SingleLabelMetric(),
        label_mapping=model.config.label2id,
    )
    assert scores["accuracy"] == 1 - 1 / len(TEXTS)
