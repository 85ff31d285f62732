"""RNNsearch as tutorials write it in plain torch: a packed encoder, then attention and a cell for one word after the other."""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

PAD, START, END = 0, 1, 2
"""The special ids, those of `RNNSearchConfig`."""


class Source(NamedTuple):
    """What is attended to: annotations `[B, Tk, M]`, their mask `[B, Tk]` and, if they were projected before, their keys."""

    annotations: torch.Tensor
    mask: torch.Tensor
    keys: torch.Tensor | None


class StepByStepAttention(nn.Module):
    """Additive attention from one query."""

    def __init__(self, query_size: int, memory_size: int, attention_size: int):
        super().__init__()
        self.energy = nn.Linear(attention_size, 1, bias=False)
        self.query_projection = nn.Linear(query_size, attention_size, bias=False)
        self.key_projection = nn.Linear(memory_size, attention_size, bias=False)

    def forward(self, query: torch.Tensor, source: Source) -> torch.Tensor:
        """Read a context `[B, M]`."""
        keys = self.key_projection(source.annotations) if source.keys is None else source.keys  # [B, Tk, A]
        scores = self.energy(torch.tanh(self.query_projection(query)[:, None] + keys))[..., 0]  # [B, Tk]
        weights = scores.masked_fill(~source.mask, -torch.inf).softmax(dim=-1)
        return torch.bmm(weights[:, None], source.annotations)[:, 0]


class StepByStepRNNSearch(nn.Module):
    """The function of our model with one GRU layer on either side, tied embeddings and the maxout output.

    Its parameters stand in the order of our model.

    Args:
        vocab_size: Number of words, V.
        embedding_size: Width E of an embedding, and of what a word is chosen by.
        units: Units H in each direction of the encoder, in the decoder and in the attention; an annotation has M = 2 H.
        keys_once: Whether the keys of a source are computed once, as a careful author has it, or at every step, as most
            tutorials do.
    """

    def __init__(self, *, vocab_size: int, embedding_size: int, units: int, keys_once: bool):
        super().__init__()
        self.keys_once = keys_once
        self.embedding = nn.Embedding(vocab_size, embedding_size)
        self.encoder = nn.GRU(embedding_size, units, batch_first=True, bidirectional=True)
        self.first_state = nn.Linear(units, units)
        self.attention = StepByStepAttention(units, 2 * units, units)
        self.cell = nn.GRUCell(embedding_size + 2 * units, units)
        self.output = nn.Linear(units + embedding_size + 2 * units, 2 * embedding_size)
        self.vocabulary = nn.Linear(embedding_size, vocab_size)
        self.vocabulary.weight = self.embedding.weight

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """Score what follows each word of a target `[B, T]`, after right-padded sources: logits `[B, T, V]`.

        The output layer is computed for all words at once.
        """
        source, state = self.encode(input_ids, attention_mask)
        embedded = self.embedding(words)  # [B, T, E]
        states, contexts = [], []
        for word in embedded.unbind(dim=1):
            context = self.attention(state, source)
            state = self.cell(torch.cat([word, context], dim=-1), state)
            states.append(state)
            contexts.append(context)
        return self.choose(torch.stack(states, dim=1), embedded, torch.stack(contexts, dim=1))

    def encode(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[Source, torch.Tensor]:
        """Annotate right-padded sources `[B, Tk]`, and make the first state `[B, H]`."""
        lengths = attention_mask.sum(dim=1).cpu()
        packed = pack_padded_sequence(self.embedding(input_ids), lengths, batch_first=True, enforce_sorted=False)
        packed, last = self.encoder(packed)
        annotations = pad_packed_sequence(packed, batch_first=True)[0]  # [B, Tk, M]
        keys = self.attention.key_projection(annotations) if self.keys_once else None
        return Source(annotations, attention_mask.bool(), keys), torch.tanh(self.first_state(last[1]))

    def choose(self, states: torch.Tensor, embedded: torch.Tensor, contexts: torch.Tensor) -> torch.Tensor:
        """Score all words by states, the words before and contexts, `[..., width]` each: logits `[..., V]`."""
        projected = self.output(torch.cat([states, embedded, contexts], dim=-1))
        return self.vocabulary(torch.maximum(*projected.chunk(2, dim=-1)))

    def step(self, words: torch.Tensor, state: torch.Tensor, source: Source) -> tuple[torch.Tensor, torch.Tensor]:
        """Read one word `[B]` of each row: logits `[B, V]` and the state after it."""
        embedded, context = self.embedding(words), self.attention(state, source)
        state = self.cell(torch.cat([embedded, context], dim=-1), state)
        return self.choose(state, embedded, context), state

    @torch.inference_mode()
    def greedy(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, steps: int) -> torch.Tensor:
        """Take the likeliest word at each step, at most `steps` of them: ids `[B, T]`."""
        source, state = self.encode(input_ids, attention_mask)
        words = input_ids.new_full((len(input_ids),), START)
        ended = torch.zeros_like(words, dtype=torch.bool)
        found = []
        for _ in range(steps):
            logits, state = self.step(words, state, source)
            words = logits.argmax(dim=-1).masked_fill(ended, PAD)
            found.append(words)
            ended |= words == END
            if ended.all():
                break
        return torch.stack(found, dim=1)

    @torch.inference_mode()
    def beam_search(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, steps: int, beams: int) -> torch.Tensor:
        """Find the likeliest target of at most `steps` words, `beams` hypotheses of each row at a time: ids `[B, T]`.

        A hypothesis that has ended goes on with pads at no cost.
        """
        source, state = self.encode(input_ids, attention_mask)
        annotations, mask, state = (part.repeat_interleave(beams, dim=0) for part in (*source[:2], state))  # [B * beams, ...]
        source = Source(annotations, mask, None if source.keys is None else source.keys.repeat_interleave(beams, dim=0))
        rows = len(input_ids)
        words = input_ids.new_full((rows * beams,), START)
        ended = torch.zeros_like(words, dtype=torch.bool)
        totals = torch.full((rows, beams), -torch.inf, device=state.device)
        totals[:, 0] = 0  # all hypotheses of a row are one as yet
        first = torch.arange(rows, device=state.device)[:, None] * beams
        found = words.new_empty(rows * beams, 0)
        for _ in range(steps):
            logits, state = self.step(words, state, source)
            scores = logits.log_softmax(dim=-1)  # [B * beams, V]
            scores[ended] = -torch.inf
            scores[ended, PAD] = 0
            vocabulary = scores.shape[-1]
            totals, places = (totals[..., None] + scores.view(rows, beams, -1)).flatten(1).topk(beams)  # [B, beams]
            origin = (first + places // vocabulary).flatten()
            words = (places % vocabulary).flatten()
            state, found = state[origin], torch.cat([found[origin], words[:, None]], dim=1)
            ended = ended[origin] | (words == END)
            if ended.all():
                break
        return found[first[:, 0]]
