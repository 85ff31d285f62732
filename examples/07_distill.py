"""Fine-tune a transformer, distill it into a small recurrent model, and compare them: which language is this name written in?

python examples/07_distill.py
"""

import time

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments

from hf_maskattn import DistillationArguments, DistillationTrainer, MaskAttnConfig
from hf_maskattn.data.cldr import build_cldr_languages
from hf_maskattn.metrics.task_metrics import evaluation_for


def main(base="sentence-transformers/all-MiniLM-L6-v2", folder="runs/07_distill", rows=None, epochs=3):
    data = build_cldr_languages()
    if rows is not None:
        data = type(data)({name: split.select(range(rows)) for name, split in data.items()})
    names = data["train"].features["label"].names
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    tokenizer = AutoTokenizer.from_pretrained(base)
    # The column `text` stays: the teacher reads it.
    data = data.map(lambda batch: tokenizer(batch["text"], truncation=True, max_length=64), batched=True)

    evaluation = evaluation_for("text-classification")
    settings = {"num_train_epochs": epochs, "per_device_train_batch_size": 32, "save_strategy": "no", "report_to": "none"}
    parts = {
        "train_dataset": data["train"],
        "data_collator": DataCollatorWithPadding(tokenizer),
        "processing_class": tokenizer,
        "compute_metrics": evaluation.compute_metrics,
        "preprocess_logits_for_metrics": evaluation.preprocess_logits,
    }
    teacher = AutoModelForSequenceClassification.from_pretrained(base, **labels)
    trainers = {"teacher": Trainer(teacher, TrainingArguments(f"{folder}/teacher", learning_rate=5e-5, **settings), **parts)}
    trainers["teacher"].train()

    config = MaskAttnConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **labels)
    student = AutoModelForSequenceClassification.from_config(config)
    arguments = DistillationArguments(folder, learning_rate=2e-3, temperature=3.0, alpha=0.5, **settings)
    trainers["student"] = DistillationTrainer(student, arguments, teacher_model=teacher, **parts)
    trainers["student"].train()
    trainers["student"].save_model()

    text = tokenizer(data["test"]["text"][:1], return_tensors="pt").to(teacher.device)
    for name, trainer in trainers.items():
        accuracy = trainer.evaluate(data["test"])["eval_accuracy"]
        with torch.inference_mode():
            started = time.perf_counter()
            for _ in range(20):
                trainer.model(text["input_ids"], text["attention_mask"])
        milliseconds = (time.perf_counter() - started) / 20 * 1000
        print(f"{name}: accuracy {accuracy:.3f}, {trainer.model.num_parameters():,} parameters, {milliseconds:.1f} ms a text")


if __name__ == "__main__":
    main()
