"""Trains on a long stream and prints what memory and time it takes: python -m tests.long_stream --rows 2000000

Writes shards of random words to a temporary folder and trains a tiny classifier on each row once. Then it measures how long a
run that is resumed takes to come to where it was.
"""

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import TrainerCallback

from hf_maskattn.data.local_files import find_files
from hf_maskattn.data.shards import ShardReader, Shards, Share
from hf_maskattn.recipes.recipe import DataArguments, ModelArguments, Recipe
from hf_maskattn.recipes.training_defaults import training_arguments
from hf_maskattn.training.assembly import assemble

SHARES = (0.1, 0.5, 1.0)
ROWS_OF_A_SHARD = 100_000
BATCH = 256


class Memory(TrainerCallback):
    """Notes the resident memory of this process, in MB, at some shares of a run."""

    def __init__(self):
        self.resident = {}

    def note(self, done):
        for share in SHARES:
            if share not in self.resident and done >= share:
                self.resident[share] = psutil.Process().memory_info().rss / 1e6

    def on_step_end(self, args, state, control, **kwargs):
        self.note(state.global_step / state.max_steps)


def write_shards(folder, rows, *, words=12, ending="parquet"):
    """Write rows of a text, of about as many words, and a label that its words tell."""
    rng = random.Random(0)
    vocabulary = {label: [f"{label}{number}" for number in range(500)] for label in ("cat", "dog")}
    for start in range(0, rows, ROWS_OF_A_SHARD):
        labels = [rng.choice(("cat", "dog")) for _ in range(min(ROWS_OF_A_SHARD, rows - start))]
        texts = [" ".join(rng.choices(vocabulary[label], k=rng.randint(1, 2 * words - 1))) for label in labels]
        path = folder / f"train-{start // ROWS_OF_A_SHARD:05}.{ending}"
        if ending == "parquet":
            pq.write_table(pa.table({"text": texts, "label": labels}), path)
        else:
            pairs = zip(texts, labels, strict=True)
            path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in pairs))


def tiny_trainer(folder, rows):
    """Put together what trains on each row of Parquet shards once."""
    data = DataArguments(
        train_file=str(folder / "train-*.parquet"), streaming=True, sample_rows=2000, tokenizer="word", vocab_size=2000
    )
    sizes = {"embedding_size": 8, "hidden_size": 8, "attention_size": 8}
    training = {
        "output_dir": str(folder / "run"),
        "max_steps": rows // BATCH,
        "per_device_train_batch_size": BATCH,
        "learning_rate": 1e-2,
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    recipe = Recipe("long", ModelArguments(task="text-classification", config=sizes), data, training)
    return assemble(recipe, training_arguments(recipe)).trainer


def seconds_to_resume(folder, rows, *, ending):
    """Measure how long it takes until the row after so many rows is there to be encoded."""
    files = find_files(folder / f"train-*.{ending}")
    shards = Shards(files)
    started = time.perf_counter()
    next(ShardReader(shards, Share(list(range(len(shards)))), window=10_000, seed=(0,)).rows_after(rows))
    return time.perf_counter() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for ending in ("parquet", "jsonl"):
            write_shards(folder, rows, ending=ending)
        started = time.perf_counter()
        trainer, memory = tiny_trainer(folder, rows), Memory()
        trainer.add_callback(memory)
        trainer.train()
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        lines = [f"{rows:,} rows in {seconds:.0f} s, {rows / seconds:,.0f} rows a second"]
        lines += [f"resident memory after {share:4.0%} of the rows: {used:.0f} MB" for share, used in memory.resident.items()]
        lines += [f"peak: {peak:.0f} MB"]
        for ending in ("parquet", "jsonl"):
            seconds = seconds_to_resume(folder, rows // 2, ending=ending)
            lines += [f"resumed after {rows // 2:,} rows of {ending}: {seconds:.2f} s"]
        sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
