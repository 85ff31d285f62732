"""Fine-tune a transformer on JSON Lines files with the columns `text` and `label`, as a teacher for distillation.

python examples/finetune_teacher.py train.jsonl dev.jsonl runs/teacher
"""

import argparse

from datasets import load_dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments

from hf_maskattn.metrics.task_metrics import evaluation_for


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train_file")
    parser.add_argument("validation_file")
    parser.add_argument("output_dir")
    parser.add_argument("--base", default="sentence-transformers/all-MiniLM-L6-v2", help="the model to fine-tune")
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--learning-rate", type=float, default=8e-5)
    parser.add_argument("--batch-size", type=int, default=64)
    args = parser.parse_args(arguments)

    data = load_dataset("json", data_files={"train": args.train_file, "validation": args.validation_file})
    names = sorted(set(data["train"]["label"]))
    ids = {name: i for i, name in enumerate(names)}
    tokenizer = AutoTokenizer.from_pretrained(args.base)

    def encode(batch):
        return {**tokenizer(batch["text"], truncation=True, max_length=128), "labels": [ids[name] for name in batch["label"]]}

    data = data.map(encode, batched=True, remove_columns=data["train"].column_names)
    model = AutoModelForSequenceClassification.from_pretrained(args.base, id2label=dict(enumerate(names)), label2id=ids)
    evaluation = evaluation_for("text-classification")
    settings = TrainingArguments(
        args.output_dir,
        num_train_epochs=args.epochs,
        learning_rate=args.learning_rate,
        per_device_train_batch_size=args.batch_size,
        warmup_steps=0.1,
        weight_decay=0.01,
        train_sampling_strategy="group_by_length",
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        report_to="none",
    )
    trainer = Trainer(
        model,
        settings,
        DataCollatorWithPadding(tokenizer),
        data["train"],
        data["validation"],
        processing_class=tokenizer,
        compute_metrics=evaluation.compute_metrics,
        preprocess_logits_for_metrics=evaluation.preprocess_logits,
    )
    trainer.train()
    trainer.save_model()
    print(f"{args.output_dir}: accuracy {trainer.evaluate()['eval_accuracy']:.3f} on {args.validation_file}")


if __name__ == "__main__":
    main()
