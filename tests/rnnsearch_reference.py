"""A slow and simple encoder-decoder: one row at a time without padding, with torch's cells and a loop for attention."""

import torch

CELLS = {"lstm": torch.lstm_cell, "gru": torch.gru_cell}


class ReferenceRNNSearch:
    """The function of an `RNNSearchForConditionalGeneration`, with a copy of its weights."""

    def __init__(self, model):
        self.config = model.config
        self.weights = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
        self.target = (
            self["encoder.word_embeddings.weight"] if model.config.share_embeddings else self["target_embeddings.weight"]
        )
        self.output_embeddings = self.target if model.config.tie_word_embeddings else self.weights["lm_head.weight"]

    def __getitem__(self, name):
        return self.weights[f"rnnsearch.{name}"]

    def gradients(self):
        """Return gradients by the names of the model, 0 for a parameter without a gradient."""
        return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in self.weights.items()}

    def step(self, module, x, state):
        """Run one step of a cell; returns a tuple of states, the hidden state first."""
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        state = CELLS[self.config.rnn_type](
            x[None],
            [s[None] for s in state] if self.config.rnn_type == "lstm" else state[0][None],
            *(self[f"{module}.{name}"] for name in names),
        )
        return tuple(s[0] for s in state) if self.config.rnn_type == "lstm" else (state[0],)

    def annotate(self, ids):
        """Compute annotations `[n, M]` of the n tokens of a source."""
        inputs = list(self["encoder.word_embeddings.weight"][ids])
        width = self.config.hidden_size // 2
        for layer in range(self.config.encoder_layers):
            directions = []
            for direction in ("forward", "backward"):
                state = (self.target.new_zeros(width),) * 2
                states = []
                for x in inputs if direction == "forward" else inputs[::-1]:
                    state = self.step(f"encoder.recurrence.layers.{layer}.{direction}_rnn", x, state)
                    states.append(state[0])
                directions.append(states if direction == "forward" else states[::-1])
            inputs = [torch.cat(pair) for pair in zip(*directions, strict=True)]
        return inputs

    def attend(self, query, annotations):
        """Compute a context `[M]` and weights `[heads, n]`."""
        heads = self.config.num_attention_heads
        if not annotations:
            return query.new_zeros(self.config.hidden_size), query.new_zeros(heads, 0)
        scores = []
        for annotation in annotations:
            hidden = self["decoder.attention.query_projection.weight"] @ query
            hidden = torch.tanh(hidden + self["decoder.attention.key_projection.weight"] @ annotation)
            scores.append(
                torch.stack([v @ h for v, h in zip(self["decoder.attention.energy"], hidden.chunk(heads), strict=True)])
            )
        weights = torch.stack(scores, dim=1).softmax(dim=1)
        slices = torch.stack(annotations).chunk(heads, dim=1)
        return torch.cat([w @ part for w, part in zip(weights, slices, strict=True)]), weights

    def __call__(self, source, target):
        """ids `[n]` and `[t]` -> logits `[t, V]`, weights `[heads, t, n]`, states of each layer `[t, H]`."""
        config = self.config
        annotations = self.annotate(source)
        width = config.hidden_size // 2
        summary = annotations[0][width:] if annotations else self.target.new_zeros(width)
        initial_state = torch.tanh(self["decoder.first_state.weight"] @ summary + self["decoder.first_state.bias"])
        parts = initial_state.split(config.decoder_hidden_size or config.hidden_size)
        count = 2 if config.rnn_type == "lstm" else 1
        states = [parts[i : i + count] for i in range(0, len(parts), count)]
        context = self.target.new_zeros(config.hidden_size)
        logits, maps, history = [], [], []
        for embedded in self.target[target]:
            inputs = embedded
            if config.attention_query == "previous":
                context, weights = self.attend(states[0][0], annotations)
            if config.attention_query == "previous" or config.input_feeding:
                inputs = torch.cat([embedded, context])
            states[0] = self.step("decoder.layers.0.rnn", inputs, states[0])
            if config.attention_query == "current":
                context, weights = self.attend(states[0][0], annotations)
            for layer in range(1, config.decoder_layers):
                below = torch.cat([states[layer - 1][0], context])
                states[layer] = self.step(f"decoder.layers.{layer}.rnn", below, states[layer])
            output = self["output.projection.weight"] @ torch.cat([states[-1][0], embedded, context])
            output = output + self["output.projection.bias"]
            if config.output_layer == "maxout":
                output = output.unflatten(0, (2, -1)).amax(dim=0)
            logits.append(self.output_embeddings @ output + self.weights["lm_head.bias"])
            maps.append(weights)
            history.append([state[0] for state in states])
        return torch.stack(logits), torch.stack(maps, dim=1), [torch.stack(layer) for layer in zip(*history, strict=True)]


def run_reference(reference, source, source_mask, target, target_mask):
    """Run a batch row by row: logits `[B, T, V]`, weights `[B, heads, T, Tk]` and states of each layer, 0 at padding."""
    config = reference.config
    logits = torch.zeros(*target.shape, config.vocab_size, dtype=reference.target.dtype)
    maps = torch.zeros(len(target), config.num_attention_heads, target.shape[1], source.shape[1], dtype=logits.dtype)
    size = config.decoder_hidden_size or config.hidden_size
    states = [torch.zeros(*target.shape, size, dtype=logits.dtype) for _ in range(config.decoder_layers)]
    for row, (row_mask, target_row_mask) in enumerate(zip(source_mask, target_mask, strict=True)):
        if target_row_mask.any():
            row_logits, row_map, row_states = reference(source[row, row_mask], target[row, target_row_mask])
            columns = target_row_mask.nonzero()[:, 0]
            logits = logits.index_put((torch.tensor(row), columns), row_logits)
            for layer, layer_states in enumerate(row_states):
                states[layer] = states[layer].index_put((torch.tensor(row), columns), layer_states)
            positions = target_row_mask[None, :, None] & row_mask
            maps = maps.index_put((torch.tensor(row),), maps[row].masked_scatter(positions, row_map))
    return logits, maps, states
