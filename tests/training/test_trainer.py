import errno
import logging
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import Seq2SeqTrainingArguments, Trainer, TrainingArguments
from transformers.trainer_pt_utils import LabelSmoother

import hf_maskattn
from hf_maskattn.checkpoints.checkpoints import find_damage, is_complete, is_resumable
from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.recipes.training_defaults import training_arguments
from hf_maskattn.training import trainer as trainer_module
from hf_maskattn.training.assembly import assemble
from hf_maskattn.training.trainer import FiniteLabelSmoother, MaskAttnTrainer
from tests.training.toy_recipe import assemble_toy, read_jsonl, write_jsonl, write_recipe


@pytest.fixture
def masking(tmp_path):
    return assemble_toy(tmp_path, task="fill-mask").trainer


def test_evaluation_order_is_fixed(masking):
    masking.args.dataloader_num_workers, masking.args.dataloader_persistent_workers = 1, True
    first, second = ([batch["input_ids"] for batch in masking.get_eval_dataloader()] for _ in range(2))
    assert all(torch.equal(left, right) for left, right in zip(first, second, strict=True))


def test_evaluation_masks_are_fixed(masking):
    first, second = ([batch["labels"] for batch in masking.get_eval_dataloader()] for _ in range(2))
    assert all(torch.equal(left, right) for left, right in zip(first, second, strict=True))
    assert any((labels != -100).any() for labels in first)


def test_training_masks_depend_on_the_epoch(masking):
    rows = [masking.train_dataset[row] for row in range(8)]
    seen = []

    def look(*args, epoch, **kwargs):
        masking.get_eval_dataloader()
        seen.append(masking.data_collator(rows)["labels"])

    masking.state.max_steps = 10
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_run_epoch", look)
        for epoch in (0, 1, 0):
            masking._run_epoch(epoch=epoch)
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])


@pytest.mark.parametrize("which", ["get_train_dataloader", "get_eval_dataloader"])
def test_persistent_workers_do_not_use_the_global_generator(masking, which):
    masking.args.dataloader_num_workers, masking.args.dataloader_persistent_workers = 1, True
    masking.args.dataloader_prefetch_factor = 1
    before = torch.random.get_rng_state()
    next(iter(getattr(masking, which)()))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_trainer_does_not_overwrite_the_model_card(masking, tmp_path):
    masking.args.output_dir = str(tmp_path)
    (tmp_path / "README.md").write_text("ours")
    masking.create_model_card()
    assert (tmp_path / "README.md").read_text() == "ours"


def test_hub_token_raises(masking, tmp_path):
    arguments = Seq2SeqTrainingArguments(tmp_path, hub_token="hf_secret", use_cpu=True, report_to="none")
    with pytest.raises(ValueError, match=r"hub_token must be None, .* Run `hf auth login`") as caught:
        MaskAttnTrainer(masking.model, arguments)
    assert "hf_secret" not in str(caught.value)


def test_label_smoothing_with_a_crf_raises(tiny_config, tmp_path):
    model = hf_maskattn.MaskAttnForTokenClassification(tiny_config(num_labels=3, use_crf=True))
    arguments = Seq2SeqTrainingArguments(tmp_path, label_smoothing_factor=0.1, use_cpu=True, report_to="none")
    with pytest.raises(ValueError, match=r"label_smoothing_factor must be 0 with use_crf=True, .* got 0.1\."):
        MaskAttnTrainer(model, arguments)


def test_other_training_arguments_raise(masking, tmp_path):
    arguments = TrainingArguments(tmp_path, use_cpu=True, report_to="none")
    with pytest.raises(TypeError, match="args must be Seq2SeqTrainingArguments, got TrainingArguments"):
        MaskAttnTrainer(masking.model, arguments)


