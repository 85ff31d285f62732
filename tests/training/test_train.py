import json
import logging
import os
import signal
from dataclasses import asdict

import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hf_maskattn.checkpoints.run_folder import lock_run_folder
from hf_maskattn.inference.evaluate import evaluate
from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.tasks import TASKS
from hf_maskattn.training import train as train_module
from hf_maskattn.training.callbacks import KeepTrackOfBest, TrainingInterrupted
from hf_maskattn.training.results import RunReport
from hf_maskattn.training.train import train
from tests.training.toy_recipe import load_toy, with_a_number, with_several_labels, write_recipe

STEPS_PER_EPOCH = 5


def without_times(metrics):
    return {
        split: {name: value for name, value in values.items() if name not in ("runtime", "samples_per_second")}
        for split, values in metrics.items()
    }


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("task", TASKS)
def test_run_folder_is_complete_and_evaluates_the_same(tmp_path, task):
    recipe = load_toy(tmp_path, task=task)
    report = train(recipe)
    folder = tmp_path / "run"
    assert report.model_folder == folder
    written = json.loads((folder / "metrics.json").read_text())
    assert written["metrics"] == report.metrics
    assert written["attention"] == asdict(report.attention)
    assert report.attention.describe() in (folder / "README.md").read_text()
    assert set(written["versions"]) == {"python", "hf_maskattn", "torch", "transformers", "datasets", "accelerate"}
    assert (folder / written["best_checkpoint"]).is_dir()
    assert {"README.md", "recipe.yaml", "trainer_state.json", "tokenizer.json"} <= set(os.listdir(folder))
    for split in ("validation", "test"):
        again = evaluate(folder, load_recipe(folder / "recipe.yaml"), split).metrics
        assert without_times(again)[split] == without_times(report.metrics)[split]


def test_model_learns_and_the_best_checkpoint_is_kept(tmp_path):
    report = train(load_toy(tmp_path, "training.num_train_epochs=8", "training.learning_rate=0.03"))
    history = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
    evaluations = [entry for entry in history if "eval_loss" in entry]
    best = max(evaluations, key=lambda entry: (entry["eval_accuracy"], -entry["eval_loss"]))
    equal = [entry for entry in evaluations if entry["eval_accuracy"] == best["eval_accuracy"]]
    assert len(equal) > 1
    assert best != equal[0]
    assert report.best.step == best["step"]
    assert report.metrics["validation"]["accuracy"] == 1.0
    assert report.metrics["validation"]["loss"] == pytest.approx(best["eval_loss"])
    assert report.metrics["train"]["steps"] == 8 * STEPS_PER_EPOCH


def test_labels_and_tokenizer_are_saved_with_the_model(finished):
    model = AutoModelForSequenceClassification.from_pretrained(finished.parent / "run")
    tokenizer = AutoTokenizer.from_pretrained(finished.parent / "run")
    assert model.config.id2label == {0: "cat", 1: "dog"}
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert tokenizer.model_max_length == 512


@pytest.mark.parametrize(
    ("problem_type", "make", "names"),
    [
        ("multi_label_classification", with_several_labels, {"micro_f1", "macro_f1", "subset_accuracy"}),
        ("regression", with_a_number, {"mse", "pearson"}),
    ],
)
def test_other_problems_are_scored_and_evaluated_the_same(tmp_path, problem_type, make, names):
    recipe = load_toy(tmp_path, model={"problem_type": problem_type}, make=make)
    scores = train(recipe).metrics["test"]
    again = evaluate(tmp_path / "run", recipe).metrics["test"]
    assert names <= scores.keys()
    assert {name: again[name] for name in names} == {name: scores[name] for name in names}


def test_run_without_other_splits_reports_train_only(tmp_path):
    report = train(load_toy(tmp_path, "data.validation_file=", "data.test_file=", "training.num_train_epochs=1"))
    assert set(report.metrics) == {"train"}


