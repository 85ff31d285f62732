"""Publish a model folder on the Hub in one commit that loads with and without this package."""

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
from hf_maskattn.hub.model_card import build_model_card, rename_in_card
from hf_maskattn.hub.publication_files import CARD_FILE, copy_published_files, is_obsolete, load_without_package
from hf_maskattn.hub.upload import Commit, FolderCommit, call_with_retries, compare_with_hub, require_token
from hf_maskattn.model.remote_code import CODE_VERSION
from hf_maskattn.tasks import loading_call, task_of

logger = logging.getLogger(__name__)

_COMMIT_ID = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Publication:
    """A published model.

    Attributes:
        repo_id: `user/name` of the repository.
        url: Page of the repository, its branch or the pull request.
        commit: Id of the commit that holds the model.
        revision: The revision to load, None for the main branch.
        files: Names of the files of the model.
        changed: Those that are new or different. Empty if there was nothing to commit.
        removed: Names of the files of an earlier model that the commit removed.
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
        """The task of the model, None if it has no head."""
        return task_of(self.config.architectures)

    def loading_call(self, **settings: object) -> str:
        """Return the call of transformers that loads the model. See `hf_maskattn.tasks.loading_call`."""
        revision = {} if self.revision is None else {"revision": self.revision}
        return loading_call(self.task, self.repo_id, **revision, **settings)

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
    """Publish a model folder in one commit: weights, configuration, code, tokenizer, card, metrics and recipe.

    Nothing is uploaded before the model was loaded and run once in a process without this package.

    Args:
        model_folder: Folder written by a training run, or by `save_pretrained` of model and tokenizer.
        repo_id: `name` or `user/name` of the repository, which is created if it does not exist.
        private: Whether a new repository is private. None uses the default of its owner.
        revision: Branch to commit to, which is created from the main branch if it does not exist. None is the main branch.
        message: The commit message.
        create_pr: Whether to open a pull request instead of committing to the branch.

    Returns:
        The published model.

    Raises:
        FileNotFoundError: If the folder is not complete, or the repository does not exist and cannot be created.
        ValueError: If a name is not valid, the model does not load, or the repository is public and `private` is True.
        PermissionError: If there is no token, or one without write access.
        OSError: If the Hub fails or cannot be reached, or somebody else commits at the same time. The repository and the branch
            may have been created. The message says if the outcome of the commit is unknown.
    """
    _check_names(repo_id, revision, message)
    require_token()
    with TemporaryDirectory() as scratch:
        folder, api = Path(scratch), HfApi()
        logger.info(f"Checking {model_folder} ...")
        copy_published_files(Path(model_folder), folder)
        try:
            num_parameters = load_without_package(folder)
        except ValueError as error:
            raise ValueError(f"{model_folder} was not published. {error}") from error
        repo_id = make_repository(repo_id, private)
        branch = revision or constants.DEFAULT_REVISION
        head = _get_head(api, repo_id, branch, create_pr)
        existing = {file.rfilename for file in head.siblings or ()}
        register()
        config = AutoConfig.from_pretrained(folder)
        if CARD_FILE in existing and not (folder / CARD_FILE).is_file():
            logger.info(f"{model_folder} has no {CARD_FILE}. The one of {repo_id} is kept, and may describe other weights.")
        else:
            _finish_card(folder / CARD_FILE, repo_id, config, num_parameters)
        files = sorted(path.name for path in folder.iterdir())
        parent = str(head.sha)
        change = FolderCommit(
            repo_id=repo_id,
            branch=branch,
            parent=parent,
            folder=folder,
            changed=compare_with_hub(api, repo_id, parent, folder)[0],
            removed=sorted(name for name in existing if is_obsolete(name, set(files))),
            message=message or f"Model of hf-maskattn {CODE_VERSION}",
            create_pr=create_pr,
        )
        commit = Commit(parent)
        if change.changed or change.removed:
            size = sum((folder / name).stat().st_size for name in change.changed)
            logger.info(f"Publishing {len(change.changed)} files, {size / 1e6:.2f} MB, at {_page(repo_id)} ...")
            commit = change.make(api)
    url = _page(repo_id) if branch == constants.DEFAULT_REVISION else f"{_page(repo_id)}/tree/{branch}"
    if commit.pull_request is not None:
        url, revision = f"{_page(repo_id)}/discussions/{commit.pull_request}", f"refs/pr/{commit.pull_request}"
    return Publication(repo_id, url, commit.oid, revision, files, change.changed, change.removed, config)


def make_repository(repo_id: str, private: bool | None = None) -> str:
    """Create a model repository if it does not exist.

    Args:
        repo_id: `name` or `user/name`.
        private: Whether a new repository is private. None uses the default of its owner.

    Returns:
        Its `user/name`.

    Raises:
        ValueError: If the name is not valid, or the repository exists and is public and `private` is True.
        PermissionError: If there is no token, or one without write access.
        OSError: If the Hub fails or cannot be reached.
    """
    _check_names(repo_id)
    require_token()
    api = HfApi()
    repo_id = call_with_retries(repo_id, api.create_repo, repo_id, private=private, exist_ok=True).repo_id
    if private and not call_with_retries(repo_id, api.model_info, repo_id).private:
        raise ValueError(
            f"{repo_id} must be private, but exists and is public. Make it private at {_page(repo_id)}/settings, or choose "
            "another name."
        )
    return repo_id


def _check_names(repo_id: str, revision: str | None = None, message: str | None = None) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"The repository must be `name` or `user/name`, got {repo_id!r}: {error}") from error
    if revision is not None and (not revision.strip() or _COMMIT_ID.fullmatch(revision)):
        raise ValueError(f"revision must be the name of a branch, got {revision!r}.")
    if message is not None and not message.strip():
        raise ValueError("The commit message must not be empty.")


def _get_head(api: HfApi, repo_id: str, branch: str, create_pr: bool) -> ModelInfo:
    """Get the last commit of a branch, which is created if it does not exist."""
    if branch != constants.DEFAULT_REVISION:
        refs = call_with_retries(repo_id, api.list_repo_refs, repo_id)
        if any(tag.name == branch for tag in refs.tags):
            raise ValueError(f"revision must be the name of a branch, got {branch!r}, which is a tag of {repo_id}.")
        exists = branch.startswith("refs/") or any(existing.name == branch for existing in refs.branches)
        if not exists and create_pr:
            raise ValueError(f"revision must be an existing branch of {repo_id} for a pull request, got {branch!r}.")
        if not exists:
            call_with_retries(repo_id, api.create_branch, repo_id, branch=branch, exist_ok=True)
    return call_with_retries(repo_id, api.model_info, repo_id, revision=branch)


def _finish_card(path: Path, repo_id: str, config: PreTrainedConfig, num_parameters: int) -> None:
    """Write the name of the repository to the card, or a new card if there is none."""
    if path.is_file():
        path.write_text(rename_in_card(path.read_text(encoding="utf-8"), repo_id), encoding="utf-8")
    else:
        build_model_card(repo_id, config, num_parameters, task_of(config.architectures)).save(path)


def _page(repo_id: str) -> str:
    return f"{constants.ENDPOINT}/{repo_id}"
