"""The classifier as a user of Keras 3 writes it; the only file that imports keras."""

import os
from typing import Any

from hf_maskattn.model.configuration_maskattn import MaskAttnConfig


def keras_classifier(config: MaskAttnConfig) -> Any:
    """Build a model of the sizes and dropouts of ours on the torch backend: token ids `[B, T]`, 0 = padding, to logits.

    Its LSTM has one bias for two, and its attention asks with the last state and projects neither query nor memory, so that
    it is not the same function.

    Raises:
        ImportError: If keras is not installed, or runs on another backend than torch.
    """
    os.environ.setdefault("KERAS_BACKEND", "torch")
    try:
        import keras
    except ImportError as error:
        raise ImportError("keras is not installed: pip install keras") from error
    if keras.backend.backend() != "torch":
        raise ImportError(f"keras runs on {keras.backend.backend()} here: set KERAS_BACKEND=torch")
    layers = keras.layers
    width = config.hidden_size // 2
    input_ids = keras.Input((None,), dtype="int32")
    embedded = layers.Embedding(config.vocab_size, config.embedding_size, mask_zero=True)(input_ids)
    embedded = layers.Dropout(config.embedding_dropout_prob)(embedded)
    recurrence = layers.Bidirectional(layers.LSTM(width, return_sequences=True, return_state=True))
    states, forward, _, backward, _ = recurrence(embedded)
    query = layers.Reshape((1, 2 * width))(layers.Concatenate()([forward, backward]))
    context = layers.Flatten()(layers.AdditiveAttention()([query, states]))
    context = layers.Dropout(config.classifier_dropout)(context)
    return keras.Model(input_ids, layers.Dense(config.num_labels)(context))
