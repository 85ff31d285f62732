"""Tables of inference: the classifier against others, and in 16 bits."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import PreTrainedModel

from hf_maskattn.benchmark.classifiers import our_classifier, textbook_classifier, transformer_classifier
from hf_maskattn.benchmark.lengths import random_batches
from hf_maskattn.benchmark.machine import has_bf16
from hf_maskattn.benchmark.plan import Plan, Setting
from hf_maskattn.benchmark.report import Ratio, Row
from hf_maskattn.benchmark.timing import race
from hf_maskattn.benchmark.training import LabeledBatch, labeled_batch
from hf_maskattn.benchmark.ways import Results, Way

BATCH_SIZE = 32
BATCHES = 4
ONE_TEXT = 32
"""Tokens of the text that is read alone."""

OURS, ONNX, TEXTBOOK, TRANSFORMER = "ours", "ours by onnxruntime", "textbook", "DistilBERT"
WEIGHTS, AUTOCAST = "bf16 weights", "bf16 autocast"


def inference_plans(setting: Setting) -> list[Plan]:
    """Plan two tables: against other models, and against 16 bits."""
    cases = {
        f"one text of {ONE_TEXT} tokens": [[ONE_TEXT]],
        f"{BATCH_SIZE} cldr names": random_batches(setting.lengths, BATCH_SIZE, BATCHES),
    }
    model = "the model of language_identification.yaml"

    def measured(ways_of: Callable[[Sequence[LabeledBatch], torch.device], list[Way]]) -> dict[str, Callable[[], Row]]:
        return {case: partial(_measure, ways_of, rows, setting) for case, rows in cases.items()}

    return [
        Plan(
            title="Classifier, inference",
            caption=f"Logits, {model}. DistilBERT: random weights, as many parameters, not the same function.",
            cases=measured(model_ways),
            ratios=[
                *(Ratio(f"times faster than {rival}", rival, OURS) for rival in (TEXTBOOK, TRANSFORMER)),
                Ratio("onnxruntime: times faster than torch", OURS, ONNX),
            ],
        ),
        Plan(
            title="Classifier, inference in 16 bits",
            caption=f"Logits, {model}. Numbers of 16 bits are rounded, so that they are not compared.",
            cases=measured(precision_ways),
            ratios=[Ratio(f"{name}: times faster than fp32", "fp32", name) for name in (WEIGHTS, AUTOCAST)],
        ),
    ]


def _measure(
    ways_of: Callable[[Sequence[LabeledBatch], torch.device], list[Way]], rows: Sequence[Sequence[int]], setting: Setting
) -> Row:
    batches = [labeled_batch(lengths, setting.device) for lengths in rows]
    return race(ways_of(batches, setting.device), setting.seconds, setting.device)


def model_ways(batches: Sequence[LabeledBatch], device: torch.device) -> list[Way]:
    """Prepare inference by our model, by onnxruntime, by the textbook's, all with the same weights, and by a transformer."""
    ours = our_classifier().to(device).eval()
    textbook = textbook_classifier(ours).to(device).eval()
    transformer = transformer_classifier(ours.num_parameters()).to(device).eval()
    return [
        _way(OURS, lambda batch: ours(batch.input_ids, batch.attention_mask).logits, batches),
        _onnx_way(ours, batches, device),
        _way(TEXTBOOK, lambda batch: textbook(batch.input_ids, batch.attention_mask), batches),
        _way(TRANSFORMER, lambda batch: transformer(batch.input_ids, batch.attention_mask).logits, batches, comparable=False),
    ]


def _onnx_way(model: PreTrainedModel, batches: Sequence[LabeledBatch], device: torch.device) -> Way:
    if device.type != "cpu":
        return Way(ONNX, None, remark="measured on a CPU only")
    try:
        from hf_maskattn.onnx.export import export_onnx
        from hf_maskattn.onnx.runtime import OnnxSession

        with TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            export_onnx(model, path)
            session = OnnxSession(path)
    except ImportError as error:
        return Way(ONNX, None, remark=str(error))

    def logits_of(batch: LabeledBatch) -> torch.Tensor:
        return torch.from_numpy(session.run(batch.input_ids.numpy(), batch.attention_mask.numpy())[0])

    return _way(ONNX, logits_of, batches)


def precision_ways(batches: Sequence[LabeledBatch], device: torch.device) -> list[Way]:
    """Prepare inference by our model in fp32, with bf16 weights, and under bf16 autocast."""
    wide = our_classifier().to(device).eval()
    ways = [_way("fp32", lambda batch: wide(batch.input_ids, batch.attention_mask).logits, batches)]
    if not has_bf16(device):
        remark = f"this {device.type.upper()} has no bf16 instructions"
        return [*ways, *(Way(name, None, remark=remark) for name in (WEIGHTS, AUTOCAST))]
    narrow = our_classifier().to(device, torch.bfloat16).eval()

    def autocast(batch: LabeledBatch) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return wide(batch.input_ids, batch.attention_mask).logits

    return [
        *ways,
        _way(WEIGHTS, lambda batch: narrow(batch.input_ids, batch.attention_mask).logits, batches, comparable=False),
        _way(AUTOCAST, autocast, batches, comparable=False),
    ]


def _way(
    name: str, logits_of: Callable[[LabeledBatch], torch.Tensor], batches: Sequence[LabeledBatch], comparable: bool = True
) -> Way:
    @torch.inference_mode()
    def run() -> Results:
        return {f"logits {number}": logits_of(batch) for number, batch in enumerate(batches)}

    return Way(name, run, comparable, 1 / len(batches))
