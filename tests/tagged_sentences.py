"""Random sentences with entities, their tags in each scheme, and a model that predicts the labels of a split."""

import json
import random

import torch
from transformers.modeling_outputs import TokenClassifierOutput

import hf_maskattn

_WORDS = "New York don't U.S. a-b 12.5 Straße İstanbul 日本 हिन्दी é re\u0301el 😀 x\u200by mother-in-law McDonald's ﬁn 3rd C++"
_PUNCTUATION = ",()."
WORDS = [*_WORDS.split(), *_PUNCTUATION, "San José"]
TYPES = ["PER", "LOC", "MISC-x"]


def random_entities(length, rng):
    """Generate entities as (type, first word, last word), often adjacent ones of the same type."""
    entities, word = [], 0
    while word < length:
        last = min(length - 1, word + rng.choice([0, 0, 1, 2]))
        if rng.random() < 0.6:
            repeats_type = entities and entities[-1][2] == word - 1 and rng.random() < 0.6
            entities.append((entities[-1][0] if repeats_type else rng.choice(TYPES), word, last))
        word = last + 1
    return entities


def entity_tags(scheme, entities, length):
    """Return the tags of entities in a scheme."""
    tags = ["O"] * length
    for index, (name, first, last) in enumerate(entities):
        follows_same_type = index > 0 and entities[index - 1][0] == name and entities[index - 1][2] == first - 1
        begin, inside, end, single = {
            "IOB1": "BIIB" if follows_same_type else "IIII",
            "IOB2": "BIIB",
            "BIOES": "BIES",
            "BILOU": "BILU",
        }[scheme]
        for word in range(first, last + 1):
            is_first, is_last = word == first, word == last
            prefix = single if is_first and is_last else begin if is_first else end if is_last else inside
            tags[word] = f"{prefix}-{name}"
    return tags


def random_rows(scheme, count, seed, *, with_text, words=WORDS):
    """Generate rows with `tokens` and `tags`, together with their `entities` as (type, start, end) and their `text`."""
    rng, rows, texts, vocabulary = random.Random(seed), [], set(), words
    while len(rows) < count:
        words = [rng.choice(vocabulary) for _ in range(rng.randint(1, 9))]
        text, spans = "", []
        for word in words:
            gaps = (
                ["", " "]
                if with_text and (word in _PUNCTUATION or text[-1:] in _PUNCTUATION)
                else [" ", "  ", "\u00a0"][: 1 + 2 * with_text]
            )
            text += rng.choice(gaps) if text else ""
            spans.append((len(text), len(text) + len(word)))
            text += word
        if "".join(words) in texts:
            continue  # the model identifies a text by its tokens
        texts.add("".join(words))
        entities = random_entities(len(words), rng)
        spans_of_entities = [(name, spans[first][0], spans[last][1]) for name, first, last in entities]
        row = {"tokens": words, "tags": entity_tags(scheme, entities, len(words)), **({"text": text} if with_text else {})}
        rows.append({"row": row, "entities": spans_of_entities, "text": text})
    return rows


def write_tagged_rows(path, rows):
    path.write_text("".join(json.dumps(item["row"]) + "\n" for item in rows), encoding="utf-8")
    return str(path)


class Oracle(hf_maskattn.MaskAttnForTokenClassification):
    """Predicts the labels of a split; a text is identified by its token ids."""

    @classmethod
    def from_split(cls, split, labels, tag_scheme):
        settings = {"vocab_size": 2000, "embedding_size": 2, "hidden_size": 2, "attention_size": 2, "tag_scheme": tag_scheme}
        config = hf_maskattn.MaskAttnConfig(id2label=dict(enumerate(labels)), architectures=[cls.__base__.__name__], **settings)
        model = cls(config).eval()
        model.labels_of_text = {tuple(row["input_ids"]): row["labels"] for row in split}
        assert len(model.labels_of_text) == len(split), "two sentences have the same tokens"
        return model

    def forward(self, input_ids, attention_mask, **inputs):
        logits = torch.zeros(*input_ids.shape, self.config.num_labels)
        for row, (ids, mask) in enumerate(zip(input_ids, attention_mask.bool(), strict=True)):
            # The predictions for ignored positions do not matter.
            labels = torch.tensor(self.labels_of_text[tuple(ids[mask].tolist())])
            logits[row, mask] = 9.0 * torch.nn.functional.one_hot(labels.clamp(min=0), self.config.num_labels)
        return TokenClassifierOutput(logits=logits)
