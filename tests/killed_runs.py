"""Kill training runs at random moments, resume them, and compare the result with an uninterrupted run.

    python -m tests.killed_runs --trials 50 --seed 0

Each attempt is a process that is ended by SIGKILL: at a random time, before a random change to a file, before one of the last
changes, or when a random file of a checkpoint has just appeared. The last attempt is not killed. Its result must have the same
bits as that of an uninterrupted run: weights, tokenizer, metrics, evaluations, and the name of the best checkpoint.
"""

import argparse
import gc
import hashlib
import json
import logging
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

DROPOUT = {"hidden_dropout_prob": 0.3, "embedding_dropout_prob": 0.2}
STEPS = {"save_strategy": "steps", "eval_strategy": "steps"}
WORKERS = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}
SCENARIOS = {
    "labels": ("text-classification", {**STEPS, "save_steps": 3, "warmup_steps": 4, "lr_scheduler_type": "cosine"}),
    "masks": ("fill-mask", {**STEPS, "save_steps": 2, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 4}),
    "tags": ("token-classification", {"num_train_epochs": 3, "train_sampling_strategy": "random", "save_total_limit": 1}),
    "workers": ("fill-mask", {"max_steps": 8, "save_strategy": "steps", "save_steps": 3, **WORKERS}),
    "pairs": ("text2text-generation", {**STEPS, "save_steps": 3, "generation_num_beams": 2}),
    "each step": ("text-classification", {**STEPS, "eval_strategy": "no", "save_steps": 1, "save_total_limit": 1}),
}
"""Task and training fields of the runs, by name."""

KINDS = ("time", "change", "end", "file")
FOLDER_EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


@dataclass
class Attempt:
    """One process that trained.

    Args:
        seconds: Its runtime.
        returncode: 0 if it finished, -9 if it was killed.
        step: Its last step.
        phase: Its last phase.
        changes: Number of changes to files in its folder.
        log: Its output.
    """

    seconds: float
    returncode: int
    step: int
    phase: str
    changes: int
    log: str


@dataclass
class Trial:
    """A run that was killed and resumed."""

    kills: list[str] = field(default_factory=list)
    skipped: int = 0
    verdict: str = ""


class Progress:
    """Progress of an attempt, in shared memory."""

    phases = ("start", "train", "evaluate", "save", "rotate", "results")

    def __init__(self) -> None:
        self.step, self.phase, self.changes = (multiprocessing.RawValue("q", 0) for _ in range(3))

    def follow(self) -> None:
        """Record the phases of the run in this process."""
        from hf_maskattn.training import train
        from hf_maskattn.training import trainer as trainer_module
        from hf_maskattn.training.trainer import MaskAttnTrainer

        self._record(MaskAttnTrainer, "training_step", "train")
        self._record(MaskAttnTrainer, "evaluation_loop", "evaluate")
        self._record(MaskAttnTrainer, "_save_checkpoint", "save")
        self._record(trainer_module, "rotate_checkpoints", "rotate")
        self._record(train, "write_results", "results")

    def _record(self, owner, name: str, phase: str) -> None:
        inner = getattr(owner, name)

        def recording(*args, **kwargs):
            before, self.phase.value = self.phase.value, self.phases.index(phase)
            if phase == "train":
                self.step.value = args[0].state.global_step
            result = inner(*args, **kwargs)
            self.phase.value = before if phase != "train" else self.phase.value
            return result

        setattr(owner, name, recording)

    def kill_before(self, change: int | None, folder: Path) -> None:
        """Count the changes to files in a folder, and kill this process before one of them."""
        prefix = str(folder)

        def hook(event: str, arguments: tuple) -> None:
            if event == "open":
                path, mode, flags = arguments
                writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) if mode is None else set(mode) & set("wax+")
                if not writes:
                    return
            elif event in FOLDER_EVENTS:
                path = arguments[0]
            else:
                return
            if isinstance(path, str | os.PathLike) and os.fspath(path).startswith(prefix):
                if self.changes.value == change:
                    os.kill(os.getpid(), signal.SIGKILL)
                self.changes.value += 1

        sys.addaudithook(hook)


def attempt(recipe: Path, *, resume: bool, change: int | None = None, ready: Callable[[float], bool] | None = None) -> Attempt:
    """Run a recipe in a child process.

    Args:
        recipe: The recipe.
        resume: Whether to resume.
        change: Number of the change to a file before which it is killed.
        ready: Returns whether to kill it now, given the seconds since its start.

    Returns:
        The attempt.
    """
    progress, log = Progress(), recipe.with_suffix(".log")
    started = time.perf_counter()
    process = os.fork()
    if process == 0:
        _train_and_exit(recipe, resume, progress, change, log)
    ended = 0
    while ready is not None and not ended:
        if ready(time.perf_counter() - started):
            os.kill(process, signal.SIGKILL)
            break
        time.sleep(0.0005)
        ended, status = os.waitpid(process, os.WNOHANG)
    if not ended:
        _, status = os.waitpid(process, 0)
    return Attempt(
        time.perf_counter() - started,
        os.waitstatus_to_exitcode(status),
        progress.step.value,
        Progress.phases[progress.phase.value],
        progress.changes.value,
        log.read_text(encoding="utf-8"),
    )


