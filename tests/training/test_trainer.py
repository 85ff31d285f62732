import errno
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import Trainer, TrainingArguments
from transformers.trainer_pt_utils import LabelSmoother

from hf_maskattn.checkpoints.checkpoints import find_damage, is_complete, is_resumable
from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.recipes.training_defaults import training_arguments
from hf_maskattn.training import trainer as checkpoint_writing
from hf_maskattn.training.assembly import assemble
from hf_maskattn.training.trainer import EpochSeededSampler, FiniteLabelSmoother, ReproducibleTrainer
from tests.training.toy_recipe import write_recipe


@pytest.fixture
def masking(tmp_path):
    recipe = load_recipe(write_recipe(tmp_path, "fill-mask"))
    return assemble(recipe, training_arguments(recipe)).trainer


def order(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


def test_the_order_depends_on_seed_and_epoch_alone():
    lengths = list(range(50))
    one, other = (EpochSeededSampler(4, lengths=lengths, seed=3) for _ in range(2))
    third = order(one, 2)
    torch.rand(7)
    assert order(other, 2) == third
    assert order(one, 1) != third
    assert order(EpochSeededSampler(4, lengths=lengths, seed=4), 2) != third
    assert sorted(third) == lengths


def test_the_order_of_an_evaluation_is_always_the_same(masking):
    masking.args.dataloader_num_workers, masking.args.dataloader_persistent_workers = 1, True
    first, second = ([batch["input_ids"] for batch in masking.get_eval_dataloader()] for _ in range(2))
    assert all(torch.equal(left, right) for left, right in zip(first, second, strict=True))


def test_rows_of_similar_length_stand_together():
    lengths = [row % 10 for row in range(100)]
    rows = order(EpochSeededSampler(5, lengths=lengths, seed=0), 0)
    batches = [[lengths[row] for row in rows[start : start + 5]] for start in range(5, 100, 5)]
    assert sum(max(batch) - min(batch) for batch in batches) / len(batches) < 3


def test_every_evaluation_masks_the_same_tokens(masking):
    first, second = ([batch["labels"] for batch in masking.get_eval_dataloader()] for _ in range(2))
    assert all(torch.equal(left, right) for left, right in zip(first, second, strict=True))
    assert any((labels != -100).any() for labels in first)


def test_every_epoch_of_training_masks_other_tokens(masking):
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
def test_workers_that_persist_do_not_draw_from_where_dropout_draws(masking, which):
    masking.args.dataloader_num_workers, masking.args.dataloader_persistent_workers = 1, True
    masking.args.dataloader_prefetch_factor = 1
    before = torch.random.get_rng_state()
    next(iter(getattr(masking, which)()))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_trainer_does_not_write_a_model_card_over_ours(masking, tmp_path):
    masking.args.output_dir = str(tmp_path)
    (tmp_path / "README.md").write_text("ours")
    masking.create_model_card()
    assert (tmp_path / "README.md").read_text() == "ours"


def test_a_token_that_would_be_pickled_is_refused(masking, tmp_path):
    arguments = TrainingArguments(tmp_path, hub_token="hf_secret", use_cpu=True, report_to="none")
    with pytest.raises(ValueError, match=r"hub_token is written to every training_args.bin: .* run `hf auth login`") as caught:
        ReproducibleTrainer(masking.model, arguments)
    assert "hf_secret" not in str(caught.value)


def test_weights_that_are_tied_are_not_called_missing(tmp_path, caplog):
    recipe = load_recipe(write_recipe(tmp_path, "text2text-generation"))
    trainer = assemble(recipe, training_arguments(recipe)).trainer
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
def test_smoothed_labels_of_which_none_is_left_change_nothing(count):
    logits = torch.randn(2, 3, 5, requires_grad=True)
    loss = FiniteLabelSmoother(0.1)({"logits": logits}, torch.full((2, 3), -100), num_items_in_batch=count)
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("count", [None, 4, torch.tensor(7)])
def test_labels_are_smoothed_as_transformers_does(count):
    logits, labels = torch.randn(2, 3, 5), torch.tensor([[1, -100, 4], [0, 0, -100]])
    found, expected = (
        smooth({"logits": logits}, labels, num_items_in_batch=count)
        for smooth in (FiniteLabelSmoother(0.1), LabelSmoother(0.1))
    )
    assert torch.equal(found, expected)


def test_a_batch_without_masked_tokens_has_a_smoothed_loss(tmp_path):
    settings = ("per_device_eval_batch_size=1", "label_smoothing_factor=0.1", "logging_nan_inf_filter=false")
    recipe = load_recipe(write_recipe(tmp_path, "fill-mask"), [f"training.{setting}" for setting in settings])
    trainer = assemble(recipe, training_arguments(recipe)).trainer
    assert min((batch["labels"] != -100).sum() for batch in trainer.get_eval_dataloader()) == 0
    assert trainer.evaluate()["eval_loss"] > 0


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """A Trainer with everything that a checkpoint holds."""
    recipe = load_recipe(write_recipe(tmp_path_factory.mktemp("ready"), training={"save_total_limit": 2}))
    trainer = assemble(recipe, training_arguments(recipe)).trainer
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


def test_a_checkpoint_is_sealed_before_an_older_one_is_removed(save, ready, monkeypatch):
    seen = []

    def look(newest, limit, best):
        seen.append((newest.name, find_damage(newest), sorted(path.name for path in newest.parent.glob("checkpoint-*")), limit))
        rotate_checkpoints(newest, limit, best)

    rotate_checkpoints = checkpoint_writing.rotate_checkpoints
    monkeypatch.setattr(checkpoint_writing, "rotate_checkpoints", look)
    folders = [save(step) for step in (1, 2, 3)]
    assert seen[-1] == ("checkpoint-3", None, ["checkpoint-1", "checkpoint-2", "checkpoint-3"], 2)
    assert [folder.exists() for folder in folders] == [False, True, True]
    assert ready.args.save_total_limit == 2


def test_all_that_lies_in_it_is_listed(save):
    folder = save(1)
    for path in [path for path in folder.iterdir() if path.name != "manifest.json"]:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert find_damage(folder) == f"the checksum of {path.name} does not match"
        path.write_bytes(content)
    assert is_resumable(folder)


def test_what_is_pushed_is_sealed_before(save, ready, monkeypatch):
    pushed = []
    monkeypatch.setattr(Trainer, "_push_from_checkpoint", lambda self, folder: pushed.append(is_complete(Path(folder))))
    ready.args.push_to_hub = True
    save(1)
    assert pushed == [True]


def test_an_error_of_the_hub_is_not_taken_for_a_full_disk(save, ready, monkeypatch):
    def refuse(self, folder):
        raise OSError(errno.EPIPE, "the Hub hung up")

    monkeypatch.setattr(Trainer, "_push_from_checkpoint", refuse)
    ready.args.push_to_hub = True
    with pytest.raises(OSError, match="the Hub hung up") as raised:
        save(1)
    assert raised.value.errno == errno.EPIPE


def test_a_model_alone_is_marked_as_such(save, ready):
    ready.args.save_only_model = True
    folder = save(1)
    assert find_damage(folder) is None
    assert not is_resumable(folder)


def test_a_checkpoint_that_is_written_again_is_not_trusted_until_it_is_whole(save, monkeypatch):
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


def test_a_full_disk_is_told_with_folder_file_and_room(save, ready, monkeypatch):
    older, write = save(1), torch.save

    def full(content, path):
        if str(path).endswith("optimizer.pt"):
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        write(content, path)

    monkeypatch.setattr(torch, "save", full)
    words = r"checkpoint-2 could not be written to its end \(optimizer\.pt: No space left on device\); [\d,]+ MiB are free"
    with pytest.raises(OSError, match=words):
        save(2)
    assert find_damage(older) is None
    assert ready.args.save_total_limit == 2


def test_other_errors_stay_as_they_are(save, monkeypatch):
    def broken(self, output_dir):
        raise RuntimeError("a mistake")

    monkeypatch.setattr(Trainer, "_save_scaler", broken)
    with pytest.raises(RuntimeError, match="a mistake"):
        save(1)


def test_a_damaged_best_checkpoint_is_not_loaded(save, ready):
    folder = save(1)
    ready.state.best_model_checkpoint = str(folder)
    ready._load_best_model()
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(OSError, match=r"the best checkpoint, .*checkpoint-1, cannot be used any more \(model\.saf"):
        ready._load_best_model()
    ready.state.best_model_checkpoint = None
    shutil.rmtree(folder)
