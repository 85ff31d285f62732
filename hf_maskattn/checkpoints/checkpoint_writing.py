"""A Trainer whose checkpoints are sealed: whole, and known to be whole, before any older one is removed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import Trainer, TrainingArguments

from hf_maskattn.checkpoints.checkpoints import rotate
from hf_maskattn.checkpoints.manifest import find_damage, is_sealed, seal, unseal
from hf_maskattn.checkpoints.whole_files import is_write_failure, reason


class SealingTrainer(Trainer):
    """Trainer that writes a manifest to each checkpoint when all processes have written theirs."""

    def _save_checkpoint(self, model, trial) -> None:
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        try:
            if self.args.should_save:
                unseal(folder)
            with _without_rotation(self.args):
                super()._save_checkpoint(model, trial)
            self._seal(folder)
        except Exception as error:
            if is_sealed(folder) or not is_write_failure(error):
                raise
            raise not_written(folder, error) from error
        if self.args.should_save:
            best = self.state.best_model_checkpoint
            rotate(folder, self.args.save_total_limit, None if best is None else Path(best))

    def _push_from_checkpoint(self, checkpoint_folder) -> None:
        self._seal(Path(checkpoint_folder))
        super()._push_from_checkpoint(checkpoint_folder)

    def _seal(self, folder: Path) -> None:
        self.accelerator.wait_for_everyone()
        if self.args.should_save and not is_sealed(folder):
            seal(folder, resumable=not self.args.save_only_model)

    def _load_best_model(self) -> None:
        best = Path(str(self.state.best_model_checkpoint))
        damage = find_damage(best)
        if damage is not None:
            raise OSError(f"the best checkpoint, {best}, cannot be used any more ({damage}).")
        super()._load_best_model()


def not_written(folder: Path, error: Exception) -> OSError:
    """Tell that a folder could not be written to its end.

    Args:
        folder: The folder.
        error: What came from the library that wrote, which as a rule does not name the file.

    Returns:
        The error to raise, which names the folder, the file that was written last, and how much room is left.
    """
    files = [path for path in folder.rglob("*") if path.is_file()]
    last = max(files, key=lambda path: path.stat().st_mtime_ns, default=folder)
    free = shutil.disk_usage(folder if folder.is_dir() else folder.parent).free / 2**20
    return OSError(
        f"{folder} could not be written to its end ({last.name}: {reason(error)}); {free:,.0f} MiB are free on that disk."
    )


@contextmanager
def _without_rotation(args: TrainingArguments) -> Iterator[None]:
    """Keep Trainer from removing older checkpoints, which it does before the new one can be sealed."""
    limit, args.save_total_limit = args.save_total_limit, None
    try:
        yield
    finally:
        args.save_total_limit = limit
