"""Loads a model folder as those do who do not have this package, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

_LOAD = """
import json, sys
sys.modules["hf_maskattn"] = None  # as if it were not installed
import torch, transformers

folder = sys.argv[1]
problems = []
config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=True)
names = {path.rpartition(".")[2]: auto for auto, path in config.auto_map.items()}
auto_class = getattr(transformers, names[config.architectures[0]])
model, loaded = auto_class.from_pretrained(
    folder, trust_remote_code=True, dtype="auto", ignore_mismatched_sizes=True, output_loading_info=True
)
for kind, told in {"missing": "are missing", "unexpected": "are not expected", "mismatched": "have other sizes"}.items():
    found = sorted(key if isinstance(key, str) else key[0] for key in loaded[f"{kind}_keys"])
    if found:
        problems.append(f"weights {told} ({', '.join(found)})")
broken = sorted(name for name, weight in model.named_parameters() if not weight.isfinite().all())
if broken:
    problems.append(f"weights are not finite ({', '.join(broken)})")
tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
embedded = model.get_input_embeddings().weight.shape[0]
if len(tokenizer) > embedded:
    problems.append(f"the tokenizer has {len(tokenizer)} tokens, the model has embeddings of {embedded}")
else:
    inputs = tokenizer("a text", return_tensors="pt")
    if config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.tensor([[config.decoder_start_token_id]])
    with torch.no_grad():
        model.eval()(**inputs)
print(json.dumps({"problems": problems, "num_parameters": model.num_parameters()}))
"""


def load_without_package(folder: Path) -> int:
    """Load a model by the code beside its weights, and run it once.

    Args:
        folder: The model with its code and tokenizer. The code is run.

    Returns:
        Number of parameters of the model.

    Raises:
        ValueError: If it does not load, or configuration, weights and tokenizer do not fit each other.
    """
    with TemporaryDirectory() as modules:
        secrets = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
        environment = {name: value for name, value in os.environ.items() if name not in secrets}
        environment |= {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": modules}
        done = subprocess.run(
            [sys.executable, "-c", _LOAD, str(folder)],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        raise ValueError(f"the model does not load: {(done.stderr.strip().splitlines() or ['no reason was given'])[-1]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    if found["problems"]:
        raise ValueError(f"the model does not fit its files: {'; '.join(found['problems'])}.")
    return found["num_parameters"]
