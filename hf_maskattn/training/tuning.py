"""Tunes a recipe: trials with values of its search space, compared on the validation split, in a study that resumes."""

import gc
import json
import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from filelock import FileLock, Timeout
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback

from hf_maskattn.checkpoints.checkpoints import write_atomically
from hf_maskattn.checkpoints.run_folder import LOCK_FILE, RECIPE_FILE
from hf_maskattn.model.remote_code import install_command
from hf_maskattn.recipes.recipe import GROUPS, Recipe, load_recipe
from hf_maskattn.recipes.search_space import Range, default_space, parse_space
from hf_maskattn.recipes.training_defaults import resolve_recipe, resolved_training, stated_groups
from hf_maskattn.recipes.training_rules import replace_arguments
from hf_maskattn.training.assembly import assemble, check_model
from hf_maskattn.training.task_data import TaskData, training_data
from hf_maskattn.training.train import build_arguments

if TYPE_CHECKING:
    import optuna

logger = logging.getLogger(__name__)

STORAGE_FILE = "trials.db"
BEST_FILE = "best.yaml"

_STUDY = "tune"
_REPEATS = "repeats"
_METRIC = "metric"
_NOTE = "note"
_RANDOM_TRIALS = 5
"""Number of trials before the sampler models their scores, and before a trial may be stopped for a low score."""

_UNPRUNED = 30
"""Percentage of a trial before which it is not stopped."""


@dataclass(frozen=True)
class Trial:
    """A trial of a search.

    Attributes:
        values: Values of the searched keys, by "group.key".
        score: Best score on the validation split. None if the recipe is not possible.
        state: "complete", "pruned" if it was stopped because its score was below the median, or "failed".
        minutes: Its duration.
        note: Why it failed, else "".
    """

    values: dict[str, Any]
    score: float | None
    state: str
    minutes: float
    note: str = ""

    def describe(self) -> str:
        """Describe the values, such as "learning_rate=0.002, hidden_size=128"."""
        items = {key.partition(".")[2]: value for key, value in self.values.items()}
        return ", ".join(f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}" for key, value in items.items())


@dataclass(frozen=True)
class TuningReport:
    """The results of a search.

    Attributes:
        folder: Folder of the search.
        metric: Name of the metric.
        trials: The trials, in their order.
        best: The best of them.
        recipe: File of the best recipe.
        output_dir: Folder to which that recipe saves its model.
    """

    folder: Path
    metric: str
    trials: list[Trial]
    best: Trial
    recipe: Path
    output_dir: str


def tune(recipe: Recipe, *, trials: int | None = None, output: str | Path | None = None, resume: bool = False) -> TuningReport:
    """Search the space of a recipe for the values with the best score on the validation split.

    Each trial is trained as `train` would, by a Trainer of its own: `Trainer.hyperparameter_search` changes the arguments of
    one Trainer, which reads some of them (`label_smoothing_factor`) only when it is built, and casts values to the type of
    earlier ones (a `warmup_steps` of 0.1 to 0). Training the best recipe therefore gives the score of its trial. If the values
    of the recipe itself are in the space, they are the first trial. Trials save no checkpoints.

    Args:
        recipe: The recipe. Its group `tuning` declares the space.
        trials: Number of trials, instead of `tuning.trials`.
        output: Folder of the search. None means the output folder of the recipe with the suffix "-tuning".
        resume: Whether to continue the search in the folder. A trial that was killed is repeated.

    Returns:
        The trials and the file of the best recipe.

    Raises:
        ValueError: If the recipe has no validation split, the folder is not empty and `resume` is not set, it has a search of
            another recipe, or no trial was possible. Likewise TypeError, OSError.
        ImportError: If Optuna is not installed.
    """
    _check(recipe)
    trials = recipe.tuning.trials if trials is None else trials
    if trials < 1:
        raise ValueError(f"trials must be at least 1, got {trials}.")
    output_dir = resolved_training(recipe)["output_dir"]
    folder = Path(f"{output_dir}-tuning" if output is None else output)
    declared = recipe.tuning.space
    if declared is None:
        declared = default_space(resolve_recipe(recipe))
        logger.info("The recipe has no tuning.space. These keys are searched:")
        for key, values in declared.items():
            logger.info(f"  {key}: {values}")
    with _lock(folder):
        _store_recipe(recipe, declared, folder, resume=resume)
        search = _Search(folder, parse_space(declared, recipe.model.task), seed=recipe.training.get("seed") or 0)
        try:
            search.run(trials, recipe)
            return search.report(f"{output_dir}-tuned")
        finally:
            search.close()


