"""Training runs of taggers with a CRF."""

import logging
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.training import train as train_module
from hf_maskattn.training.train import train
from tests.distributed.run_commands import AtStep
from tests.training.toy_recipe import assemble_toy, write_recipe

TASK = "token-classification"


@pytest.mark.parametrize("overrides", [[], ["data.tag_scheme=none"]])
def test_tags_without_scheme_are_reported_once(tmp_path, caplog, overrides):
    def make(row):
        return {**row, "tags": ["NOUN"] * len(row["tags"])}

    overrides = ["data.labels=[NOUN,VERB]", *overrides]
    with caplog.at_level(logging.WARNING, logger="hf_maskattn"):
        crf = assemble_toy(tmp_path, *overrides, task=TASK, model={"use_crf": True}, make=make).trainer.model.crf
    assert not crf.transition_constraints.any()
    messages = [record.getMessage() for record in caplog.records if "CRF" in record.getMessage()]
    assert messages == [
        "The tags belong to no scheme, so that the CRF allows all transitions. If they mark entities, set data.tag_scheme."
    ]


def test_violations_of_the_scheme_are_counted_and_trained_on(tmp_path, caplog):
    def break_scheme(row):
        return {"tokens": ["purr", "paw", "paw"], "tags": ["O", "I-SOUND", "B-SOUND"]}

    settings = {"task": TASK, "model": {"use_crf": True}, "make": break_scheme}
    with caplog.at_level(logging.WARNING, logger="hf_maskattn"):
        trainer = assemble_toy(tmp_path, "data.tag_scheme=IOB2", **settings).trainer
    (message,) = [record.getMessage() for record in caplog.records if "violate" in record.getMessage()]
    assert message.startswith("64 tags in the column 'tags' violate the scheme IOB2")
    assert "the first is I-SOUND in " in message
    assert "train.jsonl, line 1" in message
    assert "Set data.tag_scheme" in message
    batch = trainer.data_collator([trainer.train_dataset[0]])
    assert trainer.model(**batch).loss.isfinite()


@pytest.mark.slow
@pytest.mark.parametrize("use_crf", [True, False])
def test_fine_tuned_run_with_another_crf_resumes_with_the_same_bits(tmp_path, monkeypatch, use_crf):
    path = write_recipe(tmp_path, TASK, model={"use_crf": not use_crf})
    pretrained = train(load_recipe(path, [f"training.output_dir={tmp_path / 'pretrained'}"])).model_folder
    sizes = dict.fromkeys(("embedding_size", "hidden_size", "attention_size"))
    model = {"pretrained": str(pretrained), "use_crf": use_crf, **sizes}
    path = write_recipe(tmp_path, TASK, model=model, data={"tokenizer": None, "vocab_size": None})
    full = train(load_recipe(path, [f"training.output_dir={tmp_path / 'full'}"]))
    with monkeypatch.context() as patch:
        patch.setattr(train_module, "KeepTrackOfBest", partial(AtStep, "fail", 8, 0))
        with pytest.raises(ValueError, match="this row is broken"):
            train(load_recipe(path))
    resumed = train(load_recipe(path), resume=True)
    expected, found = (load_file(report.model_folder / "model.safetensors") for report in (full, resumed))
    assert ("crf.transitions" in found) == use_crf
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert resumed.metrics["test"]["f1"] == full.metrics["test"]["f1"]
