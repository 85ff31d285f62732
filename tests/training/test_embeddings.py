"""Training with pretrained embeddings: frozen, with a learning rate of their own, resumed, and without their source."""

import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, TrainerCallback

from hf_maskattn import evaluate, load_recipe, train
from hf_maskattn.embeddings.pretrained import PretrainedEmbeddings
from hf_maskattn.recipes.training_defaults import training_arguments
from hf_maskattn.training import train as train_module
from hf_maskattn.training.assembly import assemble
from hf_maskattn.training.callbacks import TrainingInterrupted
from hf_maskattn.training.trainer import MaskAttnTrainer
from tests.distributed.run_commands import AtStep
from tests.embeddings.toy_source import PIECES, SIZE, WORDS, write_source, write_vectors
from tests.training.toy_recipe import write_recipe

STEPS_PER_EPOCH = 5
EMBEDDINGS = "maskattn.word_embeddings.weight"
STATIC = ("model.embeddings_kind=static", "data.vocabulary=prune")


class EmbeddingsOfEachStep(TrainerCallback):
    """Keeps a copy of the embeddings before the first and after each step."""

    def __init__(self, trainer):
        self.trainer = trainer
        self.copies = [self.weight.detach().clone()]

    @property
    def weight(self):
        return self.trainer.model.get_input_embeddings().weight

    def on_step_end(self, args, state, control, **kwargs):
        self.copies.append(self.weight.detach().clone())

    def changes(self):
        """Return by how much each step changed the embeddings."""
        return [float((new - old).abs().max()) for old, new in zip(self.copies, self.copies[1:], strict=False)]


@pytest.fixture
def vectors_recipe(tmp_path):
    """A recipe with word vectors."""
    write_vectors(tmp_path / "vectors.vec", WORDS)
    training = {
        "weight_decay": 0.1,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0,
        "eval_strategy": "no",
        "save_strategy": "no",
    }
    return write_recipe(tmp_path, model={"embeddings": str(tmp_path / "vectors.vec")}, training=training)


@pytest.fixture
def model_recipe(tmp_path, monkeypatch):
    """A recipe with a model that a test may remove."""
    monkeypatch.setattr("hf_maskattn.data.cache.HF_HOME", str(tmp_path / "cache"))
    write_source(tmp_path / "source")
    model = {"embeddings": str(tmp_path / "source")}
    return write_recipe(tmp_path, model=model, data={"tokenizer": None, "vocab_size": None})


def build(path, *overrides):
    recipe = load_recipe(path, overrides)
    return assemble(recipe, training_arguments(recipe)).trainer


def train_and_watch(path, *overrides):
    trainer = build(path, *overrides)
    callback = EmbeddingsOfEachStep(trainer)
    trainer.add_callback(callback)
    trainer.train()
    return callback.changes()


def test_embeddings_are_frozen_for_some_epochs(vectors_recipe):
    batches = ("training.per_device_train_batch_size=4", "training.gradient_accumulation_steps=2")
    changes = train_and_watch(vectors_recipe, "model.freeze_embeddings=1", *batches)
    assert changes[:STEPS_PER_EPOCH] == [0] * STEPS_PER_EPOCH
    assert len(changes) == 2 * STEPS_PER_EPOCH
    assert min(changes[STEPS_PER_EPOCH:]) > 0


def test_embeddings_are_frozen_for_good(vectors_recipe):
    assert train_and_watch(vectors_recipe, "model.freeze_embeddings=true", "training.max_steps=2") == [0, 0]


def test_frozen_embeddings_do_not_count_in_the_gradient_norm(vectors_recipe):
    norms = []
    for frozen in ("1", "true"):
        trainer = build(vectors_recipe, f"model.freeze_embeddings={frozen}", "training.logging_steps=1", "training.max_steps=2")
        trainer.args.max_grad_norm = 1.0
        trainer.train()
        norms.append([entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry])
    assert norms[0] == pytest.approx(norms[1])


def test_embeddings_have_their_own_learning_rate(vectors_recipe):
    trainer = build(vectors_recipe, "model.embeddings_learning_rate=1e-3", "training.lr_scheduler_type=linear")
    trainer.create_optimizer_and_scheduler(num_training_steps=10)
    weight = trainer.model.get_input_embeddings().weight
    *groups, own = trainer.optimizer.param_groups
    assert [group["initial_lr"] for group in groups] == [1e-2, 1e-2]
    assert (own["initial_lr"], own["weight_decay"], len(own["params"])) == (1e-3, 0.1, 1)
    assert own["params"][0] is weight
    assert sum(len(group["params"]) for group in groups) == len([*trainer.model.parameters()]) - 1
    trainer.optimizer.step()
    trainer.lr_scheduler.step()
    assert trainer.lr_scheduler.get_last_lr() == pytest.approx([9e-3, 9e-3, 9e-4])


