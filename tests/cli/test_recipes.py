import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hf_maskattn.recipes.recipe import load_recipe
from hf_maskattn.recipes.shipped_recipes import shipped_recipes
from tests.cli.conftest import assert_error, run
from tests.training.toy_recipe import write_jsonl

ROOT = Path(__file__).parents[2]
TOY_MODEL = ("model.hidden_size=8", "model.embedding_size=4", "training.num_train_epochs=1", "training.disable_tqdm=true")


TWO_LABELS = [{"text": "a b", "label": "x"}, {"text": "c", "label": "y"}] * 8


@pytest.fixture
def init(tmp_path):
    """Writes a recipe for rows, or for the text of a CSV file, and loads it."""

    def write_and_load(data, *overrides, task="text-classification"):
        if isinstance(data, str):
            path = tmp_path / "data.csv"
            path.write_text(data)
        else:
            path = tmp_path / "data.jsonl"
            write_jsonl(path, data)
        (tmp_path / "new.yaml").unlink(missing_ok=True)
        result = run("init", task, path, *overrides, "--output", tmp_path / "new.yaml")
        assert result.exit_code == 0, result.stderr
        return load_recipe(tmp_path / "new.yaml")

    return write_and_load


def test_recipes_lists_every_config():
    output = run("recipes").stdout
    for path in (ROOT / "configs").glob("*.yaml"):
        description = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        assert f"│ {path.stem} " in output
        assert description in output


def test_recipes_prints_one():
    assert run("recipes", "sst2").stdout == (ROOT / "configs" / "sst2.yaml").read_text(encoding="utf-8")
    assert_error(run("recipes", "sst3"), "NAME must be one of")


def test_shipped_recipe_is_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_recipe("date_fields").model.task == "token-classification"
    (tmp_path / "sst2").mkdir()
    assert load_recipe("sst2").data.source == "stanfordnlp/sst2"
    (tmp_path / "date_fields").write_text("model: {task: fill-mask}\ndata: {tokenizer: char, train_file: a.txt}")
    assert load_recipe("date_fields").model.task == "fill-mask"  # a file of one's own comes first
    for name, message in {"language-identification": "Did you mean language_identification?", "x": "hf-maskattn init"}.items():
        assert_error(run("train", name), message)


@pytest.mark.slow
def test_wheel_contains_recipes_and_runs_without_clone(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", tmp_path, ROOT]
    built = subprocess.run(command, capture_output=True, text=True)
    if "No module named" in built.stderr or "Cannot import" in built.stderr:
        pytest.skip("building a wheel without network needs hatchling in this environment")
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    shutil.unpack_archive(wheel, tmp_path / "site", "zip")
    for name in ("hub/model_card_template.md", "inspection/explanation_page.html"):
        assert (tmp_path / "site" / "hf_maskattn" / name).exists()
    probe = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); import hf_maskattn; "
        "from hf_maskattn.recipes.shipped_recipes import shipped_recipes; print(hf_maskattn.__file__, *shipped_recipes())"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=tmp_path, capture_output=True, text=True, env={})
    assert str(tmp_path) in done.stdout
    assert done.stdout.split()[1:] == [*shipped_recipes()]


