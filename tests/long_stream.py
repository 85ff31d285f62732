"""Measures memory and time of training on a long stream: python -m tests.long_stream --rows 2000000

Writes shards of random words to a temporary folder and trains a tiny classifier on each row once. Then it measures how long a
resumed run takes to reach its position in the stream.
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

from hf_maskattn.data.files import list_files
from hf_maskattn.data.streaming import Partition, ShardReader, Shards
from hf_maskattn.recipes.recipe import DataArguments, ModelArguments, Recipe
from hf_maskattn.recipes.training_defaults import training_arguments
from hf_maskattn.training.assembly import assemble

FRACTIONS = (0.1, 0.5, 1.0)
ROWS_PER_SHARD = 100_000
BATCH = 256


class Memory(TrainerCallback):
    """Records the resident memory of this process, in MB, at some fractions of a run."""

    def __init__(self):
        self.resident = {}

    def record(self, done):
        for fraction in FRACTIONS:
            if fraction not in self.resident and done >= fraction:
                self.resident[fraction] = psutil.Process().memory_info().rss / 1e6

    def on_step_end(self, args, state, control, **kwargs):
        self.record(state.global_step / state.max_steps)


def write_shards(folder, rows, *, words=12, suffix="parquet"):
    """Write rows of a text, with `words` words on average, and a label that its words determine."""
    rng = random.Random(0)
    vocabulary = {label: [f"{label}{number}" for number in range(500)] for label in ("cat", "dog")}
    for start in range(0, rows, ROWS_PER_SHARD):
        labels = [rng.choice(("cat", "dog")) for _ in range(min(ROWS_PER_SHARD, rows - start))]
        texts = [" ".join(rng.choices(vocabulary[label], k=rng.randint(1, 2 * words - 1))) for label in labels]
        path = folder / f"train-{start // ROWS_PER_SHARD:05}.{suffix}"
        if suffix == "parquet":
            pq.write_table(pa.table({"text": texts, "label": labels}), path)
        else:
            pairs = zip(texts, labels, strict=True)
            path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in pairs))


def tiny_trainer(folder, rows):
    """Build a trainer that trains on each row of Parquet shards once."""
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


def seconds_to_resume(folder, rows, *, suffix):
    """Measure how long it takes to read the first row after `rows` rows."""
    files = list_files(folder / f"train-*.{suffix}")
    shards = Shards(files)
    started = time.perf_counter()
    next(ShardReader(shards, Partition(list(range(len(shards)))), window=10_000, seed=(0,)).read_from(rows))
    return time.perf_counter() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for suffix in ("parquet", "jsonl"):
            write_shards(folder, rows, suffix=suffix)
        started = time.perf_counter()
        trainer, memory = tiny_trainer(folder, rows), Memory()
        trainer.add_callback(memory)
        trainer.train()
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        lines = [f"{rows:,} rows in {seconds:.0f} s, {rows / seconds:,.0f} rows per second"]
        lines += [
            f"resident memory after {fraction:4.0%} of the rows: {used:.0f} MB" for fraction, used in memory.resident.items()
        ]
        lines += [f"peak: {peak:.0f} MB"]
        for suffix in ("parquet", "jsonl"):
            seconds = seconds_to_resume(folder, rows // 2, suffix=suffix)
            lines += [f"resumed after {rows // 2:,} rows of {suffix}: {seconds:.2f} s"]
        sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
