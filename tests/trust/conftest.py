from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.hub.client import run_client
from tests.hub.server import Hub
from tests.training.conftest import _no_pictures  # noqa: F401
from tests.training.toy_recipe import write_recipe

PLAIN_TRAINER = """
    import os, transformers
    from hf_maskattn import MaskAttnConfig, MaskAttnForSequenceClassification
    from hf_maskattn.data.tokenizers import train_tokenizer

    tokenizer = train_tokenizer(["cats meow", "dogs bark"], kind="word", vocab_size=40, max_length=32)
    config = MaskAttnConfig(vocab_size=len(tokenizer), embedding_size=6, hidden_size=8, attention_size=8)

    class Wait(transformers.TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            self.trainer.push_in_progress.wait_until_done()  # otherwise Trainer skips saves that come too soon

    def trainer_of(strategy, **settings):
        model = MaskAttnForSequenceClassification(config)
        data = [{**tokenizer(text), "labels": label} for text, label in [("cats meow", 0), ("dogs bark", 1)]]
        arguments = dict(learning_rate=1.0, use_cpu=True, report_to="none", push_to_hub=True, hub_strategy=strategy)
        args = transformers.TrainingArguments(strategy, save_strategy="steps", save_steps=1, **arguments, **settings)
        collator = transformers.DataCollatorWithPadding(tokenizer)
        wait = Wait()
        trainer = transformers.Trainer(model, args, collator, data, processing_class=tokenizer, callbacks=[wait])
        wait.trainer = trainer
        return trainer

    trainer = trainer_of("every_save", max_steps=2, hub_token=os.environ["GIVEN_TOKEN"])
    trainer.train()
    trainer.push_to_hub()
    for strategy in ("checkpoint", "all_checkpoints"):
        trainer_of(strategy, max_steps=1).train()
    MaskAttnForSequenceClassification(config).push_to_hub("user/pushed")
"""

OUR_TRAIN = """
    import sys
    sys.argv = ["hf-maskattn", "train", "toy.yaml"]
    from hf_maskattn.cli import main
    main()
"""


@dataclass(frozen=True)
class RunsOnHub:
    """Runs that processes published while they trained.

    Attributes:
        hub: The Hub: `user/every_save`, `user/checkpoint` and `user/all_checkpoints` by a plain Trainer with that strategy,
            `user/pushed` by `model.push_to_hub`, `user/recipe` by `hf-maskattn train`.
        recipe_folder: Where `hf-maskattn train` ran, with its `HF_HOME`.
        token: Its token, in the variable HF_TOKEN.
        output: Its output.
        plain_folder: Where the plain Trainers ran.
        given_token: The `hub_token` of the one with "every_save".
    """

    hub: Hub
    recipe_folder: Path
    token: bytes
    output: str
    plain_folder: Path
    given_token: bytes
    names = ("every_save", "checkpoint", "all_checkpoints", "pushed", "recipe")


@pytest.fixture(scope="package")
def runs_on_hub(tmp_path_factory):
    """Published runs. See `RunsOnHub`."""
    ours, plain = (tmp_path_factory.mktemp(name) for name in ("ours", "plain"))
    write_recipe(ours, training={"num_train_epochs": 1, "push_to_hub": True, "hub_model_id": "recipe"})
    with Hub() as hub:
        given, token = hub.new_token(), hub.new_token()
        done = run_client(hub, PLAIN_TRAINER, plain, token=hub.token, GIVEN_TOKEN=given)
        assert done.returncode == 0, done.stderr
        done = run_client(hub, OUR_TRAIN, ours, token=token, COLUMNS="200")
        assert done.returncode == 0, done.stderr
        yield RunsOnHub(hub, ours, token.encode(), done.stdout + done.stderr, plain, given.encode())
