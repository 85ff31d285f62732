"""Publication of a run on the Hub: of each checkpoint, or of its model at the end."""

import logging
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import TrainerCallback, TrainingArguments

from hf_maskattn.hub.publish import Publication, publish
from hf_maskattn.model.remote_code import CODE_VERSION
from hf_maskattn.training.results import RunReport

logger = logging.getLogger(__name__)

_STRATEGIES = ("end", "every_save")


@dataclass(frozen=True)
class HubTarget:
    """The repository that a run is published to.

    Attributes:
        repo_id: The repository.
        private: Whether a repository that the run creates is private. None uses the default of its owner.
        revision: The branch. None is the main branch.
        at_every_save: Whether each checkpoint is published too.
    """

    repo_id: str
    private: bool | None
    revision: str | None
    at_every_save: bool

    @classmethod
    def from_arguments(cls, args: TrainingArguments) -> "HubTarget":
        """Read the target of a run with `push_to_hub=True`.

        Raises:
            ValueError: If optimizer states would be published.
        """
        strategy = str(args.hub_strategy.value)
        if strategy not in _STRATEGIES:
            raise ValueError(
                f"training.hub_strategy must be one of {', '.join(_STRATEGIES)}, got {strategy!r}, which would publish pickled "
                "optimizer states. Checkpoints stay in the output folder."
            )
        name = args.hub_model_id or Path(args.output_dir).absolute().name
        return cls(name, args.hub_private_repo, args.hub_revision, strategy == "every_save")

    def publish(self, folder: Path, message: str | None = None) -> Publication:
        """Publish a folder of the run. See `hf_maskattn.hub.publish.publish`."""
        return publish(folder, self.repo_id, private=self.private, revision=self.revision, message=message)


class NotPublished(OSError):  # noqa: N818 (the run itself is complete)
    """A run is finished, but could not be published. The message has the command that publishes it."""

    def __init__(self, report: RunReport, target: HubTarget, cause: Exception):
        command = ["hf-maskattn", "push", str(report.model_folder), target.repo_id]
        command += ["--private"] if target.private else []
        command += [] if target.revision is None else ["--revision", target.revision]
        super().__init__(
            f"the run in {report.model_folder} is finished, but was not published. {cause} To publish it: {shlex.join(command)}"
        )
        self.report = report


def publish_run(report: RunReport, target: HubTarget) -> RunReport:
    """Publish a finished run, and return its report with the publication.

    Raises:
        NotPublished: If publishing fails.
    """
    try:
        return replace(report, publication=target.publish(report.model_folder))
    except (OSError, ValueError) as error:
        raise NotPublished(report, target, error) from error


class PublishEverySave(TrainerCallback):
    """Publishes each checkpoint. If that fails, a warning is logged and training continues."""

    def __init__(self, target: HubTarget):
        self._target = target

    def on_save(self, args, state, control, **kwargs):
        """Publish the checkpoint that was just saved."""
        if not state.is_world_process_zero:
            return
        message = f"Model of hf-maskattn {CODE_VERSION} in training, step {state.global_step}"
        try:
            self._target.publish(Path(args.output_dir) / f"checkpoint-{state.global_step}", message)
        except (OSError, ValueError) as error:
            logger.warning(f"The checkpoint of step {state.global_step} was not published. Training continues. {error}")
