"""Tables of inference: the classifier against baselines, and in bfloat16."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import PreTrainedModel

from hf_maskattn.benchmark.baselines import (
    build_our_classifier,
    build_textbook_classifier,
    build_transformer_classifier,
)
from hf_maskattn.benchmark.batches import LabeledBatch, draw_labeled_batch, draw_random_batches
from hf_maskattn.benchmark.measurement import Implementation, Results, Setting, compare_times, limit_threads
from hf_maskattn.benchmark.report import Ratio, Row, Table

BATCH_SIZE = 32
NUM_BATCHES = 4
TEXT_LENGTH = 32
"""Number of tokens of the single text."""

OURS, ONNX, TEXTBOOK, TRANSFORMER = "ours", "ours by onnxruntime", "textbook", "DistilBERT"
WEIGHTS, AUTOCAST = "bf16 weights", "bf16 autocast"


def plan_inference(setting: Setting) -> list[Table]:
    """Plan two tables: against baselines, and in bfloat16."""
    measure = {
        f"one text of {TEXT_LENGTH} tokens, 1 thread": partial(_measure, rows=[[TEXT_LENGTH]], num_threads=1, setting=setting),
        f"{BATCH_SIZE} cldr names": partial(
            _measure, rows=draw_random_batches(setting.lengths, BATCH_SIZE, NUM_BATCHES), num_threads=None, setting=setting
        ),
    }
    caption = (
        f"Logits of an LSTM classifier of characters. The single text runs on one thread, batches on {torch.get_num_threads()}."
    )
    return [
        Table(
            title="Classifier, inference",
            caption=f"{caption} DistilBERT: random weights, as many parameters, not the same function.",
            cases={case: partial(function, build=build_models) for case, function in measure.items()},
            ratios=[
                *(Ratio(f"times faster than {baseline}", baseline, OURS) for baseline in (TEXTBOOK, TRANSFORMER)),
                Ratio("onnxruntime: times faster than torch", OURS, ONNX),
            ],
        ),
        Table(
            title="Classifier, inference in 16 bits",
            caption=f"{caption} Results in bfloat16 are rounded and not compared.",
            cases={case: partial(function, build=build_precisions) for case, function in measure.items()},
            ratios=[Ratio(f"{name}: times faster than fp32", "fp32", name) for name in (WEIGHTS, AUTOCAST)],
        ),
    ]


def _measure(
    build: Callable[[Sequence[LabeledBatch], torch.device], list[Implementation]],
    rows: Sequence[Sequence[int]],
    num_threads: int | None,
    setting: Setting,
) -> Row:
    batches = [draw_labeled_batch(lengths, setting.device) for lengths in rows]
    with limit_threads(num_threads):  # onnxruntime uses as many threads as torch has when its session is built
        return compare_times(build(batches, setting.device), setting.seconds, setting.device)


def build_models(batches: Sequence[LabeledBatch], device: torch.device) -> list[Implementation]:
    """Build inference with our model, onnxruntime and the textbook model, with the same weights, and with a transformer."""
    ours = build_our_classifier().to(device).eval()
    textbook = build_textbook_classifier(ours).to(device).eval()
    transformer = build_transformer_classifier(ours.num_parameters()).to(device).eval()
    return [
        _build_inference(OURS, lambda batch: ours(batch.input_ids, batch.attention_mask).logits, batches),
        _build_onnx(ours, batches, device),
        _build_inference(TEXTBOOK, lambda batch: textbook(batch.input_ids, batch.attention_mask), batches),
        _build_inference(
            TRANSFORMER,
            lambda batch: transformer(batch.input_ids, batch.attention_mask).logits,
            batches,
            comparable=False,
        ),
    ]


def _build_onnx(model: PreTrainedModel, batches: Sequence[LabeledBatch], device: torch.device) -> Implementation:
    if device.type != "cpu":
        return Implementation(ONNX, None, remark="measured on a CPU only")
    try:
        from hf_maskattn.onnx.export import write_onnx
        from hf_maskattn.onnx.runtime import OnnxSession

        with TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            write_onnx(model, path)
            session = OnnxSession(path)
    except ImportError as error:
        return Implementation(ONNX, None, remark=str(error))

    def compute_logits(batch: LabeledBatch) -> torch.Tensor:
        return torch.from_numpy(session.run(batch.input_ids.numpy(), batch.attention_mask.numpy())[0])

    return _build_inference(ONNX, compute_logits, batches)


def build_precisions(batches: Sequence[LabeledBatch], device: torch.device) -> list[Implementation]:
    """Build inference with our model in float32, with bfloat16 weights, and with bfloat16 autocast."""
    fp32 = build_our_classifier().to(device).eval()
    reference = _build_inference("fp32", lambda batch: fp32(batch.input_ids, batch.attention_mask).logits, batches)
    if not has_bf16(device):
        remark = f"this {device.type.upper()} has no bf16 instructions"
        return [reference, *(Implementation(name, None, remark=remark) for name in (WEIGHTS, AUTOCAST))]
    bf16 = build_our_classifier().to(device, torch.bfloat16).eval()

    def autocast(batch: LabeledBatch) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return fp32(batch.input_ids, batch.attention_mask).logits

    return [
        reference,
        _build_inference(WEIGHTS, lambda batch: bf16(batch.input_ids, batch.attention_mask).logits, batches, comparable=False),
        _build_inference(AUTOCAST, autocast, batches, comparable=False),
    ]


def has_bf16(device: torch.device) -> bool:
    """Return whether a device has bfloat16 instructions."""
    if device.type == "cpu":
        return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


def _build_inference(
    name: str,
    compute_logits: Callable[[LabeledBatch], torch.Tensor],
    batches: Sequence[LabeledBatch],
    comparable: bool = True,
) -> Implementation:
    @torch.inference_mode()
    def run() -> Results:
        return {f"logits {index}": compute_logits(batch) for index, batch in enumerate(batches)}

    return Implementation(name, run, comparable, 1 / len(batches))