def test_folder_that_is_not_empty_raises_before_loading(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="must be an empty folder"):
        train(load_toy(tmp_path, "data.train_file=nowhere.jsonl"))


@pytest.mark.parametrize("how", ["resume", "overwrite"])
def test_folder_without_a_run_is_not_changed(tmp_path, how):
    mine = ("README.md", "config.json", "losses.py", "metrics.json", "manifest.json")
    (tmp_path / "run").mkdir()
    for name in mine:
        (tmp_path / "run" / name).write_text("mine")
    with pytest.raises(ValueError, match="must be the folder of a run or empty"):
        train(load_toy(tmp_path, "data.train_file=nowhere.jsonl"), **{how: True})
    assert {path.name: path.read_text() for path in (tmp_path / "run").iterdir()} == dict.fromkeys(mine, "mine")


def test_overwrite_replaces_only_files_of_the_run(tmp_path):
    train(load_toy(tmp_path, "training.max_steps=1", "data.validation_file=", "data.test_file="))
    (tmp_path / "run" / "notes.txt").write_text("mine")
    train(
        load_toy(tmp_path, "training.num_train_epochs=1", "model.hidden_size=4", "data.validation_file=", "data.test_file="),
        overwrite=True,
    )
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "run").config.hidden_size == 4
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
    checkpoints = [name for name in os.listdir(tmp_path / "run") if name.startswith("checkpoint-")]
    assert checkpoints == [f"checkpoint-{STEPS_PER_EPOCH}"]


@pytest.mark.parametrize("override", ["data.label_column=lable", "model.num_attention_heads=3"])
def test_invalid_recipe_does_not_overwrite_a_run(finished, override):
    before = sorted((finished.parent / "run").rglob("*"))
    with pytest.raises(ValueError, match=override.split(".")[1].split("=")[0]):
        train(load_recipe(finished, [override]), overwrite=True)
    assert sorted((finished.parent / "run").rglob("*")) == before


@pytest.mark.parametrize(
    ("strategy", "step"),
    [
        ("group_by_length", 3),
        *(pytest.param("group_by_length", step, marks=pytest.mark.slow) for step in (STEPS_PER_EPOCH, 8, 2 * STEPS_PER_EPOCH)),
        pytest.param("random", 8, marks=pytest.mark.slow),
    ],
)
def test_resumed_run_equals_an_uninterrupted_run(tmp_path, interrupt_at, step, strategy):
    sampling = f"training.train_sampling_strategy={strategy}"
    full = train(load_toy(tmp_path, f"training.output_dir={tmp_path / 'full'}", sampling))
    recipe = load_toy(tmp_path, sampling)
    interrupt_at(step)
    with pytest.raises(TrainingInterrupted) as stopped:
        train(recipe)
    assert stopped.value.checkpoint == tmp_path / "run" / f"checkpoint-{step}"
    assert not (tmp_path / "run" / "metrics.json").exists()
    interrupt_at(0)
    resumed = train(recipe, resume=True)
    assert weights(tmp_path / "run") == weights(tmp_path / "full")
    for split in ("validation", "test"):
        assert without_times(resumed.metrics)[split] == without_times(full.metrics)[split]


