"""Trains a recipe with several seeds, each in a folder of its own, and summarizes their scores."""

import json
import logging
import statistics
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from hf_maskattn.checkpoints.checkpoints import write_atomically
from hf_maskattn.checkpoints.run_folder import RECIPE_FILE, SEEDS_FILE, lock_run_folder, remove_run
from hf_maskattn.metrics.task_metrics import LOWER_IS_BETTER
from hf_maskattn.recipes.recipe import Recipe
from hf_maskattn.recipes.training_defaults import resolved_training, stated_groups
from hf_maskattn.training.results import RunReport
from hf_maskattn.training.train import build_arguments, check_folder, train

logger = logging.getLogger(__name__)

Metrics = dict[str, dict[str, float]]
"""Values by metric name, by split."""

_NOT_SCORES = ("runtime", "samples_per_second")


@dataclass(frozen=True)
class SeedScores:
    """The scores of the seeds of a recipe.

    Attributes:
        folder: Folder of the seeds.
        metrics: Metrics of each seed, in the order of the recipe.
        mean: Mean over the seeds.
        std: Sample standard deviation over the seeds (divided by their number minus one).
        metric: Metric of the validation split that selects the best seed. None without a validation split.
        best: The best seed. None without a validation split.
    """

    folder: Path
    metrics: dict[int, Metrics]
    mean: Metrics
    std: Metrics
    metric: str | None
    best: int | None

    def folder_of(self, seed: int) -> Path:
        """Return the folder of the run of a seed."""
        return self.folder / _name(seed)


def train_seeds(recipe: Recipe, *, resume: bool = False, overwrite: bool = False) -> RunReport:
    """Train a recipe once for each of `training.seeds`, and write `seeds.json` with their scores, mean and deviation.

    Args:
        recipe: The recipe.
        resume: Whether to continue the runs in the folder. Finished ones are kept, and seeds that are new are trained.
        overwrite: Whether to replace the runs in the folder.

    Returns:
        The report of the seed that is best on the validation split (without one: of the first), with the scores of all.

    Raises:
        ValueError: If the seeds are not different, or contradict other keys. Likewise all errors of `train`.
    """
    seeds = check_seeds(recipe)
    folder = Path(resolved_training(recipe)["output_dir"])
    recipes = {seed: _with_seed(recipe, seed, folder) for seed in seeds}
    args = build_arguments(recipes[seeds[0]])
    is_main = args.process_index == 0
    with lock_run_folder(folder) if is_main else nullcontext():
        with args.main_process_first(local=False, desc="checking the output folder"):
            if is_main:
                check_folder(folder, recipe, resume=resume, overwrite=overwrite)
                (folder / SEEDS_FILE).unlink(missing_ok=True)
                groups = stated_groups(recipe)
                write_atomically(folder / RECIPE_FILE, yaml.safe_dump(groups, sort_keys=False, allow_unicode=True))
        try:
            reports = {}
            for number, seed in enumerate(seeds, start=1):
                logger.info(f"Seed {seed} ({number} of {len(seeds)})")
                # A launcher starts the processes at the same time: the folder is looked at before any of them writes to it.
                is_new = not (folder / _name(seed) / RECIPE_FILE).is_file()
                args.distributed_state.wait_for_everyone()
                reports[seed] = train(recipes[seed], resume=resume and not is_new, overwrite=overwrite and not is_new)
        finally:
            if is_main and not any(folder.glob(f"seed-*/{RECIPE_FILE}")):  # an error in the recipe: nothing was trained
                (folder / RECIPE_FILE).unlink(missing_ok=True)
        scores = summarize_seeds(folder, {seed: report.metrics for seed, report in reports.items()}, recipe)
        if is_main:
            if overwrite:
                _remove_other_seeds(folder, seeds)
            _write_scores(scores)
    chosen = reports[seeds[0] if scores.best is None else scores.best]
    return replace(chosen, seeds=scores)


def check_seeds(recipe: Recipe) -> list[int]:
    """Return the seeds of a recipe with `training.seeds`, after checking them.

    Raises:
        ValueError: If there are fewer than two, one is given twice or negative, or another key contradicts them.
    """
    seeds = recipe.training["seeds"]
    if len(seeds) < 2 or len({*seeds}) < len(seeds) or not all(0 <= seed < 2**32 for seed in seeds):
        raise ValueError(f"training.seeds must be a list of at least two different seeds in [0, 2^32), got {seeds}.")
    if recipe.training.get("seed") is not None:
        raise ValueError(
            f"training.seed={recipe.training['seed']} and training.seeds={seeds} are mutually exclusive. Remove one of them."
        )
    if recipe.training.get("push_to_hub"):
        raise ValueError(
            f"training.push_to_hub=true is not supported with training.seeds={seeds}. Publish the best model afterwards: "
            "hf-maskattn push FOLDER NAME."
        )
    return seeds


def _name(seed: int) -> str:
    return f"seed-{seed}"


def _with_seed(recipe: Recipe, seed: int, folder: Path) -> Recipe:
    training = {key: value for key, value in recipe.training.items() if key != "seeds"}
    return replace(recipe, training={**training, "seed": seed, "output_dir": str(folder / _name(seed))})


def _remove_other_seeds(folder: Path, seeds: list[int]) -> None:
    """Remove the runs of seeds that the recipe does not have any more."""
    for path in folder.glob("seed-*"):
        if path.name not in map(_name, seeds) and (path / RECIPE_FILE).is_file():
            remove_run(path)
            if not any(path.iterdir()):
                path.rmdir()


def summarize_seeds(folder: Path, metrics: dict[int, Metrics], recipe: Recipe) -> SeedScores:
    """Compute mean and deviation over the metrics of the seeds, and select the best one."""
    mean, std = _over_seeds(metrics, statistics.mean), _over_seeds(metrics, statistics.stdev)
    if "validation" not in mean:
        return SeedScores(folder, metrics, mean, std, None, None)
    names = list(mean["validation"])  # the loss, then the metrics of the task, whose first one selects checkpoints too
    metric = recipe.training.get("metric_for_best_model") or (names[1:] or names)[0]
    metric = metric.removeprefix("eval_")
    greater = recipe.training.get("greater_is_better")
    greater = metric not in LOWER_IS_BETTER if greater is None else greater
    select: Callable[..., int] = max if greater else min
    return SeedScores(folder, metrics, mean, std, metric, select(metrics, key=lambda seed: metrics[seed]["validation"][metric]))


def _over_seeds(metrics: dict[int, Metrics], function: Callable[[list[float]], float]) -> Metrics:
    first = next(iter(metrics.values()))
    return {
        split: {
            name: function([values[split][name] for values in metrics.values()]) for name in scores if name not in _NOT_SCORES
        }
        for split, scores in first.items()
        if split != "train"
    }


def _write_scores(scores: SeedScores) -> None:
    best: dict[str, Any] | None = None
    if scores.best is not None:
        best = {"seed": scores.best, "folder": _name(scores.best), "metric": scores.metric}
    content = {"seeds": scores.metrics, "mean": scores.mean, "sample_standard_deviation": scores.std, "best": best}
    write_atomically(scores.folder / SEEDS_FILE, json.dumps(content, indent=2) + "\n")
