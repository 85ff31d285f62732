"""Checks of the keys of a recipe that select, freeze and train pretrained embeddings."""

from typing import Any

from hf_maskattn.data.files import names_vector_file
from hf_maskattn.data.tokenizers import KINDS


def check_embeddings(model: dict[str, Any], data: dict[str, Any]) -> None:
    """Check the settings of the embeddings in the groups `model` and `data` against each other.

    Raises:
        ValueError: If settings contradict each other, or have no effect.
    """
    embeddings, pretrained = model.get("embeddings"), model.get("pretrained")
    if embeddings is not None and pretrained is not None:
        raise ValueError(f"model.embeddings must not be set with model.pretrained={pretrained}, whose embeddings are used.")
    is_file = embeddings is not None and names_vector_file(embeddings)
    if is_file and data.get("tokenizer") in set(KINDS) - {"word"}:
        raise ValueError(
            f"data.tokenizer must be word with the word vectors of model.embeddings={embeddings}, got {data['tokenizer']!r}."
        )
    if "embeddings_kind" in model and (embeddings is None or is_file):
        raise ValueError("model.embeddings_kind has no effect unless model.embeddings is a model. Remove it.")
    if data.get("vocabulary") == "prune" and (pretrained is not None or data.get("tokenizer") in KINDS):
        reason = "all its tokens occur in the train split" if pretrained is None else "it belongs to a pretrained model"
        raise ValueError(f"data.vocabulary=prune must not be set with this tokenizer: {reason}. Remove it.")
    _check_training(model, is_streaming=data.get("streaming", False))


def _check_training(model: dict[str, Any], *, is_streaming: bool) -> None:
    """Check how the embeddings are trained."""
    frozen, rate = model.get("freeze_embeddings", False), model.get("embeddings_learning_rate")
    if not isinstance(frozen, bool) and frozen <= 0:
        raise ValueError(f"model.freeze_embeddings must be true, false or a number of epochs above 0, got {frozen}.")
    if frozen and model.get("embeddings") is None and model.get("pretrained") is None:
        raise ValueError(
            f"model.freeze_embeddings={frozen} needs model.embeddings or model.pretrained: there are no embeddings but random "
            "ones. Remove it."
        )
    if not isinstance(frozen, bool) and is_streaming:
        raise ValueError(
            f"model.freeze_embeddings={frozen} is not supported with data.streaming=true, because a stream has no epochs. Use "
            "true or false."
        )
    if rate is not None and rate <= 0:
        raise ValueError(f"model.embeddings_learning_rate must be above 0, got {rate}. Use model.freeze_embeddings=true for 0.")
    if rate is not None and frozen is True:
        raise ValueError("model.embeddings_learning_rate has no effect with model.freeze_embeddings=true. Remove one of them.")
