"""Draws the picture of the README: attention over a padded batch, with the mask and without it.

python examples/draw_attention_over_padding.py runs/language_identification examples/attention_over_padding.png
"""

import sys

from transformers import AutoModelForSequenceClassification, AutoTokenizer

import hf_maskattn  # noqa: F401 (registers the model)
from hf_maskattn.inspection.attention_maps import attention_maps, draw_attention_maps

TEXTS = ["Sverige", "Ungverjaland", "Lettország", "Saint-Barthélemy"]


def main(folder, picture):
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    panels = {
        "attention_mask used: padding does not exist": attention_maps(model, tokenizer, TEXTS),
        "the same weights, attention_mask ignored": attention_maps(model, tokenizer, TEXTS, ignore_mask=True),
    }
    draw_attention_maps(panels, picture)


if __name__ == "__main__":
    main(*sys.argv[1:])
