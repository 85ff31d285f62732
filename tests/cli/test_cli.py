import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hf_maskattn.cli.console import INTERRUPTED, MISTAKE, NOT_PASSED
from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.training.train import train
from tests.cli.conftest import assert_error, run
from tests.toy_writer import toy_writer
from tests.training.toy_recipe import write_recipe

PROGRAM = Path(sys.executable).with_name("hf-maskattn")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "120"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training run in this process: folder, recipe, and result."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = write_recipe(folder, training={"num_train_epochs": 8, "learning_rate": 0.03})
    result = run("train", recipe)
    assert result.exit_code == 0, result.stderr
    return folder / "run", recipe, result


def run_with_import_log(command, folder):
    """Run a command; return the names of the modules that it imports, and the completed process."""
    done = subprocess.run([sys.executable, "-X", "importtime", *command], cwd=folder, capture_output=True, text=True)
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}, done


@pytest.mark.parametrize(
    "command", [[PROGRAM], ["-m", "hf_maskattn"], ["-m", "hf_maskattn.cli"], ["-m", "hf_maskattn.cli.__main__"]]
)
def test_recipe_error_needs_no_torch(tmp_path, command):
    (tmp_path / "bad.yaml").write_text(
        "model: {task: seq2seq, rnn_type: gru}\ndata: {tokenizer: char, train_file: nowhere.jsonl}\n"
        "training: {lr_scheduler_type: linear, learning_rate: 1e-3}"
    )
    modules, done = run_with_import_log([*command, "train", "bad.yaml"], tmp_path)
    assert done.returncode == 2
    assert (
        "error: data.train_file must be an existing file or pattern, got 'nowhere.jsonl'. There is no such file" in done.stderr
    )
    assert "hf_maskattn.recipes.recipe" in modules
    assert not {"torch", "transformers", "datasets", "evaluate", "sklearn", "numpy"} & modules


