import itertools
from functools import partial

import pytest
import yaml

from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.training import train as train_module
from hf_maskattn.training.callbacks import TrainingInterrupted
from hf_maskattn.training.train import train
from tests.distributed.launching import launch_commands
from tests.distributed.run_commands import AtStep
from tests.embeddings.toy_source import write_vectors
from tests.training import toy_recipe
from tests.training.teachers import save_teacher

# The last training batch of 2 x 8 rows has one row, so that one process has none. In the last batch of 2 x 4 rows the processes
# have 4 rows and 1 (validation), or 4 and none (test). 97 rows are grouped by length differently for steps of 8 and of 16 rows.
SIZES = {"train": 97, "validation": 13, "test": 12}
STEPS_PER_EPOCH = 7
STOPPED_AT = STEPS_PER_EPOCH + 1


CASES = {
    "one label": ("text-classification", {"rnn_type": "gru", "attention_query": "last"}, None),
    "several labels": ("text-classification", {"problem_type": "multi_label_classification"}, toy_recipe.with_several_labels),
    "a number": ("text-classification", {"problem_type": "regression"}, toy_recipe.with_a_number),
    "spans": ("token-classification", {"num_attention_heads": 2}, None),
    "spans with a CRF": ("token-classification", {"use_crf": True}, None),
    "masked tokens": ("fill-mask", {"num_hidden_layers": 2}, None),
    "pairs": ("text2text-generation", {"decoder_layers": 2}, None),
    "word vectors": (
        "text-classification",
        {"embeddings": "vectors.vec", "freeze_embeddings": 1, "embeddings_learning_rate": 1e-3},
        None,
    ),
    "a teacher": ("text-classification", {}, None),
}
ACCUMULATED = "spans, 2 batches per step"
DROPPED = "one label, without an incomplete last batch"
STOPPED_IN_TWO, STOPPED_IN_ONE = "stopped in two processes", "stopped in one process"
RUNS = {name: (name, 1) for name in CASES} | {ACCUMULATED: ("spans", 2), DROPPED: ("one label", 1)}


class Launched:
    """Recipes that two launched processes train, and one process with the same total batch size."""

    def __init__(self, folder):
        self.folder = folder
        self.recipes = {}
        for name, (task, model, make) in CASES.items():
            (folder / name).mkdir()
            if "embeddings" in model:
                write_vectors(folder / name / model["embeddings"], ["meow", "purr", "paw", "woof"])
                model = {**model, "embeddings": str(folder / name / model["embeddings"])}
            self.recipes[name] = toy_recipe.write_recipe(
                folder / name,
                task,
                model={"hidden_dropout_prob": 0.0, "embedding_dropout_prob": 0.0, **model},
                data={"mlm_probability": 0.5} if task == "fill-mask" else {},
                training={"logging_steps": 1, "per_device_eval_batch_size": 4},
                make=with_empty_rows(make),
            )
        add_teacher(self.recipes["a teacher"], folder / "teacher")

    def run(self, run, processes):
        """Return the folder of a run."""
        return self.folder / f"{run}, {processes}"

    def settings(self, run, processes):
        accumulation = RUNS.get(run, ("", 1))[1]
        return [
            f"training.per_device_train_batch_size={16 // processes}",
            f"training.gradient_accumulation_steps={accumulation}",
            f"training.dataloader_drop_last={str(run == DROPPED).lower()}",
            f"training.output_dir={self.run(run, processes)}",
        ]

    def command(self, run, case, *options, **more):
        return {"arguments": ["train", str(self.recipes[case]), *self.settings(run, 2), *options], **more}

    def recipe(self, run, case):
        return load_recipe(self.recipes[case], self.settings(run, 1))


def add_teacher(recipe, folder):
    """Add a teacher to a recipe, and texts without labels, which are not equally many in both processes."""
    groups = yaml.safe_load(recipe.read_text())
    groups["data"]["augmentation"] = 1
    groups["teacher"] = {"model": save_teacher(folder, ["dog", "cat"])}
    recipe.write_text(yaml.safe_dump(groups))


def with_empty_rows(make):
    """Remove the tokens of every other row, so that grouping by length gives batches without tokens."""
    count = itertools.count()

    def build(row):
        if next(count) % 2:
            row = {name: value if name == "label" else type(value)() for name, value in row.items()}
        return make(row) if make else row

    return build


@pytest.fixture(scope="session")
def caches(tmp_path_factory):
    """Empty caches of the outputs of teachers: one for this process, and one for launched ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hf_maskattn.data.cache.HF_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("shared_cache")))
        yield


@pytest.fixture(scope="session")
def launched(tmp_path_factory, caches):
    folder = tmp_path_factory.mktemp("launched")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy_recipe, "SIZES", SIZES)
        done = Launched(folder)
        patch.setattr(train_module, "KeepTrackOfBest", partial(AtStep, "interrupt", STOPPED_AT, 0))
        with pytest.raises(TrainingInterrupted):
            train(done.recipe(STOPPED_IN_ONE, "spans"))
    done.run(STOPPED_IN_ONE, 1).rename(done.run(STOPPED_IN_ONE, 2))
    launch = launch_commands(
        folder,
        [
            *(done.command(run, case) for run, (case, _) in RUNS.items()),
            done.command(STOPPED_IN_ONE, "spans", "--resume"),
            {"shard_models": str(folder / "sharded")},
            done.command(STOPPED_IN_TWO, "spans", at_step=("interrupt", STOPPED_AT, 1)),
        ],
    )
    done.reports = {run: train(done.recipe(run, case)) for run, (case, _) in RUNS.items()}
    done.exit_code = launch.wait()
    done.output = launch.output
    return done
