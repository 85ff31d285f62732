"""Explain a classifier: which letters tell the language of a name, and which method says so best?

python examples/08_explain.py
"""

from hf_maskattn import explain, load_recipe, train
from hf_maskattn.data.cldr import build_cldr_languages
from hf_maskattn.inspection.explanation_plots import draw_explanations
from hf_maskattn.inspection.faithfulness import compare_methods

NAMES = ["Ungverjaland", "Lettország", "Spojené arabské emiráty"]


def main(folder="runs/08_explain", *overrides, limit=50):
    train(load_recipe("language_identification", [f"training.output_dir={folder}", *overrides]), overwrite=True)

    # The contributions of the letters add up to the logit of the language.
    explanations = explain(folder, None, NAMES)
    for explanation in explanations:
        (view,) = explanation.views()
        letters = sorted(zip(view.scores.tolist(), explanation.tokens, strict=True), reverse=True)
        print(f"{explanation.text}: {view.title}, logit {view.logit:.2f}")
        print("  contributions:", ", ".join(f"{letter} {score:+.2f}" for score, letter in letters[:3]))
    draw_explanations(explanations, f"{folder}/explanation.png")

    # A letter that is masked out does not exist: what would the model say of "Ungverland"?
    (explanation,) = explain(folder, None, ["Ungverjaland"], "removal", spans=[[(6, 8)]])
    (column,) = explanation.predicted
    print(f"without {explanation.tokens[0]}: logit {explanation.logits[column] - explanation.scores[0, column]:.2f}")

    # Erase the letters that each method ranks first: the better the method, the larger the loss of probability.
    comparison = compare_methods(folder, None, build_cldr_languages()["test"]["text"], limit=limit)
    for method, measures in comparison.methods.items():
        print(f"{method:22} comprehensiveness {measures.comprehensiveness:.3f}, sufficiency {measures.sufficiency:.3f}")


if __name__ == "__main__":
    main()
