"""Publish a trained model on the Hugging Face Hub, and use it from there as a stranger would.

hf auth login
python examples/06_publish.py runs/01_classify my-languages
"""

import os
import subprocess
import sys
import tempfile

from hf_maskattn.hub.publish import publish

USE = """
import sys
sys.modules["hf_maskattn"] = None  # a stranger has not installed it; the code comes with the model
import transformers

name, commit, task, text = sys.argv[1:]
model = transformers.pipeline(task, model=name, revision=commit, trust_remote_code=True)
print(text, model(text))
"""


def main(folder="runs/01_classify", repo_id="my-languages", text="Ungverjaland"):
    published = publish(folder, repo_id)
    print(published.url, "has a new commit" if published.is_new else "has this model already")
    with tempfile.TemporaryDirectory() as empty:  # for a cache that has nothing of this model
        caches = {"HF_HUB_CACHE": f"{empty}/files", "HF_MODULES_CACHE": f"{empty}/code"}
        # By its commit, so that no other code is run than what was just published.
        arguments = [published.repo_id, published.commit, published.task, text]
        subprocess.run([sys.executable, "-c", USE, *arguments], check=True, env={**os.environ, **caches})


if __name__ == "__main__":
    main(*sys.argv[1:])
