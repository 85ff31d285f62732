"""From raw text to model inputs: built-in corpora, dataset loading, tokenizers, labels and encoding."""
