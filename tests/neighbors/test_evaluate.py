"""evaluate: its evaluator on a saved folder, with our metrics.

Pipelines and models cannot be passed: evaluate 0.4 needs a class that transformers 5 has removed.
"""

import evaluate
from datasets import Dataset
from transformers import pipeline

from hf_maskattn.metrics.classification import SingleLabelMetric
from tests.neighbors.conftest import TEXTS


def test_evaluator_scores_a_folder_like_its_pipeline(saved):
    model, folder = saved("MaskAttnForSequenceClassification")
    predictions = [
        model.config.label2id[prediction["label"]] for prediction in pipeline("text-classification", str(folder))(TEXTS)
    ]
    labels = [*predictions[:-1], (predictions[-1] + 1) % 3]
    scores = evaluate.evaluator("text-classification").compute(
        model_or_pipeline=str(folder),
        data=Dataset.from_dict({"text": TEXTS, "label": labels}),
        metric=SingleLabelMetric(),
        label_mapping=model.config.label2id,
    )
    assert scores["accuracy"] == 1 - 1 / len(TEXTS)