def test_help_needs_no_torch():
    probe = (
        "import sys; sys.argv = ['hf-maskattn', 'train', '--help']\n"
        "from hf_maskattn.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    code = end.code\n"
        "heavy = {'torch', 'transformers', 'datasets', 'sklearn', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imports {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--overwrite" in done.stdout


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "export", "push", "recipes", "init", "audit", "benchmark"])
def test_every_command_has_help(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Usage: " in result.stdout


def test_exit_codes_are_documented():
    guide = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")
    help_text = " ".join(run("--help").stdout.split())
    for code in (0, NOT_PASSED, MISTAKE, INTERRUPTED):
        assert f"| {code} |" in guide
        assert f" {code} " in help_text.partition("Exit codes:")[2]


def test_train_checks_config_before_data(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_maskattn.training.train.assemble", None)
    for override, message in {
        "model.hidden_size=9": "error: model.hidden_size must be even for bidirectional layers, got 9. Each direction",
        "model.hidden_dropout_prob=2": "error: model.hidden_dropout_prob must be in [0, 1], got 2.",
    }.items():
        assert_error(run("train", write_recipe(tmp_path), override), message)


def test_train_checks_output_dir_before_data(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_maskattn.training.train.assemble", None)
    (tmp_path / "file").touch()
    result = run("train", write_recipe(tmp_path), f"training.output_dir={tmp_path}/file/run")
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: training.output_dir must be a folder that can be written to, got '{tmp_path}/file/run' (Not a directory). "
        "Choose another one with training.output_dir=FOLDER.\n"
    )


def test_train_prints_metrics_and_loading_call(trained):
    folder, _, done = trained
    assert "accuracy" in done.stdout
    assert "validation" in done.stdout
    assert f'transformers.pipeline("text-classification", model="{folder}")' in done.stdout
    assert "Attention on 12 validation rows: The normalized entropy" in done.stdout


def test_train_prints_one_line_an_evaluation(trained):
    _, _, done = trained
    lines = [line for line in done.stdout.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 8
    assert all("train loss" in line and "validation loss" in line and "accuracy" in line for line in lines)
    assert "{" not in done.stdout


@pytest.mark.slow
def test_no_progress_bar_when_piped(tmp_path):
    recipe = write_recipe(tmp_path, training={"num_train_epochs": 1, "disable_tqdm": None})
    environment = {**ENVIRONMENT, "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    for command in (["train", recipe], ["predict", tmp_path / "run", "--text", "a"]):
        done = subprocess.run([PROGRAM, *command], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "\r" not in done.stderr + done.stdout
        assert "it/s" not in done.stderr
        assert "Generating" not in done.stderr


def test_evaluate_prints_metrics_of_training(trained):
    folder, recipe, _ = trained
    accuracy = json.loads((folder / "metrics.json").read_text())["metrics"]["validation"]["accuracy"]
    for arguments in ([recipe], [], ["data.max_length=64"]):  # without a recipe: the one of the run
        result = run("evaluate", folder, *arguments, "--split", "validation")
        assert result.exit_code == 0, result.stderr
        assert f"{accuracy:.4g}" in result.stdout


def test_evaluate_reports_errors(trained, tmp_path):
    folder, _, printed = trained
    listed = [json.loads(line) for line in (folder / "errors.jsonl").read_text("utf-8").splitlines()]
    assert f"Errors: {len(listed)} of 12 rows of the split 'test': {folder}/errors.jsonl" in printed.stdout
    assert (folder / "confusion_matrix.csv").read_text().startswith("label \\ prediction,cat,dog\n")
    arguments = ("evaluate", folder, "--split", "train")
    result = run(*arguments, "--json", tmp_path / "report.json", "--errors", tmp_path / "errors.jsonl")
    assert result.exit_code == 0, result.stderr
    assert "│ cat   │ " in result.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["split"], report["rows"]) == ("train", 40)
    assert report["rows_listed"] == len((tmp_path / "errors.jsonl").read_text().splitlines())
    assert report["metrics"]["accuracy"] == pytest.approx(1 - report["rows_listed"] / 40)
    assert sum(scores["support"] for scores in report["classes"].values()) == 40
    printed = json.loads(run(*arguments, "--json", "-").stdout)
    assert printed["classes"] == report["classes"]
    assert_error(run(*arguments, "--errors", "-"), "--errors must be a file, got '-'.")
    assert not Path("-").exists()
    assert_error(run(*arguments, "--errors", tmp_path / "errors.jsonl"), "errors.jsonl exists. Replace it with --overwrite")
    assert run(*arguments, "--errors", tmp_path / "errors.jsonl", "--overwrite").exit_code == 0


def test_evaluate_needs_a_recipe(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "model")
    (tmp_path / "model" / "recipe.yaml").unlink()
    assert_error(run("evaluate", tmp_path / "model"), "model has no recipe.yaml. Pass a recipe after the model.")


@pytest.mark.parametrize("command", ["predict {} --text a", "evaluate {}", "audit {}"])
def test_revision_of_a_folder_is_refused(trained, command):
    result = run(*command.format(trained[0]).split(), "--revision", "main")
    assert_error(result, "revision is only for models on the Hub, got 'main'")


def test_recipe_of_run_works_from_any_directory(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(trained[1].parent)
    files = [f"data.{split}_file={split}.jsonl" for split in ("train", "validation", "test")]
    done = run("train", "toy.yaml", *files, "training.output_dir=relative", "training.num_train_epochs=1")
    assert done.exit_code == 0, done.stderr
    folder = trained[1].parent / "relative"
    monkeypatch.chdir(tmp_path)
    assert run("evaluate", folder, folder / "recipe.yaml", "--split", "validation").exit_code == 0
    resumed = run("train", folder / "recipe.yaml", "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert f"Model: {folder}" in resumed.stdout
    assert list(tmp_path.iterdir()) == []


def test_predict_prints_json_lines_when_piped(trained):
    result = run("predict", trained[0], stdin="meow\n\nwoof\n")
    assert result.exit_code == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["text"] for line in lines] == ["meow", "", "woof"]
    assert [line["predictions"] and line["predictions"][0]["label"] for line in lines] == ["cat", [], "dog"]


def test_predict_prints_table(trained):
    result = run("predict", trained[0], "--text", "meow", "--text", "[b]", "--format", "table")
    assert "│ meow │ cat " in result.stdout
    assert "[b]" in result.stdout


def test_predict_reads_rows_of_a_file(trained, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"id": 1, "title": "woof"}\n{"id": 2, "title": ["meow", "purr"]}\n')
    arguments = ("predict", trained[0], "--file", tmp_path / "rows.jsonl")
    result = run(*arguments, "--column", "title", "--top-k", "all")
    assert result.exit_code == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(line["id"], line["title"]) for line in lines] == [(1, "woof"), (2, ["meow", "purr"])]
    assert [[item["label"] for item in line["predictions"]] for line in lines] == [["dog", "cat"], ["cat", "dog"]]
    assert "│ meow purr │ cat " in run(*arguments, "--column", "title", "--format", "table").stdout
    errors = {
        (): "must have a column 'text', got the columns id, title. Set the column of the texts with --column NAME.",
        ("--column", "id"): "rows.jsonl, line 1: the column 'id' must be a string or a list of strings, got 1.",
        ("--column", "title", "--top-k", "x"): "--top-k must be a number or all, got 'x'.",
    }
    for options, message in errors.items():
        assert_error(run(*arguments, *options), message)
    assert "--column needs --file" in run("predict", trained[0], "--text", "a", "--column", "b").stderr


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["cp1252", None])
def test_predict_output_in_any_encoding(trained, tmp_path, encoding):
    settings = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    settings |= {} if encoding is None else {"PYTHONIOENCODING": encoding}
    texts = ["Łódź — 東京", "naïve “quotes”", "😀 meow"]
    (tmp_path / "texts").write_text("\n".join(texts) + "\n", encoding="utf-8")
    command = [PROGRAM, "predict", trained[0], "--file", tmp_path / "texts"]
    done = subprocess.run(command, env={**ENVIRONMENT, **settings}, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["text"] for line in done.stdout.decode("utf-8").splitlines()] == texts
    done = subprocess.run([*command, "--format", "table"], env={**ENVIRONMENT, **settings}, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"meow" in done.stdout
    assert b"Traceback" not in done.stderr


def test_predict_escapes_lone_surrogate(trained):
    result = run("predict", trained[0], "--text", "meow", "--text", "\udce9")
    assert result.exit_code == 1
    good, bad = (json.loads(line) for line in result.stdout_bytes.decode("utf-8").splitlines())
    assert good["predictions"][0]["label"] == "cat"
    assert bad["text"] == "\udce9"
    assert "error" in bad


def test_predict_exit_code_for_failed_texts(tmp_path):
    write_recipe(tmp_path, "fill-mask", training={"num_train_epochs": 1})
    train(load_recipe(tmp_path / "toy.yaml"))
    for output, words in {"jsonl": '"error": "A text must have one', "table": "│ error: A text must have one"}.items():
        result = run("predict", tmp_path / "run", "--format", output, stdin="a [MASK]\nmeow\n[MASK] purr\n")
        assert result.exit_code == 1
        assert words in result.stdout
        assert result.stdout.count("purr") >= 1
        assert "1 of 3 texts have no predictions. First error: A text must have one [MASK], got none." in result.stderr
        assert "Traceback" not in result.stderr


def test_predict_truncates_only_with_max_length(trained, caplog):
    caplog.set_level("WARNING", logger="hf_maskattn")
    assert run("predict", trained[0], "--text", "meow " * 600).exit_code == 0
    assert not caplog.messages
    assert run("predict", trained[0], "--text", "meow " * 600, "--max-length", "5").exit_code == 0
    assert caplog.messages == ["1 of 1 texts were longer than max_length=5 tokens. 595 tokens were cut."]


def test_predict_saves_alignment_plot(tmp_path):
    for part in toy_writer():
        part.save_pretrained(tmp_path / "writer")
    arguments = ("predict", tmp_path / "writer", "--text", "meow", "--alignment", tmp_path / "map.png")
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    (line,) = [json.loads(line) for line in result.stdout.splitlines()]
    (generated,) = [prediction["generated_text"] for prediction in line["predictions"]]
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    assert_error(run(*arguments), "map.png exists. Replace it with --overwrite")
    table = run(*arguments, "--overwrite", "--format", "table")
    assert f"│ meow │ {generated} " in table.stdout


def test_usage_errors_are_one_line(trained, tmp_path):
    folder, recipe, _ = trained
    (tmp_path / "latin").write_bytes(b"caf\xe9\n")
    for arguments, message in {
        ("train", recipe): "must be an empty folder, got ",
        ("train", recipe, "--resume", "--overwrite"): "--resume and --overwrite are mutually exclusive.",
        ("train", recipe, "training.lr=1"): "error: override 'training.lr': training.lr does not exist",
        ("train", tmp_path / "nowhere.yaml"): "There is no recipe",
        ("evaluate", folder, recipe, "--split", "dev"): "split must be one of train, validation, test, got 'dev'",
        ("predict", folder, "--file", tmp_path / "latin"): "latin, line 1: not UTF-8 (byte 0xe9)",
        ("predict", folder, "--file", tmp_path / "nowhere"): "No such file or directory",
        ("predict", folder, "--text", "a", "--file", tmp_path / "latin"): "--text and --file are mutually exclusive.",
        ("predict", tmp_path / "no-model", "--text", "a"): "no-model' is not a folder and could not be loaded",
    }.items():
        assert_error(run(*arguments), message)


@pytest.mark.parametrize("command", ["predict {} --text a", "evaluate {} {recipe}", "export {} --onnx x.onnx", "audit {}"])
def test_interrupted_run_names_newest_checkpoint(trained, tmp_path, command):
    for step in (9, 10):
        shutil.copytree(trained[0], tmp_path / f"checkpoint-{step}")
    result = run(*command.format(tmp_path, recipe=trained[1]).split())
    message = f"has no config.json. Its run was interrupted. Use its newest checkpoint, {tmp_path}/checkpoint-10, or"
    assert_error(result, message)
    assert run("predict", tmp_path / "checkpoint-10", "--text", "meow").exit_code == 0


def test_error_names_process(monkeypatch, tmp_path):
    monkeypatch.setenv("RANK", "1")
    result = run("train", tmp_path / "nowhere.yaml")
    assert result.exit_code == 2
    assert result.stderr.startswith("process 1: error: ")


@pytest.mark.slow
def test_ctrl_c_saves_checkpoint_to_resume(tmp_path):
    recipe = write_recipe(tmp_path, training={"num_train_epochs": 1000, "logging_steps": 1})
    command = [PROGRAM, "train", recipe]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while not list(tmp_path.glob("run/checkpoint-*")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert f"To resume: hf-maskattn train {recipe} --resume" in errors
    assert "Traceback" not in errors
    epochs = f"training.max_steps={1 + max(int(path.name.split('-')[1]) for path in tmp_path.glob('run/checkpoint-*'))}"
    done = subprocess.run([*command, epochs, "--resume"], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Resuming from" in done.stderr


@pytest.mark.slow
def test_closed_pipe_is_no_error(trained):
    texts = "meow\n" * 3000
    command = f"'{PROGRAM}' predict '{trained[0]}' --batch-size 500 | head -1"
    done = subprocess.run(["bash", "-c", command], input=texts, env=ENVIRONMENT, capture_output=True, text=True)
    assert json.loads(done.stdout)["text"] == "meow"
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