@pytest.fixture
def stream(tmp_path):
    """Builds recipes that stream three files, with a second pass after five steps."""

    def build(folder, task="text-classification", *overrides):
        path = write_recipe(tmp_path, task, data={"streaming": True, "shuffle_buffer": 9}, training={"max_steps": 9})
        lines = (tmp_path / "train.jsonl").read_text().splitlines(keepends=True)
        (tmp_path / "shards").mkdir(exist_ok=True)
        for shard in range(3):
            (tmp_path / "shards" / f"{shard}.jsonl").write_text("".join(lines[shard::3]))
        locations = (f"data.train_file={tmp_path}/shards/*.jsonl", f"training.output_dir={tmp_path / folder}")
        return load_recipe(path, [*locations, *overrides])

    return build


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "step", "overrides"),
    [
        ("fill-mask", 7, ("data.validation_file=", "data.test_file=")),
        ("text-classification", 3, ()),
        ("text-classification", 7, ("training.dataloader_num_workers=2", "data.validation_file=", "data.test_file=")),
        ("token-classification", 4, ("training.gradient_accumulation_steps=2",)),
        ("text2text-generation", 4, ("data.validation_file=",)),
    ],
)
def test_resumed_stream_equals_an_uninterrupted_stream(tmp_path, interrupt_at, stream, task, step, overrides):
    full = train(stream("full", task, *overrides))
    interrupt_at(step)
    with pytest.raises(TrainingInterrupted):
        train(stream("run", task, *overrides))
    interrupt_at(0)
    resumed = train(stream("run", task, *overrides), resume=True)
    assert weights(tmp_path / "run") == weights(tmp_path / "full")
    assert without_times(resumed.metrics).get("test") == without_times(full.metrics).get("test")
    assert json.loads((tmp_path / "run" / "trainer_state.json").read_text())["epoch"] == 1.0


def test_stream_trains_for_max_steps(tmp_path, stream):
    report = train(stream("run"))
    assert report.metrics["train"].keys() == {"steps", "loss", "runtime", "samples_per_second"}
    assert report.metrics["train"]["steps"] == 9
    assert "train not counted (a stream), validation 12" in (tmp_path / "run" / "README.md").read_text()
    (tmp_path / "run" / "metrics.json").unlink()
    again = train(stream("run"), resume=True)
    assert again.metrics["train"] == {"steps": 9.0}
    assert without_times(again.metrics)["test"] == without_times(report.metrics)["test"]


def test_interrupt_keeps_its_checkpoint_with_save_total_limit_1(tmp_path, interrupt_at):
    interrupt_at(STEPS_PER_EPOCH + 2)
    with pytest.raises(TrainingInterrupted) as stopped:
        train(load_toy(tmp_path, "training.save_total_limit=1"))
    assert stopped.value.checkpoint.is_dir()
    assert (tmp_path / "run" / f"checkpoint-{STEPS_PER_EPOCH}").is_dir()


def test_second_interrupt_stops_at_once(tmp_path, monkeypatch, capfd):
    class Impatient(KeepTrackOfBest):
        def on_step_begin(self, args, state, control, **kwargs):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(train_module, "KeepTrackOfBest", Impatient)
    with pytest.raises(KeyboardInterrupt):
        train(load_toy(tmp_path))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert "Press Ctrl-C again to stop at once" in capfd.readouterr().err


def test_resuming_a_finished_run_changes_nothing(finished, caplog):
    folder = finished.parent / "run"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    metrics = json.loads((folder / "metrics.json").read_text())["metrics"]
    with caplog.at_level(logging.INFO):
        assert train(load_recipe(finished), resume=True).metrics == metrics
    assert "is already finished" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_run_without_results_is_evaluated_again(tmp_path):
    recipe = load_toy(tmp_path)
    report = train(recipe)
    (tmp_path / "run" / "metrics.json").unlink()
    again = train(recipe, resume=True)
    assert again.metrics["train"] == {"steps": 2.0 * STEPS_PER_EPOCH, "epochs": 2.0}
    assert without_times(again.metrics)["test"] == without_times(report.metrics)["test"]


def test_finished_run_can_be_trained_longer(tmp_path, caplog):
    train(load_toy(tmp_path))
    report = train(load_toy(tmp_path, "training.num_train_epochs=3"), resume=True)
    assert "training.num_train_epochs changes from 2 to 3." in caplog.text
    assert report.metrics["train"]["steps"] == 3 * STEPS_PER_EPOCH


def checkpoints(folder):
    return {path.name for path in folder.glob("checkpoint-*")}


