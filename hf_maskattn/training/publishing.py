"""Publishes a run on the Hub: at each save where that is asked for, and when it is finished."""

import logging
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import TrainerCallback, TrainingArguments

from hf_maskattn.hub.publish import Publication, make_repository, publish
from hf_maskattn.model.remote_code import CODE_VERSION
from hf_maskattn.training.run_report import RunReport

logger = logging.getLogger(__name__)

_STRATEGIES = ("end", "every_save")


@dataclass(frozen=True)
class HubTarget:
    """Where a run is published.

    Attributes:
        repo_id: The repository.
        private: Whether only its owner sees it, if the run makes it.
        revision: The branch, None for the main one.
        at_every_save: Whether each checkpoint is published too.
    """

    repo_id: str
    private: bool | None
    revision: str | None
    at_every_save: bool

    def publish(self, folder: Path, message: str | None = None) -> Publication:
        """Publish a folder of the run; see `hf_maskattn.hub.publish.publish`."""
        return publish(folder, self.repo_id, private=self.private, revision=self.revision, message=message)


class NotPublished(OSError):  # noqa: N818 (named for what is not there; the run itself is whole)
    """A run is finished, but was not published.

    Args:
        report: The end of the run.
        target: Where it was to be published.
        reason: Why it was not.
    """

    def __init__(self, report: RunReport, target: HubTarget, reason: Exception):
        command = ["hf-maskattn", "push", str(report.model_folder), target.repo_id]
        command += ["--private"] if target.private else []
        command += [] if target.revision is None else ["--revision", target.revision]
        super().__init__(
            f"the run is finished and whole in {report.model_folder}, but not published: {reason} Then: {shlex.join(command)}"
        )
        self.report = report


class PublishEverySave(TrainerCallback):
    """Publishes each checkpoint; training goes on where that fails, and the log says so.

    Args:
        target: Where to.
    """

    def __init__(self, target: HubTarget):
        self._target = target

    def on_save(self, args, state, control, **kwargs):
        """Publish the checkpoint that was just written."""
        if not state.is_world_process_zero:
            return
        message = f"Model of hf-maskattn {CODE_VERSION} in training, step {state.global_step}"
        try:
            self._target.publish(Path(args.output_dir) / f"checkpoint-{state.global_step}", message)
        except (OSError, ValueError) as error:
            logger.warning(f"Step {state.global_step} was not published, training goes on: {error}")


def take_over_publishing(args: TrainingArguments) -> HubTarget | None:
    """Read where a run is published, and have Trainer not do it.

    Trainer would upload all of the output folder, `training_args.bin` (a pickle) included, while it trains would do so in
    the background, and would not tell when that fails.

    Args:
        args: The arguments of Trainer; `push_to_hub` is off afterwards.

    Returns:
        The target; None if the run is not to be published.

    Raises:
        ValueError: If states of the optimizer were to be published.
    """
    if not args.push_to_hub:
        return None
    args.push_to_hub = False
    strategy = str(args.hub_strategy.value)
    if strategy not in _STRATEGIES:
        raise ValueError(
            f"training.hub_strategy={strategy!r} would publish states of the optimizer, which are pickles: "
            f"{' and '.join(_STRATEGIES)} publish the model; keep checkpoints in the output folder."
        )
    name = args.hub_model_id or Path(args.output_dir).absolute().name
    return HubTarget(name, args.hub_private_repo, args.hub_revision, strategy == "every_save")


def with_repository(target: HubTarget) -> HubTarget:
    """Make the repository of a run, so that what is missing is told before it is trained.

    Returns:
        The target with the whole name of its repository.

    Raises:
        ValueError: If the name is not possible, or the repository is public and should not be.
        PermissionError: If there is no token, or not one that may write.
        OSError: If the Hub fails or cannot be reached.
    """
    return replace(target, repo_id=make_repository(target.repo_id, target.private))


def publish_run(report: RunReport, target: HubTarget) -> RunReport:
    """Publish a run that is finished.

    Returns:
        The report with what is on the Hub.

    Raises:
        NotPublished: If that fails.
    """
    try:
        return replace(report, publication=target.publish(report.model_folder))
    except (OSError, ValueError) as error:
        raise NotPublished(report, target, error) from error
