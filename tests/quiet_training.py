"""Settings of `TrainingArguments` of tests."""

QUIET = {"report_to": "none", "disable_tqdm": True, "use_cpu": True, "save_strategy": "no"}
"""Nothing is printed, reported or saved."""