def _train_and_exit(recipe: Path, resume: bool, progress: Progress, change: int | None, log: Path) -> None:
    code = 1
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        logging.basicConfig(stream=sys.stderr, level=logging.WARNING, force=True)
        from hf_maskattn.recipes.recipe import load_recipe
        from hf_maskattn.training.train import train

        progress.follow()
        progress.kill_before(change, recipe.parent / "run")
        train(load_recipe(recipe, [f"training.output_dir={recipe.parent / 'run'}"]), resume=resume)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def read_results(run: Path) -> dict:
    """Return everything of a finished run that has to be equal."""
    report = json.loads((run / "metrics.json").read_text())
    history = json.loads((run / "trainer_state.json").read_text())["log_history"]
    files = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")
    names = {"runtime", "samples_per_second", "steps_per_second"}

    def without_times(values: dict) -> dict:
        return {name: value for name, value in values.items() if not any(name.endswith(suffix) for suffix in names)}

    return {
        **{name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in files},
        "metrics": {split: without_times(values) for split, values in report["metrics"].items() if split != "train"},
        "best": report["best_checkpoint"],
        "evaluations": [without_times(entry) for entry in history if "eval_loss" in entry],
    }


class Scenario:
    """A recipe and the results of an uninterrupted run."""

    def __init__(self, name: str, folder: Path):
        from tests.training.toy_recipe import write_recipe

        task, training = SCENARIOS[name]
        layers = ("encoder_layers", "decoder_layers") if task == "text2text-generation" else ("num_hidden_layers",)
        self.recipe = write_recipe(folder, task, model={**DROPOUT, **dict.fromkeys(layers, 2)}, training=training)
        self.uninterrupted = attempt(self.recipe, resume=False)
        if self.uninterrupted.returncode != 0:
            raise RuntimeError(f"{name}: the uninterrupted run failed:\n{self.uninterrupted.log}")
        self.expected = read_results(folder / "run")
        self.files = [path.relative_to(folder) for path in folder.glob("run/checkpoint-*/*") if path.is_file()]

    def try_once(self, folder: Path, rng: random.Random) -> Trial:
        """Kill a run of this recipe one to three times, then let it finish."""
        trial = Trial()
        recipe = Path(shutil.copy(self.recipe, folder))
        for number in range(rng.randint(1, 3)):
            killed = self._kill(recipe, rng, resume=number > 0, trial=trial)
            if killed.returncode == 0:
                break
        last = attempt(recipe, resume=True)
        trial.skipped += last.log.count("cannot be used")
        if last.returncode != 0:
            trial.verdict = f"the last attempt failed:\n{last.log}"
            return trial
        results = read_results(folder / "run")
        differences = [key for key, value in self.expected.items() if results[key] != value]
        trial.verdict = f"differs in {', '.join(differences)}" if differences else "equal"
        return trial

    def _kill(self, recipe: Path, rng: random.Random, *, resume: bool, trial: Trial) -> Attempt:
        kind = rng.choice(KINDS)
        if kind in ("change", "end"):
            first = 0 if kind == "change" else int(self.uninterrupted.changes * 0.9)
            done = attempt(recipe, resume=resume, change=rng.randrange(first, self.uninterrupted.changes))
        elif kind == "file":
            path = recipe.parent / rng.choice(self.files)
            done = attempt(recipe, resume=resume, ready=lambda _: path.exists())
        else:
            moment = rng.uniform(0, self.uninterrupted.seconds)
            done = attempt(recipe, resume=resume, ready=lambda seconds: seconds > moment)
        trial.skipped += done.log.count("cannot be used")
        if done.returncode == -signal.SIGKILL:
            trial.kills.append(f"{done.step} {done.phase} ({kind})")
        elif done.returncode != 0:
            trial.kills.append(f"{done.step} {done.phase} FAILED: {done.log[-500:]}")
        return done


def main() -> int:
    """Run the trials and print a line for each."""
    parser = argparse.ArgumentParser(description="Kill training runs at random moments, resume them, compare the results.")
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        # Set before the modules that read them are imported.
        os.environ.update(HF_DATASETS_CACHE=f"{scratch}/cache", HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
        import torch

        import hf_maskattn.training.train  # noqa: F401 (imported once, before the processes are forked)

        torch.set_num_threads(1)
        gc.freeze()  # so that no attempt collects the objects of all imports
        return _try_all(Path(scratch), options.trials, random.Random(options.seed))


def _try_all(scratch: Path, trials: int, rng: random.Random) -> int:
    scenarios: dict[str, Scenario] = {}
    done: list[Trial] = []
    for number in range(1, trials + 1):
        name = list(SCENARIOS)[(number - 1) % len(SCENARIOS)]
        if name not in scenarios:
            (scratch / name).mkdir()
            scenarios[name] = Scenario(name, scratch / name)
        folder = scratch / f"trial {number}"
        folder.mkdir()
        trial = scenarios[name].try_once(folder, rng)
        shutil.rmtree(folder)
        done.append(trial)
        print(f"{number:4} {name:10} {trial.verdict:6} skipped {trial.skipped}  killed at {', '.join(trial.kills)}", flush=True)
    failures = sum(trial.verdict != "equal" for trial in done)
    kills, skipped = sum(len(trial.kills) for trial in done), sum(trial.skipped for trial in done)
    print(
        f"{trials} trials, {kills} kills, {skipped} checkpoints skipped: {trials - failures} ended like an uninterrupted run, "
        f"{failures} did not."
    )
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
