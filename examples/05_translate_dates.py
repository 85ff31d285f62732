"""Write dates of 21 languages as ISO 8601 with Bahdanau's encoder-decoder, and see what each digit was read from.

python examples/05_translate_dates.py
"""

from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_maskattn.inspection.attention_maps import alignment_maps, draw_alignments
from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.training.train import train

DATES = ["March 5, 2024", "17. September 1989", "8 октября 2031", "5 Ιανουαρίου 1967", "12 მაისი, 2044"]


def main(folder="runs/05_translate_dates", *overrides):
    recipe = load_recipe("configs/dates_to_iso.yaml", [f"training.output_dir={folder}", *overrides])
    print(train(recipe, overwrite=True).metrics["test"])

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSeq2SeqLM.from_pretrained(folder)
    batch = tokenizer(DATES, padding=True, return_tensors="pt", return_token_type_ids=False)
    beams = model.generate(**batch, num_beams=3, num_return_sequences=2, output_scores=True, return_dict_in_generate=True)
    texts = tokenizer.batch_decode(beams.sequences, skip_special_tokens=True)
    for row, date in enumerate(DATES):
        best, second = (f"{texts[i]} {beams.sequences_scores[i].exp():.3f}" for i in (2 * row, 2 * row + 1))
        print(f"{date:20} {best}   rather than {second}")

    picture = f"{folder}/alignments.png"
    draw_alignments(alignment_maps(model, tokenizer, batch, beams.sequences[::2]), picture)
    print("What each digit was read from:", picture)


if __name__ == "__main__":
    main()
