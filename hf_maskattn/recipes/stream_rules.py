"""What a recipe may not say together with `data.streaming`."""

from typing import Any

from hf_maskattn.recipes.arguments import ONLY_FOR_STREAMS


def check_stream(groups: dict[str, dict[str, Any]]) -> None:
    """Refuse what has no meaning with a stream, or only with one.

    Args:
        groups: Groups of a recipe, as they were set.

    Raises:
        ValueError: Names the key and the way out.
    """
    data, training = groups["data"], groups["training"]
    if not data.get("streaming"):
        for key in ONLY_FOR_STREAMS:
            if key in data:
                raise ValueError(f"data.{key} means nothing without data.streaming: remove it, or set data.streaming=true.")
        return
    if (training.get("max_steps") or 0) <= 0:
        raise ValueError(
            "training.max_steps is missing: with data.streaming nobody knows how many rows there are, say when to stop."
        )
    if data.get("validation_fraction") is not None:
        raise ValueError(
            f"data.validation_fraction={data['validation_fraction']} cannot be cut from a stream (data.streaming): give "
            "data.validation_file or data.validation_split, or set data.validation_fraction=null."
        )
    strategy = training.get("train_sampling_strategy", "random")
    if strategy != "random":
        raise ValueError(
            f"training.train_sampling_strategy={strategy} needs all rows at hand, which a stream (data.streaming) has not: "
            "remove it; data.shuffle_buffer=0 leaves the rows in their order."
        )
    for key in ("eval_strategy", "save_strategy", "logging_strategy"):
        if training.get(key) == "epoch":
            raise ValueError(f"training.{key}=epoch never comes: a stream (data.streaming) has no epochs; say steps.")
    if training.get("dataloader_in_order") is False:
        raise ValueError(
            "training.dataloader_in_order=false leaves the order of a stream (data.streaming) to chance, so that it cannot "
            "be resumed: remove it."
        )
    for key, least in (("shuffle_buffer", 0), ("sample_rows", 1)):
        if data.get(key, least) < least:
            raise ValueError(f"data.{key}={data[key]} must be at least {least}.")
