"""Keeps the best checkpoint known when a run is resumed."""

import logging
from pathlib import Path

from transformers import TrainerCallback

from hf_maskattn.checkpoints.manifest import find_damage

logger = logging.getLogger(__name__)


class KeepTrackOfBest(TrainerCallback):
    """Finds the best checkpoint again after the folder was moved, or forgets its score if it is gone or damaged.

    Trainer remembers it by its path. Where that path is gone it forgets the checkpoint but not the score, and would in
    the end keep the last model as if it were the best.
    """

    def on_train_begin(self, args, state, control, **kwargs):
        """Look for the best checkpoint beside the others."""
        if state.best_global_step is None:
            return
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.best_global_step}"
        damage = find_damage(checkpoint) if checkpoint.is_dir() else "it is gone"
        if damage is None:
            state.best_model_checkpoint = str(checkpoint)
        else:
            logger.warning(
                f"The best checkpoint so far, {checkpoint}, cannot be used ({damage}); the best is searched anew from here on."
            )
            state.best_global_step = state.best_metric = state.best_model_checkpoint = None