def test_best_and_last_checkpoint_stay(tmp_path):
    # With a learning rate of 0 the first evaluation stays the best one.
    train(load_toy(tmp_path, "training.learning_rate=0", "training.num_train_epochs=3"))
    assert checkpoints(tmp_path / "run") == {"checkpoint-5", "checkpoint-15"}
    report = RunReport.load(tmp_path / "run")
    assert (report.best.step, report.best.epoch, report.best.metric) == (5, 1.0, "accuracy")
    assert str(report.best).startswith("epoch 1, step 5, with accuracy 0.")
    assert report.attention.rows == 12


def test_run_without_checkpoints_is_not_trained_longer(tmp_path):
    recipe = load_toy(tmp_path, "training.keep_checkpoints=none")
    before = train(recipe)
    assert checkpoints(tmp_path / "run") == set()
    assert train(recipe, resume=True).metrics == before.metrics
    assert train(load_toy(tmp_path), resume=True).metrics == before.metrics
    content = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(ValueError, match=r"cannot be trained further, because it has no checkpoint .* Train from its weights"):
        train(load_toy(tmp_path, "training.num_train_epochs=3", "training.keep_checkpoints=none"), resume=True)
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == content


def test_run_is_not_resumed_with_another_model(finished):
    with pytest.raises(ValueError, match=r"model\.hidden_size must be 8, as in the run in .*, got 4\. Resume with"):
        train(load_recipe(finished, ["model.hidden_size=4"]), resume=True)


def test_resume_without_checkpoint_starts_from_the_beginning(tmp_path, caplog):
    report = train(load_toy(tmp_path, "training.num_train_epochs=1"), resume=True)
    assert "Training starts from the beginning" in caplog.text
    assert report.metrics["train"]["steps"] == STEPS_PER_EPOCH


def test_moved_run_finds_its_best_checkpoint(tmp_path, interrupt_at):
    interrupt_at(STEPS_PER_EPOCH + 2)
    with pytest.raises(TrainingInterrupted):
        train(load_toy(tmp_path, "training.learning_rate=0", f"training.output_dir={tmp_path / 'old'}"))
    interrupt_at(0)
    (tmp_path / "old").rename(tmp_path / "new")
    train(load_toy(tmp_path, "training.learning_rate=0", f"training.output_dir={tmp_path / 'new'}"), resume=True)
    best = json.loads((tmp_path / "new" / "metrics.json").read_text())["best_checkpoint"]
    assert best == f"checkpoint-{STEPS_PER_EPOCH}"


def test_missing_best_checkpoint_is_reported_and_forgotten(tmp_path, interrupt_at, caplog):
    interrupt_at(STEPS_PER_EPOCH + 2)
    recipe = load_toy(tmp_path, "training.learning_rate=0")
    with pytest.raises(TrainingInterrupted):
        train(recipe)
    interrupt_at(0)
    (tmp_path / "run" / f"checkpoint-{STEPS_PER_EPOCH}").rename(tmp_path / "elsewhere")
    train(recipe, resume=True)
    assert "cannot be used (it does not exist). The best of the following ones" in caplog.text
    best = json.loads((tmp_path / "run" / "metrics.json").read_text())["best_checkpoint"]
    assert best == f"checkpoint-{2 * STEPS_PER_EPOCH}"


@pytest.mark.parametrize("how", [{}, {"resume": True}, {"overwrite": True}])
def test_folder_of_a_running_run_raises(tmp_path, how):
    with lock_run_folder(tmp_path / "run"):
        with pytest.raises(ValueError, match="Another run is using"):
            train(load_toy(tmp_path, "data.train_file=nowhere.jsonl"), **how)
        assert [path.name for path in (tmp_path / "run").iterdir()] == ["_run.lock"]


