import shutil
from dataclasses import dataclass

import pytest
import torch

import hf_maskattn
from hf_maskattn.data.tokenizers import train_tokenizer
from tests.hub.repositories import Repository
from tests.hub.server import Hub
from tests.hub.toys import outputs
from tests.toy_folder import write_model_folder


@dataclass
class Published:
    """A Hub with saved models of this package.

    Attributes:
        hub: The Hub. `user/classifier` has three sets of weights: `classifier-0` at the tag `v1`, `classifier-1` on the branch
            `experiment`, `classifier-2` on `main`. `user/secret` is private and has the last, too. `user/encoder`,
            `user/tagger` and `user/filler` have no tokenizer.
        outputs: Outputs of the models for a fixed batch.
    """

    hub: Hub
    outputs: dict[str, list[float]]

    def copy(self, name: str) -> Repository:
        """Create a repository with the files of `user/classifier`, whose requests can be told apart from others."""
        return self.hub.create(name, self.hub.repository("user/classifier").files())


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    tokenizer = train_tokenizer(["cats meow and purr", "dogs bark and growl"], kind="word", vocab_size=40, max_length=32)
    sizes = {"vocab_size": len(tokenizer), "embedding_size": 6, "hidden_size": 8, "attention_size": 8}
    config = hf_maskattn.MaskAttnConfig(**sizes, pad_token_id=tokenizer.pad_token_id)
    outputs_by_name = {}

    def save(name, head="ForSequenceClassification", seed=0, with_tokenizer=True):
        torch.manual_seed(seed)
        model = getattr(hf_maskattn, f"MaskAttn{head}")(config)
        outputs_by_name[name] = outputs(model)
        folder = tmp_path_factory.mktemp(name)
        for part in (model, tokenizer) if with_tokenizer else (model,):
            part.save_pretrained(folder)
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    with Hub() as hub:
        for name, head in {"encoder": "Model", "tagger": "ForTokenClassification", "filler": "ForMaskedLM"}.items():
            hub.create(f"user/{name}", save(name, head, with_tokenizer=False))
        classifier = hub.create("user/classifier", save("classifier-0"))
        classifier.tag("v1")
        classifier.branch("experiment")
        classifier.commit(save("classifier-1", seed=1), revision="experiment")
        classifier.commit(save("classifier-2", seed=2))
        hub.create("user/secret", classifier.files(), private=True)
        yield Published(hub, outputs_by_name)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A model folder that tests do not change."""
    return write_model_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture
def folder(model_folder, tmp_path):
    """A copy of the model folder."""
    return shutil.copytree(model_folder, tmp_path / "run")
