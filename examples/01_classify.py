"""Train a classifier with Trainer, as any other transformers model: which language is this name written in?

python examples/01_classify.py
"""

from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, Trainer, TrainingArguments, pipeline

from hf_maskattn import MaskAttnConfig
from hf_maskattn.data.cldr import build_cldr_languages
from hf_maskattn.data.tokenizers import train_tokenizer
from hf_maskattn.metrics.task_metrics import evaluation_for


def main(folder="runs/01_classify", rows=None, epochs=3):
    data = build_cldr_languages()
    if rows is not None:
        data = type(data)({name: split.select(range(rows)) for name, split in data.items()})
    names = data["train"].features["label"].names
    tokenizer = train_tokenizer(data["train"]["text"], kind="char", vocab_size=1000, max_length=128)
    data = data.map(lambda batch: tokenizer(batch["text"], truncation=True), batched=True, remove_columns="text")

    config = MaskAttnConfig(
        vocab_size=len(tokenizer), id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)}
    )
    evaluation = evaluation_for("text-classification")
    trainer = Trainer(
        model=AutoModelForSequenceClassification.from_config(config),
        args=TrainingArguments(
            output_dir=folder,
            num_train_epochs=epochs,
            per_device_train_batch_size=64,
            learning_rate=3e-3,
            train_sampling_strategy="group_by_length",
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=data["train"],
        eval_dataset=data["test"],
        data_collator=DataCollatorWithPadding(tokenizer),  # pads each batch to its longest row
        processing_class=tokenizer,
        compute_metrics=evaluation.compute_metrics,
        preprocess_logits_for_metrics=evaluation.preprocess_logits,
    )
    trainer.train()
    print(trainer.evaluate())
    trainer.save_model(folder)
    for name, found in zip(
        texts := ["Ungverjaland", "Lettország"], pipeline("text-classification", folder)(texts), strict=True
    ):
        print(name, found)


if __name__ == "__main__":
    main()
