"""A linear-chain CRF by enumeration: every sequence of labels of one row without padding, scored one by one."""

from itertools import product

import torch


class ReferenceCRF:
    """Scores `[K, K]`, `[K]` and `[K]` of transitions, first labels and last labels."""

    def __init__(self, transitions, start, end):
        self.transitions, self.start, self.end = transitions, start, end

    def paths(self, length):
        """List all sequences of labels."""
        return list(product(range(len(self.start)), repeat=length))

    def scores(self, emissions):
        """Score all sequences of one row without padding, `[n, K]`, by the definition: `[K ** n]`."""
        paths = torch.tensor(self.paths(len(emissions)), dtype=torch.long)
        scores = emissions.new_zeros(len(paths))
        for token, labels in enumerate(paths.T):
            arrival = self.start[labels] if token == 0 else self.transitions[paths[:, token - 1], labels]
            scores = scores + arrival + emissions[token, labels]
        return scores + self.end[paths[:, -1]] if len(emissions) else scores

    def log_likelihood(self, emissions, labels):
        """Log-probability of labels `[n]`, summed over the labels of tokens with -100."""
        scores = self.scores(emissions)
        fits = [
            all(known in (-100, label) for known, label in zip(labels.tolist(), path, strict=True))
            for path in self.paths(len(labels))
        ]
        return scores[torch.tensor(fits)].logsumexp(0) - scores.logsumexp(0)

    def marginals(self, emissions):
        """Sum of the probabilities of all sequences with a label at a token: `[n, K]`."""
        return self._reduce(emissions, self.scores(emissions).softmax(0), torch.sum)

    def max_marginals(self, emissions):
        """Largest score of all sequences with a label at a token: `[n, K]`."""
        return self._reduce(emissions, self.scores(emissions), torch.amax)

    def best_path(self, emissions):
        """The sequence with the largest score, the first one in lexicographic order of several."""
        return self.paths(len(emissions))[int(self.scores(emissions).argmax())]

    def _reduce(self, emissions, values, reduction):
        reduced = torch.zeros_like(emissions)
        paths = torch.tensor(self.paths(len(emissions)), dtype=torch.long)
        for token in range(len(emissions)):
            for label in range(len(self.start)):
                reduced[token, label] = reduction(values[paths[:, token] == label], dim=0)
        return reduced


def over_rows(function, mask, *tensors):
    """Apply a function of one row without padding to the tokens of each row of a batch; returns a list."""
    return [function(*(tensor[row][row_mask] for tensor in tensors)) for row, row_mask in enumerate(mask)]
