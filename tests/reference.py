"""A slow and simple reference: one row at a time without padding, with torch's recurrent modules and a loop for attention."""

import torch
from torch import nn


class ReferenceEncoder(nn.Module):
    """The encoder of a `MaskAttnModel`, written for one unpadded row, with a copy of the weights of `model`."""

    def __init__(self, model):
        super().__init__()
        config = model.config
        cell = {"lstm": nn.LSTM, "gru": nn.GRU}[config.rnn_type]
        self.config = config
        self.embeddings = nn.Embedding(config.vocab_size, config.embedding_size)
        self.layers = nn.ModuleList(
            cell(
                config.hidden_size if layer else config.embedding_size,
                config.hidden_size // (2 if config.bidirectional else 1),
                bidirectional=config.bidirectional,
            )
            for layer in range(config.num_hidden_layers)
        )
        self.query = nn.Parameter(torch.empty(config.hidden_size)) if config.attention_query == "learned" else None
        self.b = nn.Parameter(torch.empty(config.attention_size)) if config.attention_query == "bias" else None
        self.w = nn.Parameter(torch.empty(config.attention_size, config.hidden_size))
        self.u = nn.Parameter(torch.empty(config.attention_size, config.hidden_size))
        self.v = nn.Parameter(torch.empty(config.num_attention_heads, config.attention_size // config.num_attention_heads))
        self.to(next(model.parameters()).dtype)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                self._parameter(name).copy_(parameter)

    def _parameter(self, name):
        """Return the parameter that corresponds to `name` of the model."""
        direct = {
            "word_embeddings.weight": self.embeddings.weight,
            "pooling.query": self.query,
            "pooling.attention.bias": self.b,
            "pooling.attention.query_projection.weight": self.w,
            "pooling.attention.key_projection.weight": self.u,
            "pooling.attention.energy": self.v,
        }
        if name in direct:
            return direct[name]
        _, _, layer, direction, weight = name.split(".")
        return getattr(self.layers[int(layer)], weight + ("_reverse" if direction == "backward_rnn" else ""))

    def gradients(self, names):
        """Return gradients by the names of the model, 0 for a parameter without a gradient."""
        parameters = {name: self._parameter(name) for name in names}
        return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in parameters.items()}

    def forward(self, ids):
        """ids `[n]`, n >= 1 -> states `[n, H]`, context `[H]`, weights `[heads, n]`."""
        hidden = self.embeddings(ids)
        for layer in self.layers:
            hidden, state = layer(hidden)
        final = state[0] if self.config.rnn_type == "lstm" else state
        if self.config.attention_query == "bias":
            shift = self.b
        elif self.config.attention_query == "learned":
            shift = self.w @ self.query
        elif self.config.attention_query == "last":
            shift = self.w @ final.flatten()
        else:
            shift = self.w @ hidden.mean(dim=0)
        scores = [[] for _ in self.v]
        for annotation in hidden:
            energy = torch.tanh(shift + self.u @ annotation).chunk(len(self.v))
            for head, vector in enumerate(self.v):
                scores[head].append(vector @ energy[head])
        weights = torch.stack([torch.stack(head).softmax(dim=0) for head in scores])  # [heads, n]
        slices = hidden.chunk(len(self.v), dim=1)
        context = torch.cat([weights[head] @ slices[head] for head in range(len(self.v))])
        return hidden, context, weights


def run_reference(encoder, input_ids, mask):
    """Run a batch `[B, T]` row by row; returns what `MaskAttnModel` must return, 0 at padding."""
    heads, size = encoder.config.num_attention_heads, encoder.config.hidden_size
    states, contexts, maps = [], [], []
    for ids, row_mask in zip(input_ids, mask, strict=True):
        row_states = encoder.w.new_zeros(len(ids), size)
        row_map = encoder.w.new_zeros(heads, len(ids))
        context = encoder.w.new_zeros(size)
        if row_mask.any():
            hidden, context, weights = encoder(ids[row_mask])
            row_states = row_states.masked_scatter(row_mask[:, None], hidden)
            row_map = row_map.masked_scatter(row_mask, weights)
        states.append(row_states)
        contexts.append(context)
        maps.append(row_map)
    return torch.stack(states), torch.stack(contexts), torch.stack(maps)[:, :, None]
