from dataclasses import dataclass

import pytest

from tests.hub.client import findings
from tests.hub.repositories import Repository
from tests.hub.server import Hub
from tests.hub.toys import OUTPUTS, TOY

PUSH = """
    for head, name in [("Model", "encoder"), ("ForTokenClassification", "tagger"), ("ForMaskedLM", "filler")]:
        model = build(f"MaskAttn{head}")
        model.push_to_hub(f"user/{name}")
        found[name] = outputs(model)
    for seed, where in enumerate([{}, {"revision": "experiment"}, {}]):
        model = build(seed=seed)
        model.push_to_hub("user/classifier", **where)
        tokenizer.push_to_hub("user/classifier", **where)
        found[f"classifier-{seed}"] = outputs(model)
        if seed == 0:
            huggingface_hub.create_tag("user/classifier", tag="v1")
    model.push_to_hub("user/secret", private=True)
    tokenizer.push_to_hub("user/secret")
"""


@dataclass
class Published:
    """A Hub to which the classes of this package were pushed by a process of its own.

    Attributes:
        hub: The Hub. `user/classifier` has three sets of weights: `classifier-0` at the tag `v1`, `classifier-1` on the branch
            `experiment`, `classifier-2` on `main`; `user/secret` is private and has the last, too. `user/encoder`,
            `user/tagger` and `user/filler` have no tokenizer.
        outputs: What the models make of a fixed batch.
    """

    hub: Hub
    outputs: dict[str, list[float]]

    def copy(self, name: str) -> Repository:
        """Make a repository of the files of `user/classifier`, whose requests are told from those of others."""
        return self.hub.create(name, self.hub.repository("user/classifier").files())


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    with Hub() as hub:
        yield Published(hub, findings(hub, tmp_path_factory.mktemp("push"), TOY, OUTPUTS, PUSH, token=hub.token))