def test_own_learning_rate_needs_an_optimizer_with_the_weights(vectors_recipe, monkeypatch):
    trainer = build(vectors_recipe, "model.embeddings_learning_rate=1e-3")
    other = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])
    monkeypatch.setattr("hf_maskattn.training.trainer.Seq2SeqTrainer.create_optimizer", lambda self, model=None: other)
    with pytest.raises(ValueError, match=r"embeddings_learning_rate=0.001 is not supported with optim=adamw_torch"):
        trainer.create_optimizer()


def test_own_learning_rate_of_frozen_embeddings_is_an_error(vectors_recipe):
    trainer = build(vectors_recipe)
    with pytest.raises(ValueError, match=r"embeddings_learning_rate=0\.1 has no effect with freeze_embeddings=True"):
        MaskAttnTrainer(trainer.model, trainer.args, freeze_embeddings=True, embeddings_learning_rate=0.1)


def test_deepspeed_is_an_error(vectors_recipe, monkeypatch):
    create = MaskAttnTrainer.create_accelerator_and_postprocess

    def create_with_deepspeed(trainer):
        create(trainer)
        trainer.is_deepspeed_enabled = True

    monkeypatch.setattr(MaskAttnTrainer, "create_accelerator_and_postprocess", create_with_deepspeed)
    with pytest.raises(ValueError, match=r"freeze_embeddings and embeddings_learning_rate are not supported with DeepSpeed"):
        build(vectors_recipe, "model.freeze_embeddings=1")


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [(), STATIC], ids=["input", "static, pruned"])
def test_run_resumes_and_evaluates_without_its_source(model_recipe, tmp_path, monkeypatch, overrides):
    overrides = (*overrides, "model.freeze_embeddings=1", "model.embeddings_learning_rate=1e-3")
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    train(load_recipe(model_recipe, [*overrides, f"training.output_dir={unbroken}"]))
    with monkeypatch.context() as patch:
        patch.setattr(train_module, "KeepTrackOfBest", lambda: AtStep("interrupt", 3, 0))
        with pytest.raises(TrainingInterrupted):
            train(load_recipe(model_recipe, [*overrides, f"training.output_dir={broken}"]))
    shutil.rmtree(tmp_path / "source")
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    monkeypatch.chdir(tmp_path)  # the source by its relative path, which no longer exists
    recipe = load_recipe(broken / "recipe.yaml", ["model.embeddings=source"])
    report = train(recipe, resume=True)
    assert (broken / "model.safetensors").read_bytes() == (unbroken / "model.safetensors").read_bytes()
    again = evaluate(broken, load_recipe(broken / "recipe.yaml"), "test").metrics["test"]
    assert again["accuracy"] == report.metrics["test"]["accuracy"]


def test_run_has_a_pruned_vocabulary_and_names_its_source(model_recipe, tmp_path):
    train(load_recipe(model_recipe, ["data.vocabulary=prune", "model.freeze_embeddings=true", "training.max_steps=1"]))
    assert " Its embeddings were initialized with source. Padding" in (tmp_path / "run" / "README.md").read_text()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run")
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    assert {*PIECES} - {*tokens} == {"[unused]", "pa", "##ls", "tai"}
    weight = load_file(tmp_path / "run" / "model.safetensors")[EMBEDDINGS]
    expected = PretrainedEmbeddings(str(tmp_path / "source")).load(tokens)[1][1:]
    assert len(weight) == len(tokens) < len(PIECES)
    # The inner products of the rows are those of the source, up to the scale and what 6 of 8 dimensions leave.
    _, values, _ = torch.linalg.svd(expected)
    kept = torch.linalg.svdvals(weight[1:])
    torch.testing.assert_close(kept / kept[0], values[:6] / values[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["model.embedding_size=9"], ValueError, rf"embedding_size must be at most {SIZE}, the size of .*source, got 9"),
        (["model.embeddings=nothing"], FileNotFoundError, r"The model 'nothing' is not a folder"),
        (["model.embeddings=none.vec", "data.tokenizer=word"], FileNotFoundError, r"must exist, got 'none.vec'"),
    ],
)
def test_source_is_checked_before_the_data(model_recipe, monkeypatch, overrides, error, message):
    monkeypatch.setattr("hf_maskattn.training.task_data.load_splits", lambda *args, **kwargs: pytest.fail("data was loaded"))
    with pytest.raises(error, match=message):
        train(load_recipe(model_recipe, overrides))