@pytest.mark.parametrize("name", ["ReproducibleTrainer", "ReproducibleSeq2SeqTrainer"])
def test_old_name_is_deprecated(name):
    with pytest.warns(FutureWarning, match=f"{name} is deprecated. Use MaskAttnTrainer."):
        assert getattr(trainer_module, name) is MaskAttnTrainer


def test_tied_weights_are_not_reported_as_missing(tmp_path, caplog):
    trainer = assemble_toy(tmp_path, task="text2text-generation").trainer
    caplog.set_level(logging.WARNING, logger="transformers")
    transformers_logger = logging.getLogger("transformers")
    transformers_logger.addHandler(caplog.handler)
    try:
        trainer._issue_warnings_after_load(SimpleNamespace(missing_keys=["lm_head.weight"], unexpected_keys=[]))
        assert caplog.messages == []
        trainer._issue_warnings_after_load(SimpleNamespace(missing_keys=["lm_head.weight", "other"], unexpected_keys=[]))
        assert "['other']" in caplog.messages[0]
    finally:
        transformers_logger.removeHandler(caplog.handler)


@pytest.mark.parametrize("count", [None, 0, torch.tensor(0)])
def test_label_smoother_without_labels_has_no_gradient(count):
    logits = torch.randn(2, 3, 5, requires_grad=True)
    loss = FiniteLabelSmoother(0.1)({"logits": logits}, torch.full((2, 3), -100), num_items_in_batch=count)
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("count", [None, 4, torch.tensor(7)])
def test_label_smoother_matches_transformers(count):
    logits, labels = torch.randn(2, 3, 5), torch.tensor([[1, -100, 4], [0, 0, -100]])
    found, expected = (
        smooth({"logits": logits}, labels, num_items_in_batch=count)
        for smooth in (FiniteLabelSmoother(0.1), LabelSmoother(0.1))
    )
    assert torch.equal(found, expected)


def test_batch_without_masked_tokens_has_a_finite_loss(tmp_path):
    settings = ("per_device_eval_batch_size=1", "label_smoothing_factor=0.1", "logging_nan_inf_filter=false")
    trainer = assemble_toy(tmp_path, *(f"training.{setting}" for setting in settings), task="fill-mask").trainer
    assert min((batch["labels"] != -100).sum() for batch in trainer.get_eval_dataloader()) == 0
    assert trainer.evaluate()["eval_loss"] > 0


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """A Trainer with everything that a checkpoint holds."""
    trainer = assemble_toy(tmp_path_factory.mktemp("ready"), training={"save_total_limit": 2}).trainer
    trainer.create_optimizer_and_scheduler(10)
    return trainer


@pytest.fixture
def save(ready, tmp_path):
    """Writes the checkpoint of a step."""
    ready.args.output_dir = str(tmp_path)

    def at(step):
        ready.state.global_step = step
        ready._save_checkpoint(ready.model, trial=None)
        return tmp_path / f"checkpoint-{step}"

    yield at
    ready.args.push_to_hub = ready.args.save_only_model = False


def test_manifest_is_written_before_older_checkpoints_are_removed(save, ready, monkeypatch):
    seen = []

    def look(newest, limit, best):
        seen.append((newest.name, find_damage(newest), sorted(path.name for path in newest.parent.glob("checkpoint-*")), limit))
        rotate_checkpoints(newest, limit, best)

    rotate_checkpoints = trainer_module.rotate_checkpoints
    monkeypatch.setattr(trainer_module, "rotate_checkpoints", look)
    folders = [save(step) for step in (1, 2, 3)]
    assert seen[-1] == ("checkpoint-3", None, ["checkpoint-1", "checkpoint-2", "checkpoint-3"], 2)
    assert [folder.exists() for folder in folders] == [False, True, True]
    assert ready.args.save_total_limit == 2


def test_manifest_lists_every_file(save):
    folder = save(1)
    for path in [path for path in folder.iterdir() if path.name != "manifest.json"]:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert find_damage(folder) == f"the checksum of {path.name} does not match"
        path.write_bytes(content)
    assert is_resumable(folder)


