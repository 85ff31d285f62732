"""Averages the weights of the last checkpoints of a run.

Source:
    Izmailov et al. 2018 (arXiv:1803.05407), where the learning rate stays high.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import Trainer

from hf_maskattn.checkpoints.checkpoints import find_damage, is_complete, list_checkpoints
from hf_maskattn.training.callbacks import scheduled_steps
from hf_maskattn.training.results import BestEvaluation

logger = logging.getLogger(__name__)


def use_average_if_better(trainer: Trainer, count: int, best: BestEvaluation | None) -> BestEvaluation | None:
    """Load the mean weights of the last checkpoints into a model, if they are better on the validation split.

    Args:
        trainer: The Trainer after training, whose model has the weights of the best checkpoint.
        count: Number of checkpoints to average. All are averaged if there are fewer.
        best: The evaluation of the best checkpoint. None if it is not known: the average is then used.

    Returns:
        The evaluation of the weights that the model has now.

    Raises:
        OSError: If a checkpoint is damaged.
    """
    args = trainer.args
    steps = scheduled_steps(args, trainer.state)[-count:]
    last = {step: path for path, step in list_checkpoints(Path(args.output_dir)).items() if step in steps and is_complete(path)}
    if len(last) < 2:
        logger.warning(
            f"training.average_checkpoints={count} has no effect, because {args.output_dir} has {len(last)} checkpoint."
        )
        return best
    model = trainer.accelerator.unwrap_model(trainer.model)
    saved = {key: value.clone() for key, value in model.state_dict().items()}
    model.load_state_dict(average_weights([*last.values()]), strict=False)  # tied weights are stored once
    metric = str(args.metric_for_best_model).removeprefix("eval_")
    value = trainer.predict(trainer.eval_dataset, metric_key_prefix="eval").metrics[f"eval_{metric}"]
    average = BestEvaluation(max(last), None, metric, value, averaged_steps=sorted(last))
    is_better = best is None or (value > best.value if args.greater_is_better else value < best.value)
    if best is not None:
        chosen = "average" if is_better else "checkpoint"
        logger.info(f"The {average}. The best checkpoint has {best.value:.4g}: the model is the {chosen}.")
    if is_better:
        return average
    model.load_state_dict(saved)
    return best


def average_weights(checkpoints: Sequence[Path]) -> dict[str, torch.Tensor]:
    """Compute the mean of the weights of checkpoints, the last one first.

    Returns:
        The weights by name, in their dtype. Integers are those of the last checkpoint.

    Raises:
        OSError: If a checkpoint is damaged.

    Numerics:
        Sums are computed in float64.
    """
    last = _load_weights(checkpoints[0])
    sums = {key: value.double() for key, value in last.items() if value.is_floating_point()}
    for checkpoint in checkpoints[1:]:
        weights = _load_weights(checkpoint)
        for key in sums:
            sums[key] += weights[key]
    return last | {key: (value / len(checkpoints)).to(last[key].dtype) for key, value in sums.items()}


def _load_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    damage = find_damage(checkpoint)
    if damage is not None:
        raise OSError(f"The checkpoint {checkpoint} cannot be averaged ({damage}).")
    return {key: value for file in checkpoint.glob("model*.safetensors") for key, value in load_file(file).items()}
