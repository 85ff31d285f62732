"""Token embeddings of a pretrained model: its input matrix, or each token alone through the model."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import CONFIG_NAME
from transformers.utils.logging import tqdm

from hf_maskattn.data.cache import cache_folder, check_free_space, fingerprint
from hf_maskattn.data.tokenizers import load_tokenizer
from hf_maskattn.loading import (
    build_meta_model,
    find_file,
    find_weight_files,
    load_config,
    load_verified_model,
    to_one_line,
    weight_shapes,
)

EmbeddingsKind = Literal["input", "static"]

_METHOD = "mean of all hidden states, 1"
"""Part of the key of the cache. Change it when `_token_states` changes."""

_BATCH_SIZE = 256
_MAX_NAMED = 5


class PretrainedEmbeddings:
    """The token embeddings of a model of transformers. No code of the source is run, and only safetensors are loaded.

    Args:
        source: Folder of the model, or its name on the Hub.
        kind: "input" for the rows of its input matrix, "static" for the mean of its hidden states when it reads each
            token alone, between its special tokens.
        device: Device that "static" embeddings are computed on.

    Attributes:
        size: Size of the embeddings.

    Raises:
        FileNotFoundError: If there is no such model, or the Hub cannot be reached. Likewise OSError.
        ValueError: If transformers does not know the model, its weights are not safetensors, or its tokenizer is not supported.
    """

    def __init__(self, source: str, kind: EmbeddingsKind = "input", device: torch.device | str = "cpu"):
        self.source, self.kind, self.device = source, kind, device
        self._config = load_config(source)
        self._tokenizer = load_tokenizer(source, needs_padding=False)
        meta = build_meta_model(AutoModel.from_config, self._config, weight_shapes(source), source)
        matrix = _input_matrix(meta, source)
        self.size: int = matrix.shape[1] if kind == "input" else _hidden_size(meta, source)
        self._num_rows = len(matrix)

    def check_tokens(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Check that the tokens of a tokenizer, but special and added ones, are tokens of the source.

        Raises:
            ValueError: If the source does not have one of its tokens.
        """
        known, added = self._tokenizer.get_vocab(), tokenizer.added_tokens_encoder
        unknown = sorted(token for token in tokenizer.get_vocab() if token not in known and token not in added)
        if unknown:
            raise ValueError(
                f"tokenizer must have the tokens of {self.source}, got {len(unknown):,} others: "
                f"{', '.join(map(repr, unknown[:_MAX_NAMED]))}. Use the tokenizer of {self.source}, or vectors of words from a "
                "file."
            )

    def load(self, tokens: Sequence[str]) -> tuple[list[int], torch.Tensor]:
        """Load the embeddings of tokens.

        Returns:
            The indices of the tokens that the source has, and their embeddings, `[N, size]`, float32.

        Raises:
            ValueError: If weights of the source are missing.
            OSError: If the cache cannot be written.
        """
        vocabulary = self._tokenizer.get_vocab()
        found = [i for i, token in enumerate(tokens) if vocabulary.get(token, self._num_rows) < self._num_rows]
        ids = [vocabulary[tokens[i]] for i in found]
        vectors = self._load_static(ids) if self.kind == "static" else _input_matrix(self._load_model(), self.source)[ids]
        return found, vectors.detach().float()

    def _load_model(self) -> PreTrainedModel:
        with torch.random.fork_rng():  # weights that the source does not have are drawn
            loaded: Any = load_verified_model(AutoModel, self.source, self._config, output_loading_info=True)
        model, information = loaded
        matrix = _input_matrix(model, self.source)
        needed = {name for name, weight in model.named_parameters() if self.kind == "static" or weight is matrix}
        missing = sorted(name for name in needed & set(information["missing_keys"]) if not name.startswith("pooler."))
        if missing:
            raise ValueError(f"The weights of {self.source} must be complete, {', '.join(missing[:_MAX_NAMED])} is missing.")
        return model.eval()

    def _load_static(self, ids: list[int]) -> torch.Tensor:
        """Compute the static embeddings of token ids, or load them from the cache."""
        before, after = _special_tokens(self._tokenizer)
        config = find_file(self.source, CONFIG_NAME)
        files = [*find_weight_files(self.source), *([] if config is None else [Path(config)])]
        path = cache_folder("static_embeddings", fingerprint(_METHOD, str((before, ids, after)), *files)) / "model.safetensors"
        if path.is_file():
            return _read_cache(path)
        check_free_space(path.parent, len(ids) * self.size * torch.float32.itemsize, "The cache of static embeddings")
        vectors = self._compute_static(ids, before, after)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}.tmp")
        save_file({"embeddings": vectors}, unfinished)
        unfinished.replace(path)
        return vectors

    @torch.no_grad()
    def _compute_static(self, ids: list[int], before: list[int], after: list[int]) -> torch.Tensor:
        model = self._load_model()
        encoder = (model.get_encoder() if self._config.is_encoder_decoder else model).to(self.device)
        batches = []
        for start in tqdm(range(0, len(ids), _BATCH_SIZE), desc=f"Tokens through {self.source}", disable=None):
            rows = [[*before, token, *after] for token in ids[start : start + _BATCH_SIZE]]
            input_ids = torch.tensor(rows, device=self.device)  # [B, T]
            mask = torch.ones_like(input_ids)
            output = encoder(input_ids=input_ids, attention_mask=mask, output_hidden_states=True)
            batches.append(_token_states(output, len(before)).float().cpu())
        return torch.cat(batches)


def _token_states(output: Any, position: int) -> torch.Tensor:
    """Return the mean of the hidden states of the token at a position, from the embeddings to the last layer, `[B, H]`.

    States of another size than the last ones are left out: embeddings may be smaller.
    """
    size = output.hidden_states[-1].shape[-1]
    return torch.stack([states[:, position] for states in output.hidden_states if states.shape[-1] == size]).mean(0)


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the ids of the special tokens before and after a text."""
    encoded = tokenizer("a", return_special_tokens_mask=True)
    text = [position for position, is_special in enumerate(encoded["special_tokens_mask"]) if not is_special]
    return encoded["input_ids"][: text[0]], encoded["input_ids"][text[-1] + 1 :]


def _read_cache(path: Path) -> torch.Tensor:
    try:
        return load_file(path)["embeddings"]
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({to_one_line(error)}). Delete it. It is computed again.") from error


def _input_matrix(model: PreTrainedModel, source: str) -> torch.Tensor:
    """Return the input embeddings of a model, `[vocab_size, size]`."""
    try:
        weight = model.get_input_embeddings().weight
    except (AttributeError, NotImplementedError) as error:
        raise ValueError(f"{source} must have input embeddings of tokens, got a {type(model).__name__} without.") from error
    return weight


def _hidden_size(model: PreTrainedModel, source: str) -> int:
    size = getattr(model.config.get_text_config(), "hidden_size", None)
    if size is None:
        raise ValueError(f"{source} must be a text encoder with a hidden_size, got a {type(model).__name__}.")
    return size
