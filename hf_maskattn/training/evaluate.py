"""Scores a model folder on a split of a recipe."""

from pathlib import Path
from tempfile import TemporaryDirectory

from hf_maskattn.data.tokenizer_loading import load_tokenizer
from hf_maskattn.loading.model_loading import load_config, load_whole_model
from hf_maskattn.processes.launch import check_launch
from hf_maskattn.recipes.arguments import arguments_class
from hf_maskattn.recipes.recipe import Recipe
from hf_maskattn.recipes.training_defaults import scoring_defaults, with_pinned_memory_where_it_helps
from hf_maskattn.training.assembly import build_trainer, evaluation_of
from hf_maskattn.training.model_building import AUTO_CLASSES
from hf_maskattn.training.run_report import RunReport, score
from hf_maskattn.training.task_data import SPLITS, evaluation_data

_ONLY_OF_TRAINING = (
    "output_dir",
    "eval_strategy",
    "eval_steps",
    "save_strategy",
    "load_best_model_at_end",
    "metric_for_best_model",
    "greater_is_better",
    "push_to_hub",
    "report_to",
)


def evaluate(model_folder: str | Path, recipe: Recipe, split: str = "test") -> RunReport:
    """Score a model.

    Args:
        model_folder: Folder of the model, or its name on the Hub.
        recipe: Tells the data and the task, and in `training` batch size, precision and device.
        split: "train", "validation" or "test".

    Returns:
        The metrics of that split; equal to those of the run that trained the model.

    Raises:
        ValueError: If there is no such split, or model and recipe do not fit; likewise TypeError, OSError, ImportError.
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r} does not exist, there are: {', '.join(SPLITS)}.")
    config = load_config(model_folder)
    _check_task(config, recipe, str(model_folder))
    with TemporaryDirectory() as scratch:
        settings = {"train_sampling_strategy": "group_by_length", **scoring_defaults(recipe), **recipe.training}
        settings = {key: value for key, value in settings.items() if key not in _ONLY_OF_TRAINING}
        build = arguments_class(recipe.model.task)
        args = build(**with_pinned_memory_where_it_helps(settings), output_dir=scratch, report_to="none")
        check_launch(args)
        tokenizer = load_tokenizer(model_folder)
        labels = [config.id2label[number] for number in range(config.num_labels)]
        with args.main_process_first(desc="preparing the data"):
            data = evaluation_data(recipe, args.seed, split, tokenizer, labels)
        model = load_whole_model(AUTO_CLASSES[recipe.model.task], model_folder, config)
        evaluation = evaluation_of(recipe, data)
        trainer = build_trainer(recipe, args, model, data, evaluation)
        metrics = {split: score(trainer, split, data.splits[split], evaluation)}
        return RunReport(Path(model_folder), metrics, args.process_index == 0)


def _check_task(config, recipe: Recipe, name: str) -> None:
    """Refuse to score a model with a head that it does not have: it would be made of random numbers."""
    mapping = AUTO_CLASSES[recipe.model.task]._model_mapping
    expected = mapping[type(config)].__name__ if type(config) in mapping else None
    if expected not in (config.architectures or []):
        raise ValueError(
            f"{name} is a {', '.join(config.architectures or ['model of unknown class'])}, the recipe is for "
            f"model.task={recipe.model.task}: give the recipe that the model was trained with."
        )
