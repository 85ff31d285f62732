"""Checks of the keys of a recipe whose train split is a stream."""

from typing import Any


def check_stream(data: dict[str, Any], training: dict[str, Any]) -> None:
    """Check that no setting in the groups `data` and `training` needs all rows, or the end of a stream.

    Raises:
        ValueError: If a setting does.
    """
    if (training.get("max_steps") or 0) <= 0:
        raise ValueError("training.max_steps must be set with data.streaming=true, because a stream has no last row.")
    if data.get("validation_fraction") is not None:
        raise ValueError(
            f"data.validation_fraction={data['validation_fraction']} is not supported with data.streaming=true, because the "
            "number of rows is not known. Set data.validation_file or data.validation_split."
        )
    strategy = training.get("train_sampling_strategy", "random")
    if strategy != "random":
        raise ValueError(
            f"training.train_sampling_strategy={strategy} is not supported with data.streaming=true, because it needs all "
            "rows. Remove it. data.shuffle_buffer=0 keeps the order of the rows."
        )
    for key in ("eval_strategy", "save_strategy", "logging_strategy"):
        if training.get(key) == "epoch":
            raise ValueError(
                f"training.{key}=epoch is not supported with data.streaming=true, because a stream has no epochs. Use "
                f"training.{key}=steps."
            )
    if training.get("dataloader_in_order") is False:
        raise ValueError(
            "training.dataloader_in_order=false is not supported with data.streaming=true, because the run could not be "
            "resumed. Remove it."
        )