def test_last_checkpoint_of_max_steps_is_complete(tmp_path):
    recipe = load_toy(tmp_path, "training.max_steps=7", "training.save_strategy=steps", "training.save_steps=4")
    train(recipe)
    full = weights(tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    assert train(recipe, resume=True).metrics["train"]["steps"] == 7
    assert weights(tmp_path / "run") == full


@pytest.mark.parametrize(
    "task", [pytest.param(task, marks=[] if task == "text-classification" else pytest.mark.slow) for task in TASKS]
)
def test_drop_last_applies_to_training_only(tmp_path, task):
    recipe = load_toy(tmp_path, "training.dataloader_drop_last=true", "training.per_device_train_batch_size=16", task=task)
    report = train(recipe)
    assert report.metrics["train"]["steps"] == 2 * (40 // 16)
    kept = load_toy(tmp_path, "training.dataloader_drop_last=false", task=task)
    for split in ("validation", "test"):
        again = evaluate(tmp_path / "run", kept, split).metrics
        assert without_times(again)[split] == without_times(report.metrics)[split]
    history = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
    logged = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    assert report.metrics["validation"]["loss"] in logged


def test_run_without_a_full_batch_raises(tmp_path):
    settings = ("training.dataloader_drop_last=true", "training.per_device_train_batch_size=41")
    with pytest.raises(ValueError, match=r"needs at least one full batch of 41 rows \(training\.per.*, got 40 rows"):
        train(load_toy(tmp_path, *settings))
    assert not (tmp_path / "run").exists()
    assert train(load_toy(tmp_path, settings[0], "training.per_device_train_batch_size=40")).metrics["train"]["steps"] == 2


@pytest.mark.parametrize(
    "settings",
    [
        *(["max_steps=0"], ["num_train_epochs=0"], ["optim=adamw_anyprecision"], ["lr_scheduler_type=warmup_stable_decay"]),
        *(["fp16=true"], ["batch_eval_metrics=true"], ["eval_do_concat_batches=false"], ["report_to=nonsense"], ["seed=-1"]),
        *(["log_level=loud"], ["metric_for_best_model=nonsense"], ["per_device_eval_batch_size=0"]),
        *(["gradient_accumulation_steps=0"], ["dataloader_drop_last=true", "per_device_train_batch_size=41"]),
    ],
)
def test_invalid_setting_does_not_overwrite_a_run(finished, settings):
    before = {path: path.read_bytes() for path in finished.parent.rglob("*") if path.is_file()}
    with pytest.raises((ValueError, ImportError)):
        train(load_recipe(finished, [f"training.{setting}" for setting in settings]), overwrite=True)
    assert {path: path.read_bytes() for path in finished.parent.rglob("*") if path.is_file()} == before


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The recipe of a finished run."""
    recipe = write_recipe(tmp_path_factory.mktemp("finished"), training={"num_train_epochs": 1})
    train(load_recipe(recipe))
    return recipe


@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp16", marks=pytest.mark.slow)])
def test_half_precision_evaluation_keeps_the_weights(tmp_path, precision):
    train(load_toy(tmp_path, f"training.output_dir={tmp_path / 'full'}"))
    train(load_toy(tmp_path, f"training.{precision}_full_eval=true", f"training.output_dir={tmp_path / 'half'}"))
    assert weights(tmp_path / "half") == weights(tmp_path / "full")


def test_missing_text_is_located_before_a_tokenizer_is_trained(tmp_path):
    recipe = load_toy(tmp_path)
    lines = (tmp_path / "train.jsonl").read_text().splitlines()
    lines[6] = json.dumps({**json.loads(lines[6]), "text": None})
    (tmp_path / "train.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(TypeError, match=r"train\.jsonl, line 7: the text must be a string, got None"):
        train(recipe)


def test_score_that_never_changes_is_reported(tmp_path, caplog):
    train(load_toy(tmp_path, "training.learning_rate=0"))
    assert "All 2 evaluations had accuracy " in caplog.text
    assert "so that the first one was selected" in caplog.text
    caplog.clear()
    settings = ["training.per_device_train_batch_size=1", "training.learning_rate=0.03", "training.num_train_epochs=3"]
    report = train(load_toy(tmp_path, *settings, f"training.output_dir={tmp_path / 'perfect'}"))
    assert report.metrics["validation"]["accuracy"] == 1.0
    assert "evaluations had" not in caplog.text
