"""Tag the fields of written dates, from a recipe: the weekday, the day, the month and the year.

python examples/02_tag.py
"""

from transformers import pipeline

from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.training.train import train


def main(folder="runs/02_tag", *overrides):
    recipe = load_recipe("configs/date_fields.yaml", [f"training.output_dir={folder}", *overrides])
    print(train(recipe, overwrite=True).metrics["test"])
    tagger = pipeline("token-classification", model=folder, aggregation_strategy="simple")
    for text in ["Sonntag, 22. November 2026", "22 de noviembre de 2026"]:
        print(text, [(field["entity_group"], field["word"]) for field in tagger(text)])


if __name__ == "__main__":
    main()
