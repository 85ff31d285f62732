"""Loading of pretrained embeddings into the models of this package."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_maskattn.data.files import names_vector_file
from hf_maskattn.embeddings.pretrained import EmbeddingsKind, PretrainedEmbeddings
from hf_maskattn.embeddings.reduction import reduce_embeddings, root_mean_square
from hf_maskattn.embeddings.vector_files import VectorFile

_SCALE = 1.0
"""Root mean square of the loaded embeddings, unless they are tied to an output layer."""


@dataclass(frozen=True)
class EmbeddingsReport:
    """What was loaded into the input embeddings of a model.

    Attributes:
        source: Where the embeddings come from.
        num_tokens: Number of tokens of the tokenizer, without padding.
        num_found: Number of these tokens that the source has. The others keep their random first values.
        source_size: Size of the embeddings of the source.
        explained_variance: Fraction of their squared norm that is left after the reduction; 1 if they were not reduced.
    """

    source: str
    num_tokens: int
    num_found: int
    source_size: int
    explained_variance: float

    @property
    def coverage(self) -> float:
        """Fraction of the tokens that the source has."""
        return self.num_found / self.num_tokens

    def __str__(self) -> str:
        """Summarize the report in a sentence."""
        reduced = f", reduced with {self.explained_variance:.1%} of their variance" if self.explained_variance < 1 else ""
        return (
            f"{self.source} has embeddings of {self.num_found:,} of {self.num_tokens:,} tokens ({self.coverage:.1%}), of size "
            f"{self.source_size}{reduced}."
        )


def load_embeddings(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    source: str | Path,
    *,
    kind: EmbeddingsKind = "input",
    device: torch.device | str | None = None,
) -> EmbeddingsReport:
    """Fill the input embeddings of a model with those of a pretrained model, or with word vectors from a file.

    Embeddings that are larger than `model.config.embedding_size` are reduced by a singular value decomposition. All are scaled
    to the same root mean square. Padding, and tokens that the source does not have, keep their random first values at that
    scale.

    Args:
        model: A model of this package. Its embeddings are changed in place, with all weights that are tied to them.
        tokenizer: Its tokenizer. Its tokens must be those of the source, or words if the source is a file.
        source: A model of transformers, as a folder or a name on the Hub; or a file of word2vec (`.txt`, or `.bin` if binary),
            GloVe (`.txt`) or fastText (`.vec`), also with `.gz`.
        kind: Which embeddings of a model: "input" for the rows of its input matrix, "static" for what it returns for each token
            alone, which is computed once and cached.
        device: Device that "static" embeddings are computed on. None is the device of the model.

    Returns:
        What was loaded.

    Raises:
        FileNotFoundError: If there is no such source, or the Hub cannot be reached. Likewise OSError.
        ValueError: If `embedding_size` is larger than the embeddings of the source, the tokenizer has other tokens, or the
            source is invalid.
    """
    weight = model.get_input_embeddings().weight
    if len(tokenizer) > len(weight):
        raise ValueError(f"vocab_size must be at least {len(tokenizer)}, the size of the tokenizer, got {len(weight)}.")
    embeddings = open_embeddings(str(source), weight.shape[1], kind=kind, device=model.device if device is None else device)
    if isinstance(embeddings, PretrainedEmbeddings):
        embeddings.check_tokens(tokenizer)
    tokens = [token for token in tokenizer.convert_ids_to_tokens(range(len(tokenizer))) if token != tokenizer.pad_token]
    found, vectors = embeddings.load(tokens)
    if not found:
        raise ValueError(f"{source} must have tokens of the tokenizer, got none of its {len(tokens):,} tokens.")
    reduced, explained_variance = reduce_embeddings(vectors, weight.shape[1])
    _fill(model, tokenizer.convert_tokens_to_ids([tokens[i] for i in found]), reduced, str(source))
    return EmbeddingsReport(str(source), len(tokens), len(found), embeddings.size, explained_variance)


def open_embeddings(
    source: str, embedding_size: int, *, kind: EmbeddingsKind = "input", device: torch.device | str = "cpu"
) -> PretrainedEmbeddings | VectorFile:
    """Open a source of embeddings and check that it can fill a model. No weights are loaded. See `load_embeddings`.

    Raises:
        FileNotFoundError: As `load_embeddings`. Likewise OSError.
        ValueError: If the source is invalid, or its embeddings are smaller than `embedding_size`.
    """
    embeddings = VectorFile(source) if names_vector_file(source) else PretrainedEmbeddings(source, kind, device)
    if embeddings.size < embedding_size:
        raise ValueError(
            f"embedding_size must be at most {embeddings.size}, the size of the embeddings of {source}, got {embedding_size}. "
            f"Set embedding_size={embeddings.size}, or use another source."
        )
    return embeddings


@torch.no_grad()
def _fill(model: PreTrainedModel, ids: list[int], vectors: torch.Tensor, source: str) -> None:
    """Write vectors `[N, size]` to rows of the embeddings of a model, and scale the other rows alike."""
    weight = model.get_input_embeddings().weight
    first_values, present = root_mean_square(weight), root_mean_square(vectors)
    if not 0 < present < float("inf"):
        raise ValueError(f"The embeddings of {source} must be finite and not all 0, got a root mean square of {present}.")
    # Embeddings that score tokens as well keep the scale of their first values, which the logits need.
    output = model.get_output_embeddings()
    is_tied = model.config.is_encoder_decoder or (output is not None and output.weight is weight)
    scale = first_values if is_tied else _SCALE
    weight.mul_(scale / first_values)
    weight[ids] = (vectors * (scale / present)).to(weight)