def _check(recipe: Recipe) -> None:
    """Check all that does not depend on a trial."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ImportError(f"tune needs Optuna, which is not installed: {install_command('tune')}") from error
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ValueError("tune must run in one process. Start it without a launcher.")
    if not recipe.has_split("validation"):
        raise ValueError(
            "tune needs a validation split, on which trials are compared. Set data.validation_file, data.validation_split or "
            "data.validation_fraction."
        )
    if recipe.training.get("seeds") is not None:
        raise ValueError(
            "training.seeds is not supported by tune, whose trials have one seed. Remove it, here with training.seeds=."
        )
    check_model(recipe.model)
    if build_arguments(recipe).eval_strategy == "no":
        raise ValueError("tune needs evaluations during training. Set training.eval_strategy to epoch or steps.")
    if recipe.training.get("average_checkpoints") is not None:
        logger.info("Trials save no checkpoints and are compared without training.average_checkpoints.")


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Lock the folder of a search until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(f"Another search is using {folder}. Wait until it ends, or choose another --output.") from error
    try:
        yield
    finally:
        (folder / LOCK_FILE).unlink(missing_ok=True)
        lock.release()


def _store_recipe(recipe: Recipe, space: dict[str, Any], folder: Path, *, resume: bool) -> None:
    """Store the recipe and the space of a new search, or compare them with those of the search to resume."""
    stored = folder / RECIPE_FILE
    groups = {**stated_groups(recipe), "tuning": {"space": space}}
    if not resume or not stored.is_file():
        if any(path.name != LOCK_FILE for path in folder.iterdir()):
            raise ValueError(
                f"--output must be an empty folder, got {str(folder)!r}. "
                + ("It has no search to resume." if resume else "Continue the search in it with --resume.")
            )
        write_atomically(stored, yaml.safe_dump(groups, sort_keys=False, allow_unicode=True))
        return
    earlier = load_recipe(stored)
    before = {**stated_groups(earlier), "tuning": {"space": earlier.tuning.space}}
    for group in GROUPS:
        old, new = before.get(group, {}), groups.get(group, {})
        for key in new | old:
            if old.get(key) != new.get(key):
                raise ValueError(
                    f"{group}.{key} must be {old.get(key)!r}, as in the search in {folder}, got {new.get(key)!r}. Resume with "
                    "the same recipe, or choose another --output."
                )


class _Search:
    """The study of a search in a folder that has its recipe; the seed is the one of the sampler."""

    def __init__(self, folder: Path, space: dict[str, tuple[Any, ...] | Range], seed: int):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._folder, self._space, self._seed = folder, space, seed
        self._storage = optuna.storages.RDBStorage(f"sqlite:///{(folder / STORAGE_FILE).resolve()}")
        self._study = optuna.create_study(
            storage=self._storage,
            study_name=_STUDY,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_RANDOM_TRIALS, n_warmup_steps=_UNPRUNED),
            load_if_exists=True,
        )
        self._load_data = lru_cache(maxsize=1)(self._load_data_of)

    def close(self) -> None:
        """Close the connections to the file of the study."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def run(self, num_trials: int, recipe: Recipe) -> None:
        """Run trials until there are `num_trials` of them, with those of a search that is resumed.

        The recipe's own values are tried first if they are in the space.
        """
        import optuna

        if not self._study.trials:
            own = {key: _own_value(recipe, *key.split(".")) for key in self._space}
            if all(value in self._space[key] for key, value in own.items()):
                self._study.enqueue_trial(own)
        for killed in self._study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
            self._study.tell(killed.number, state=optuna.trial.TrialState.FAIL)
            self._study.enqueue_trial(killed.params, user_attrs={_REPEATS: killed.number})
        while (done := len(self._finished())) < num_trials:
            # The sampler is seeded for each trial, so that a search that is resumed has the trials of one that is not.
            self._study.sampler = optuna.samplers.TPESampler(n_startup_trials=_RANDOM_TRIALS, seed=self._seed + done)
            trial = self._study.ask()
            values = {key: _suggest(trial, key, item) for key, item in self._space.items()}
            self._run_trial(trial, values)
            shown = self._finished()[-1]
            score = "not possible" if shown.score is None else f"{self._metric} {shown.score:.4f}"
            logger.info(
                f"Trial {done + 1} of {num_trials}: {shown.describe()}: {score}"
                f"{' (stopped early: below the median)' if shown.state == 'pruned' else ''}, {shown.minutes:.1f} minutes"
                f"{f'. {shown.note}' if shown.note else ''}"
            )

    @property
    def _metric(self) -> str:
        return self._study.user_attrs[_METRIC]["name"]

    def _run_trial(self, trial: "optuna.Trial", values: dict[str, Any]) -> None:
        """Train the recipe of a trial, and store its score."""
        import optuna

        state = optuna.trial.TrialState
        try:
            score = self._train(trial, values)
        except optuna.TrialPruned:
            self._study.tell(trial, state=state.PRUNED)
        except (ValueError, torch.OutOfMemoryError) as error:
            trial.set_user_attr(_NOTE, " ".join(str(error).split()))
            self._study.tell(trial, state=state.FAIL)
        else:
            self._study.tell(trial, score)
        gc.collect()  # models and their Trainers refer to each other

    def _train(self, trial: "optuna.Trial", values: dict[str, Any]) -> float:
        """Train the recipe of a trial. Return its best score, negated if greater is better: a study minimizes."""
        recipe = self._recipe(values)
        check_model(recipe.model)
        args = replace_arguments(
            build_arguments(recipe),
            output_dir=str(self._folder),
            save_strategy="no",
            load_best_model_at_end=False,
            push_to_hub=False,
            report_to=[],
            disable_tqdm=True,
        )
        data_values = {key: value for key, value in values.items() if key.startswith("data.")}
        with _quiet():
            assembly = assemble(recipe, args, data=self._load_data(json.dumps(data_values)))
            trainer, args = assembly.trainer, assembly.trainer.args
            name, greater = str(args.metric_for_best_model).removeprefix("eval_"), bool(args.greater_is_better)
            self._study.set_user_attr(_METRIC, {"name": name, "greater_is_better": greater})
            trainer.remove_callback(PrinterCallback)
            trainer.add_callback(_ReportToTrial(trial, f"eval_{name}", -1.0 if greater else 1.0))
            patience = recipe.training.get("early_stopping_patience")
            if patience is not None:
                trainer.add_callback(EarlyStoppingCallback(patience))
            trainer.train()
            score = trainer.state.best_metric
        if score is None or not math.isfinite(score):
            raise ValueError(f"The {name} is not a finite number.")
        return -score if greater else score

    def _recipe(self, values: dict[str, Any]) -> Recipe:
        return load_recipe(self._folder / RECIPE_FILE, [f"{key}={json.dumps(value)}" for key, value in values.items()])

    def _load_data_of(self, values: str) -> TaskData:
        """Load the data with the given values of keys of `data`, as JSON."""
        recipe = self._recipe(json.loads(values))
        return training_data(recipe, build_arguments(recipe).seed)

    def _finished(self) -> list[Trial]:
        """Return the trials that are finished, without those that were killed and are repeated."""
        trials = self._study.trials
        repeated = {trial.user_attrs.get(_REPEATS) for trial in trials}
        return [self._trial(trial) for trial in trials if trial.state.is_finished() and trial.number not in repeated]

    def _trial(self, trial: "optuna.trial.FrozenTrial") -> Trial:
        score = trial.value
        if score is not None and self._study.user_attrs[_METRIC]["greater_is_better"]:
            score = -score
        minutes = trial.duration.total_seconds() / 60 if trial.duration is not None else 0.0
        return Trial(trial.params, score, _STATES[trial.state.name], minutes, trial.user_attrs.get(_NOTE, ""))

    def report(self, output_dir: str) -> TuningReport:
        """Write the best recipe, which saves its model to `output_dir`.

        Raises:
            ValueError: If no trial is complete.
        """
        trials = self._finished()
        scores = {number: trial.score for number, trial in enumerate(trials) if trial.state == "complete"}
        if not scores:
            raise ValueError(f"no trial was possible. The last one: {trials[-1].note}")
        select: Callable[..., int] = max if self._study.user_attrs[_METRIC]["greater_is_better"] else min
        best = trials[select(scores, key=scores.get)]
        groups = stated_groups(self._recipe({**best.values, "training.output_dir": output_dir}))
        text = (
            f"# hf-maskattn tune: {self._metric} {best.score:.4f} on the validation split, the best of {len(trials)} trials\n"
        )
        path = self._folder / BEST_FILE
        write_atomically(path, text + yaml.safe_dump(groups, sort_keys=False, allow_unicode=True))
        return TuningReport(self._folder, self._metric, trials, best, path, output_dir)


_STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}


def _suggest(trial: "optuna.Trial", key: str, item: tuple[Any, ...] | Range) -> Any:
    if not isinstance(item, Range):
        return trial.suggest_categorical(key, item)
    suggest: Callable[..., Any] = trial.suggest_int if item.is_integer else trial.suggest_float
    return suggest(key, item.low, item.high, log=item.is_log)


def _own_value(recipe: Recipe, group: str, key: str) -> Any:
    """Return the value of a key of a recipe, with all defaults."""
    values = resolve_recipe(recipe).get(group, {})
    value = getattr(build_arguments(recipe), key) if group == "training" and key not in values else values.get(key)
    return value.value if isinstance(value, Enum) else value


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the messages of a run below warnings, which would be those of every trial."""
    package = logging.getLogger("hf_maskattn")
    level = package.level
    package.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        package.setLevel(level)


class _ReportToTrial(TrainerCallback):
    """Reports each evaluation to a trial, and stops it if its score is below the median of other trials.

    The values of the metric are multiplied by `sign`, so that less is better.
    """

    def __init__(self, trial: "optuna.Trial", name: str, sign: float):
        self._trial, self._name, self._sign = trial, name, sign

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        """Report at the percentage of the run, which is the same for any batch size."""
        import optuna

        self._trial.report(self._sign * metrics[self._name], round(100 * state.global_step / state.max_steps))
        if self._trial.should_prune():
            raise optuna.TrialPruned
