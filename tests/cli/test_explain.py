import json
import re

import pytest

from hf_maskattn.cli.explain import show_comparison, show_explanation
from hf_maskattn.inspection.explain import explain
from hf_maskattn.inspection.explanations import Explanation
from hf_maskattn.inspection.faithfulness import Comparison, Faithfulness
from tests.cli.conftest import run
from tests.inspection.explained_models import TEXTS, build_model, tag_names


@pytest.fixture(scope="module")
def classifier():
    return build_model(**tag_names("x", "y", "z"))


@pytest.fixture(scope="module")
def folder(classifier, tmp_path_factory):
    path = tmp_path_factory.mktemp("explained")
    for part in classifier:
        part.save_pretrained(path)
    return path


def test_pipe_gets_json_lines(folder, classifier):
    result = run("explain", folder, "--text", TEXTS[0], "--text", " ")
    assert result.exit_code == 0, result.stderr
    first, empty = map(Explanation.from_json, result.stdout.splitlines())
    assert first.to_json() == explain(*classifier, TEXTS[:1])[0].to_json()
    assert (empty.text, empty.tokens) == (" ", [])


def test_texts_come_from_stdin_or_files(folder, tmp_path):
    (tmp_path / "texts.txt").write_text("cat\ndogs\n", encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"words": ["cat", "sat"]}) + "\n", encoding="utf-8")
    for arguments, stdin in {("--file", tmp_path / "texts.txt"): None, (): "cat\ndogs\n"}.items():
        result = run("explain", folder, *arguments, stdin=stdin)
        assert [json.loads(line)["text"] for line in result.stdout.splitlines()] == ["cat", "dogs"], result.stderr
    result = run("explain", folder, "--file", tmp_path / "rows.jsonl", "--column", "words")
    assert json.loads(result.stdout)["tokens"] == ["cat", "sat"]


def test_json_and_plot_are_written(folder, tmp_path):
    result = run(
        "explain", folder, "--text", TEXTS[0], "--json", tmp_path / "a.jsonl", "--plot", tmp_path / "a.png", "--class", "y"
    )
    assert result.exit_code == 0, result.stderr
    assert json.loads((tmp_path / "a.jsonl").read_text("utf-8"))["labels"] == ["y"]
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "a.png"]


def test_page_is_written(folder, tmp_path):
    page = tmp_path / "a.html"
    result = run("explain", folder, "--text", "cat <b>", "--text", "two dogs", "--html", page)
    assert (result.exit_code, result.stdout) == (0, ""), result.stderr
    written = page.read_text("utf-8")
    assert f"<title>{folder.name}: explanations</title>" in written
    assert written.count("<article>") == 2
    assert str(folder.parent) not in written
    result = run("explain", folder, "--text", "cat", "--html", page)
    assert result.exit_code == 2
    assert "a.html exists. Replace it with --overwrite" in result.stderr
    assert page.read_text("utf-8") == written
    assert run("explain", folder, "--text", "cat", "--html", page, "--overwrite").exit_code == 0
    assert page.read_text("utf-8").count("<article>") == 1


ERRORS = {
    "class": (["--class", "w"], "The class must be one of x, y, z, got 'w'."),
    "existing file": (["--json", "{folder}/config.json"], "config.json exists. Replace it with --overwrite"),
    "plot suffix": (["--plot", "{folder}/a.xyz"], "The suffix of a plot must be one of "),
    "page folder": (["--html", "{folder}/none/a.html"], "/none does not exist"),
    "plot folder": (["--plot", "{folder}/none/a.png"], "/none does not exist"),
    "length": (["--max-length", "0"], "max_length must be at least 1, got 0."),
    "two sources": (["--file", "texts"], "--text and --file are mutually exclusive."),
    "column": (["--column", "words"], "--column needs --file with one of the suffixes"),
    "compare": (["--compare", "--class", "x"], "--compare measures all methods."),
    "limit": (["--compare", "--limit", "0"], "limit must be at least 1, got 0."),
    "one token": (["--compare"], "There must be a prediction with two tokens to compare, got none in 1 texts."),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_one_line(folder, case):
    arguments, message = ERRORS[case]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    result = run("explain", folder, "--text", "cat", *(argument.format(folder=folder) for argument in arguments))
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_terminal_shows_colors_and_the_largest_scores(classifier, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLORTERM", "truecolor")
    (explanation,) = explain(*classifier, ["cat \x1b sat"])
    show_explanation(explanation, top_k=1)
    printed = capsys.readouterr().out
    assert "completeness gap" in printed
    assert "\x1b sat" not in printed  # text cannot control the terminal
    assert "48;2;230;97;1m" in printed  # the largest score has the darkest color
    rows = [line for line in printed.splitlines() if " to " in line]
    assert len(rows) == 1


def test_terminal_shows_each_of_equal_tokens(capsys):
    tagger = build_model("MaskAttnForTokenClassification", **tag_names("B-A", "B-B"))
    (explanation,) = explain(*tagger, ["cat sat cat"], "contributions")
    show_explanation(explanation, top_k=1)
    gaps = re.findall(r"completeness gap (\S+)", capsys.readouterr().out.replace("\n", " "))
    assert len(gaps) == 3
    assert max(map(float, gaps)) < 1e-5


def test_terminal_says_what_has_no_scores(classifier, capsys):
    for explanation in explain(*classifier, [" ", "zebra"]):
        show_explanation(explanation, top_k=1)
    printed = capsys.readouterr().out
    assert "' ' has no visible character." in printed
    assert "All tokens of this text are unknown to the tokenizer of the model." in printed


def test_comparison_is_printed(folder, capsys, monkeypatch):
    methods = {"random": Faithfulness(0.1, 0.2, 0.3), "removal": Faithfulness(0.5, 0.0, 0.6)}
    show_comparison(Comparison(methods, 7, "word", 3, {"attention": "it has none."}))
    printed = capsys.readouterr().out
    assert "removal │             0.500 │       0.000 │" in printed
    assert "7 predictions, erased by word, seed 3." in printed
    assert "attention was not measured: it has none." in printed
    monkeypatch.setattr("hf_maskattn.inspection.attributions.INTEGRATION_STEPS", 2)
    result = run("explain", folder, "--compare", "--text", TEXTS[0], "--text", TEXTS[2])
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["num_predictions"] == 2