def test_manifest_is_written_before_a_push(save, ready, monkeypatch):
    pushed = []
    monkeypatch.setattr(Trainer, "_push_from_checkpoint", lambda self, folder: pushed.append(is_complete(Path(folder))))
    ready.args.push_to_hub = True
    save(1)
    assert pushed == [True]


def test_hub_error_is_not_reported_as_a_full_disk(save, ready, monkeypatch):
    def fail(self, folder):
        raise OSError(errno.EPIPE, "the Hub hung up")

    monkeypatch.setattr(Trainer, "_push_from_checkpoint", fail)
    ready.args.push_to_hub = True
    with pytest.raises(OSError, match="the Hub hung up") as raised:
        save(1)
    assert raised.value.errno == errno.EPIPE


def test_save_only_model_is_not_resumable(save, ready):
    ready.args.save_only_model = True
    folder = save(1)
    assert find_damage(folder) is None
    assert not is_resumable(folder)


def test_rewritten_checkpoint_has_no_manifest_until_complete(save, monkeypatch):
    folder = save(1)
    (folder / "stale").write_text("from a run that was killed")

    def killed(self, output_dir):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save_rng_state", killed)
        with pytest.raises(KeyboardInterrupt):
            save(1)
    assert not is_complete(folder)
    assert find_damage(save(1)) is None


def test_full_disk_error_has_folder_file_and_free_space(save, ready, monkeypatch):
    older, write = save(1), torch.save

    def full(content, path):
        if str(path).endswith("optimizer.pt"):
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        write(content, path)

    monkeypatch.setattr(torch, "save", full)
    message = (
        r"checkpoint-2 could not be written completely \(optimizer\.pt: No space left on device\)\. The disk has [\d,]+ MiB"
    )
    with pytest.raises(OSError, match=message):
        save(2)
    assert find_damage(older) is None
    assert ready.args.save_total_limit == 2


def test_other_errors_are_not_changed(save, monkeypatch):
    def broken(self, output_dir):
        raise RuntimeError("a mistake")

    monkeypatch.setattr(Trainer, "_save_scaler", broken)
    with pytest.raises(RuntimeError, match="a mistake"):
        save(1)


def test_damaged_best_checkpoint_raises(save, ready):
    folder = save(1)
    ready.state.best_model_checkpoint = str(folder)
    ready._load_best_model()
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(OSError, match=r"The best checkpoint .*checkpoint-1 cannot be loaded \(model\.saf"):
        ready._load_best_model()
    ready.state.best_model_checkpoint = None
    shutil.rmtree(folder)


@pytest.mark.parametrize("problem_type", [None, "multi_label_classification"])
def test_labels_that_training_lacks_are_scored_as_errors(tmp_path, problem_type):
    def make(row):
        return {**row, "label": row["label"] if problem_type is None else [row["label"]]}

    path = write_recipe(tmp_path, model={"problem_type": problem_type}, make=make)
    args = (load_recipe(path), training_arguments(load_recipe(path)))
    known = assemble(*args)
    rows = read_jsonl(tmp_path / "test.jsonl")
    rows[0]["label"] = "lion" if problem_type is None else ["lion", *rows[0]["label"]]
    write_jsonl(tmp_path / "test.jsonl", rows)
    further = assemble(*args)
    assert further.data.encoder.further_labels == ["lion"]
    assert further.trainer.model.config.num_labels == 2
    before, after = (ready.trainer.predict(ready.data.splits["test"]).metrics for ready in (known, further))
    name = "test_accuracy" if problem_type is None else "test_subset_accuracy"
    assert after[name] in (pytest.approx(before[name]), pytest.approx(before[name] - 1 / 12))
    assert after["test_macro_f1"] < before["test_macro_f1"]
    if problem_type is not None:
        assert after["test_loss"] == pytest.approx(before["test_loss"])
    assert math.isfinite(after["test_loss"])
