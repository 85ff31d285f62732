"""Load a trained folder in a process that does not have this package: the code travels with the weights.

python examples/03_load_anywhere.py runs/01_classify
"""

import subprocess
import sys

LOAD = """
import sys
sys.modules["hf_maskattn"] = None  # as if it were not installed
import transformers, torch

folder = sys.argv[1]
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
inputs = tokenizer(["Ungverjaland", "Lettország"], padding=True, return_tensors="pt")
for name in ["AutoModel", "AutoModelForSequenceClassification", "AutoModelForTokenClassification", "AutoModelForMaskedLM"]:
    model = getattr(transformers, name).from_pretrained(folder, trust_remote_code=True)
    with torch.no_grad():
        print(name, type(model).__name__, tuple(model(**inputs)[0].shape))
"""


def main(folder="runs/01_classify"):
    subprocess.run([sys.executable, "-c", LOAD, folder], check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