def test_init_for_text_classification(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [
        "id,stars,review",
        *(f"{i},{'good' if i % 2 else 'bad'},a film that I {'like' if i % 2 else 'leave'}" for i in range(20)),
    ]
    Path("films.csv").write_text("\n".join(lines) + "\n")
    result = run("init", "text-classification", "films.csv")
    assert result.exit_code == 0, result.stderr
    assert "hf-maskattn train films.yaml" in result.stdout
    recipe = load_recipe("films.yaml")
    assert (recipe.data.text_column, recipe.data.label_column) == ("review", "stars")
    assert "# bad, good" in Path("films.yaml").read_text()
    trained = run("train", "films.yaml", *TOY_MODEL)
    assert trained.exit_code == 0, trained.stderr
    again = run("init", "text-classification", "films.csv")
    assert_error(again, "films.yaml exists. Remove it, or name another file: --output FILE.")


@pytest.mark.parametrize(
    ("task", "row", "found"),
    [
        ("text-classification", {"text": "a b", "label": 1.5}, {"label_column": "label"}),
        ("text-classification", {"body": "a text", "topics": ["x"]}, {"text_column": "body", "label_column": "topics"}),
        ("token-classification", {"words": ["a"], "ner_tags": ["O"]}, {"tokens_column": "words", "label_column": "ner_tags"}),
        ("seq2seq", {"de": "ein Haus", "en": "a house"}, {"source_column": "de", "target_column": "en"}),
        ("seq2seq", {"target": "x", "source": "y"}, {"source_column": "source", "target_column": "target"}),
        ("fill-mask", {"id": 1, "content": "a b"}, {"text_column": "content"}),
    ],
)
def test_init_finds_columns(init, task, row, found):
    data = init([row] * 8, task=task).data
    assert {key: getattr(data, key) for key in found} == found


def test_init_passes_over_a_column_with_one_value(init):
    rows = [{"Text": f"a longer text {number}", "Stars": number % 2, "Comment": "c"} for number in range(8)]
    assert init(rows).data.label_column == "Stars"


def test_init_with_a_validation_file_leaves_out_the_fraction(init, tmp_path):
    init(TWO_LABELS, f"data.validation_file={tmp_path / 'data.jsonl'}")
    assert "validation_fraction" not in (tmp_path / "new.yaml").read_text()


def test_init_rejects_columns_that_cannot_be_used(tmp_path):
    def run_init(name, *overrides):
        result = run("init", "text-classification", tmp_path / name, *overrides, "--output", tmp_path / "new.yaml")
        assert result.exit_code == 2
        assert not (tmp_path / "new.yaml").exists()
        return result.stderr

    write_jsonl(tmp_path / "data.jsonl", TWO_LABELS)
    assert "data.jsonl, got 'body'. Its columns are text, label." in run_init("data.jsonl", "data.text_column=body")
    (tmp_path / "semi.csv").write_text("text;label\na;x\nb;y\n")
    assert "Set data.csv_separator=';'." in run_init("semi.csv")
    write_jsonl(tmp_path / "objects.jsonl", [{"text": text, "label": {"name": text}} for text in ("a", "b")] * 8)
    assert "must have a column for data.label_column" in run_init("objects.jsonl")


def test_init_for_a_pattern_needs_the_name_of_the_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "data-1.jsonl", TWO_LABELS)
    result = run("init", "text-classification", "data-*.jsonl")
    assert_error(result, "--output must name the recipe to write for several files, got 'data-*.jsonl'.")
    result = run("init", "text-classification", "data-*.jsonl", "--output", "my data.yaml")
    assert "hf-maskattn train 'my data.yaml'" in result.stdout


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ([{"text": "a b", "label": 1.5}] * 8, "regression"),
        ([{"text": "a b", "label": ["x"]}] * 8, "multi_label_classification"),
        ([{"text": "a b", "label": "x"}] * 8, None),
        ([{"text": "a b", "label": 1}] * 8, None),
        ("text,label\na,nan\nb,inf\n", None),
        ("text,score\na,0.5\nb,1.25\n", "regression"),
    ],
)
def test_init_sets_problem_type(init, data, kind):
    assert init(data).model.problem_type == kind


def test_init_never_writes_a_token(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(Path, "write_text", lambda path, text, **settings: written.append(text))
    monkeypatch.chdir(tmp_path)
    for override in ("training.hub_token=hf_sEcReT", "hub_token=hf_sEcReT", "training.hub_tokens=hf_sEcReT"):
        result = run("init", "text-classification", "data.jsonl", override)
        assert result.exit_code == 2
        assert "hf_sEcReT" not in result.output
    assert written == []


def test_init_keeps_names_in_one_comment(init):
    assert init([{"text": "a b", "label": "x", "odd\nmodel:": "y"}] * 8).data.text_column == "text"


def test_init_takes_overrides_of_any_group(init):
    changes = ("data.text_column=a", "data.label_column=c", "model.rnn_type=gru", "training.learning_rate=1e-4")
    others = ("teacher.model=a-teacher", "tuning.trials=5")
    recipe = init([{"a": "one", "b": "two words", "c": "x"}] * 8, *changes, *others)
    assert (recipe.data.text_column, recipe.data.label_column) == ("a", "c")
    assert recipe.model.config == {"rnn_type": "gru"}
    assert recipe.training["learning_rate"] == 1e-4
    assert (recipe.teacher.model, recipe.tuning.trials) == ("a-teacher", 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("token-classification", "data.jsonl"), "must have a column for data.tokens_column of token-classification"),
        (("text-classification", "nowhere.csv"), "nowhere.csv"),
        (("text-classification", "data.jsonl", "data.text_colum=text"), "data.text_colum does not exist"),
        (("text-classification", "data.jsonl", "--output", "no/folder.yaml"), "The folder no does not exist."),
    ],
)
def test_init_errors(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "data.jsonl", [{"text": "a", "label": "x"}] * 3)
    assert_error(run("init", *arguments), message)
    assert not (tmp_path / "data.yaml").exists()
