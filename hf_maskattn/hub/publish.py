"""Publishes a model folder on the Hub, in one commit, that loads with this package and without it."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HFValidationError
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import validate_repo_id
from transformers import AutoConfig, PreTrainedConfig

from hf_maskattn.auto import register
from hf_maskattn.hub.clean_load import load_without_package
from hf_maskattn.hub.model_card import build_model_card, name_in_card
from hf_maskattn.hub.publication_files import CARD_FILE, copy_what_is_published, is_left_over
from hf_maskattn.hub.upload import Change, Commit, call, commit_once, differing, require_token
from hf_maskattn.model.remote_code import CODE_VERSION
from hf_maskattn.tasks import loading_call, task_of

logger = logging.getLogger(__name__)

_COMMIT_ID = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Publication:
    """What is on the Hub after a model was published.

    Attributes:
        repo_id: `user/name` of the repository.
        url: Page of the model: of the repository, its branch or the pull request.
        commit: Id of the commit that holds the model.
        revision: What to load it by, where it is not the main branch.
        files: Names of the files of the model.
        changed: Those that were not there before, or were different; none if there was nothing to commit.
        removed: Names of the files of an earlier model that the commit took away.
        config: The configuration of the model.
    """

    repo_id: str
    url: str
    commit: str
    revision: str | None
    files: Sequence[str]
    changed: Sequence[str]
    removed: Sequence[str]
    config: PreTrainedConfig

    @property
    def task(self) -> str | None:
        """The task of the model; None if it has no head."""
        return task_of(self.config.architectures)

    def loading_call(self, **settings: object) -> str:
        """Write the call of transformers that loads the model; see `hf_maskattn.tasks.loading_call`."""
        revision = {} if self.revision is None else {"revision": self.revision}
        return loading_call(self.config, self.task, self.repo_id, **revision, **settings)

    @property
    def is_new(self) -> bool:
        """Whether anything was committed."""
        return bool(self.changed or self.removed)


def publish(
    model_folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    message: str | None = None,
    create_pr: bool = False,
) -> Publication:
    """Publish a model folder: weights, configuration, code, tokenizer, card, scores and recipe, in one commit.

    Nothing is sent before the model was loaded and run once by the code that travels with it, without this package.

    Args:
        model_folder: What a training run, or `save_pretrained` of model and tokenizer, wrote.
        repo_id: `name` or `user/name` of the repository, which is made if it does not exist.
        private: Whether only its owner sees a repository that is made; None leaves that to the settings of the owner.
        revision: Branch to commit to, which is made from the main branch if it does not exist; None is the main branch.
        message: What the commit is called.
        create_pr: Whether to open a pull request, instead of committing to the branch.

    Returns:
        What is on the Hub now.

    Raises:
        FileNotFoundError: If the folder lacks something, or there is no such repository and it cannot be made.
        ValueError: If a name is not possible, the model does not load, or the repository is public where `private` is True.
        PermissionError: If there is no token, or not one that may write.
        OSError: If the Hub fails, cannot be reached, or somebody else commits at the same time. Then nothing has changed
            but that the repository and the branch exist, or the words say that this could not be found out.
    """
    _check_names(repo_id, revision, message)
    require_token()
    with TemporaryDirectory() as scratch:
        folder, api = Path(scratch), HfApi()
        logger.info(f"checking {model_folder} ...")
        copy_what_is_published(Path(model_folder), folder)
        num_parameters = _load(folder, model_folder)
        repo_id = make_repository(repo_id, private)
        branch = revision or constants.DEFAULT_REVISION
        head = _head(api, repo_id, branch, create_pr)
        names_there = {file.rfilename for file in head.siblings or ()}
        register()
        config = AutoConfig.from_pretrained(folder)
        if CARD_FILE in names_there and not (folder / CARD_FILE).is_file():
            logger.info(f"{model_folder} has no {CARD_FILE}: that of {repo_id} stays, and may tell of other weights.")
        else:
            _finish_card(folder / CARD_FILE, repo_id, config, num_parameters)
        files = {path.name: path for path in sorted(folder.iterdir())}
        change = Change(
            repo_id=repo_id,
            branch=branch,
            parent=str(head.sha),
            files={name: files[name] for name in differing(head, files)},
            removed=sorted(name for name in names_there if is_left_over(name, set(files))),
            message=message or f"Model of hf-maskattn {CODE_VERSION}",
            create_pr=create_pr,
        )
        commit = Commit(change.parent)
        if change.files or change.removed:
            size = sum(path.stat().st_size for path in change.files.values())
            logger.info(f"publishing {len(change.files)} files, {size / 1e6:.2f} MB, at {_page(repo_id)} ...")
            commit = commit_once(api, change)
    url = _page(repo_id) if branch == constants.DEFAULT_REVISION else f"{_page(repo_id)}/tree/{branch}"
    if commit.pull_request is not None:
        url, revision = f"{_page(repo_id)}/discussions/{commit.pull_request}", f"refs/pr/{commit.pull_request}"
    return Publication(repo_id, url, commit.oid, revision, list(files), list(change.files), change.removed, config)


def make_repository(repo_id: str, private: bool | None = None) -> str:
    """Make a repository of models, unless it is there.

    Args:
        repo_id: `name` or `user/name`.
        private: Whether only its owner sees a repository that is made; None leaves that to the settings of the owner.

    Returns:
        Its `user/name`.

    Raises:
        ValueError: If the name is not possible, or the repository is there and public where `private` is True.
        PermissionError: If there is no token, or not one that may do that.
        OSError: If the Hub fails or cannot be reached.
    """
    _check_names(repo_id)
    require_token()
    api = HfApi()
    repo_id = call(repo_id, api.create_repo, repo_id, private=private, exist_ok=True).repo_id
    if private and not call(repo_id, api.model_info, repo_id).private:
        raise ValueError(
            f"{repo_id} exists and is public, and would stay so: make it private at {_page(repo_id)}/settings, or choose "
            "another name."
        )
    return repo_id


def _check_names(repo_id: str, revision: str | None = None, message: str | None = None) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"{repo_id!r} is no name of a repository, expected `name` or `user/name`: {error}") from error
    if revision is not None and (not revision.strip() or _COMMIT_ID.fullmatch(revision)):
        raise ValueError(f"revision={revision!r} is no branch: a model is committed to a branch, give the name of one.")
    if message is not None and not message.strip():
        raise ValueError("the message of a commit may not be empty.")


def _load(folder: Path, model_folder: str | Path) -> int:
    try:
        return load_without_package(folder)
    except ValueError as error:
        raise ValueError(f"{model_folder} is not published: {error}") from error


def _head(api: HfApi, repo_id: str, branch: str, create_pr: bool) -> ModelInfo:
    """Find where a branch stands; a missing one is made."""
    if branch != constants.DEFAULT_REVISION:
        refs = call(repo_id, api.list_repo_refs, repo_id)
        if any(tag.name == branch for tag in refs.tags):
            raise ValueError(f"revision={branch!r} is a tag of {repo_id}: a model is committed to a branch.")
        is_there = branch.startswith("refs/") or any(found.name == branch for found in refs.branches)
        if not is_there and create_pr:
            raise ValueError(
                f"revision={branch!r} does not exist in {repo_id}, a pull request is opened to a branch that does."
            )
        if not is_there:
            call(repo_id, api.create_branch, repo_id, branch=branch, exist_ok=True)
    return call(repo_id, api.model_info, repo_id, revision=branch, files_metadata=True)


def _finish_card(path: Path, repo_id: str, config: PreTrainedConfig, num_parameters: int) -> None:
    """Give the card the name of the repository; write one if there is none."""
    if path.is_file():
        path.write_text(name_in_card(path.read_text(encoding="utf-8"), repo_id), encoding="utf-8")
    else:
        build_model_card(repo_id, config, num_parameters, task_of(config.architectures)).save(path)


def _page(repo_id: str) -> str:
    return f"{constants.ENDPOINT}/{repo_id}"
