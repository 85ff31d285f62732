"""The blocks of README.md and docs/*.md work when a page is typed from top to bottom."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import typer
import yaml

from hf_maskattn.cli import app
from hf_maskattn.recipes.recipe import load_recipe

ROOT = Path(__file__).parents[1]
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]}
TOY = ("model.hidden_size=16", "training.max_steps=2", "training.warmup_steps=0", "training.disable_tqdm=true")
NOT_RUN = {"pip": "changes the environment", "pytest": "is this", "ruff": "is a check of its own", "hf": "asks for a token"}
SLOW_WORDS = ("benchmark", "demo", "http.server", "fsdp2", "audit_others.py")
PLACEHOLDERS = ("bert-base-uncased", "user/dataset", "user/name", "NAME", "FOLDER", "MODEL")
"""Words of commands that name what only a reader has."""


def blocks(page, language):
    """Return the text of every block of a language, in the order of the page."""
    return [
        text for name, text in re.findall(r"^```(\w+)\n(.*?)^```$", PAGES[page], re.MULTILINE | re.DOTALL) if name == language
    ]


def shell_commands(page):
    """Return every command of a page as a list of words, in order."""
    lines = "".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    words = [shlex.split(command.partition(" > ")[0], comments=True) for line in lines for command in line.split("&&")]
    return [command for command in words if command]


def own_commands(page):
    """Return the commands of this package, without their launchers."""
    for command in shell_commands(page):
        if command[0] == "hf-maskattn":
            yield command[1:]
        elif command[0] == "accelerate":
            yield command[command.index("hf_maskattn.cli") + 1 :]


OWN_COMMANDS = [(page, command) for page in PAGES for command in own_commands(page)]


def test_first_commands_are_those_of_the_readme():
    commands = [shlex.join(command) for command in shell_commands("README.md")]
    assert commands == [
        "pip install -e '.[examples]'",
        "hf-maskattn train configs/language_identification.yaml",
        "pip install -e '.[test]'",
        "pytest",
    ]
    assert len(PAGES["README.md"].splitlines()) <= 140


@pytest.mark.parametrize("page", PAGES)
def test_links_exist(page):
    folder = (ROOT / page).parent
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", PAGES[page]):
        assert target.startswith("http") or (folder / target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_every_program_is_known(page):
    known = {"hf-maskattn", "accelerate", "python", "cd", *NOT_RUN}
    assert {command[0] for command in shell_commands(page)} <= known


@pytest.mark.parametrize(("page", "command"), OWN_COMMANDS, ids=[f"{page} {shlex.join(words)}" for page, words in OWN_COMMANDS])
def test_options_exist(page, command, monkeypatch):
    monkeypatch.chdir(ROOT)
    if command[0].startswith("--"):
        return
    verb = typer.main.get_command(app).commands[command[0]]
    verb.make_context(command[0], command[1:])  # raises for an option or argument that it does not know
    for word in command:
        assert not word.startswith("configs/") or (ROOT / word).is_file()


@pytest.mark.parametrize("page", [page for page in PAGES if "accelerate launch" in PAGES[page]])
def test_launcher_options_exist(page):
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    for command in shell_commands(page):
        if command[0] == "accelerate":
            arguments, rest = launch_command_parser().parse_known_args(command[2:])
            assert arguments.module
            assert arguments.training_script == "hf_maskattn.cli"
            assert rest == []
            if arguments.config_file is not None:
                load_config_from_file(str(ROOT / arguments.config_file))


YAML_BLOCKS = [(page, text) for page in PAGES for text in blocks(page, "yaml")]


@pytest.mark.parametrize(("page", "text"), YAML_BLOCKS, ids=[page for page, _ in YAML_BLOCKS])
def test_recipe_blocks_are_valid(page, text, tmp_path):
    groups = {"model": {"task": "text-classification"}, "data": {}, "training": {"output_dir": "run"}}
    for group, values in yaml.safe_load(text).items():
        groups.setdefault(group, {}).update(values)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(groups))
    load_recipe(tmp_path / "recipe.yaml")


# tests/onnx/test_export.py runs the block of docs/onnx.md.
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python") and page != "docs/onnx.md"])
def test_python_blocks_run(page, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hf_maskattn.data.cache.HF_HOME", str(tmp_path / "cache"))
    names = {}
    for text in blocks(page, "python"):
        if "peft" in text:
            pytest.importorskip("peft")
            # PEFT 0.21 reads a name that transformers 5.24 is about to remove.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        exec(compile(text, page, "exec"), names)
        lines = capfd.readouterr().out.splitlines()
        for expected in re.findall(r"print\(.*\)  # (.*)$", text, re.MULTILINE):
            assert any(re.fullmatch(to_pattern(expected), line) for line in lines), expected


def to_pattern(printed):
    """Return a pattern of a printed line, in which `...` matches digits."""
    return re.escape(printed).replace(re.escape("..."), r"\d*")


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "bash")])
def test_shell_blocks_run(page, tmp_path, hub):
    """Run each command of a page at toy size in a process of its own; a run that another page trains is trained first."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    write_example_data(tmp_path)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": hub.token,
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "*",
    }

    def run(command, expected=(0,)):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode in expected, (command, done.stderr)

    maskattn = [sys.executable, "-m", "hf_maskattn"]
    for command in shell_commands(page):
        is_placeholder = any(name in word for word in command for name in PLACEHOLDERS)
        if command[0] in NOT_RUN or is_placeholder or any(name in word for word in command for name in SLOW_WORDS):
            continue
        toy = list(TOY) if {"train", "tune"} & {*command} else []
        for word in command:
            missing = re.match(r"runs/(\w+)", word)
            if missing and not (tmp_path / missing[0]).exists():
                run([*maskattn, "train", missing[1], *TOY])
        if command[0] == "hf-maskattn":
            # An untrained toy model may fail an audit, which is exit code 1.
            run([*maskattn, *command[1:], *toy], (0, 1) if command[1] == "audit" else (0,))
        elif command[0] == "accelerate":
            run([sys.executable, "-m", "accelerate.commands.accelerate_cli", *command[1:], *toy])
        elif command[0] == "python":
            run([sys.executable, *command[1:]])


def write_example_data(folder):
    """Write the files that pages name as those of a reader."""
    lines = ["review,stars", *(f"a film that I {verb} {i},{verb}" for i in range(10) for verb in ("like", "leave"))]
    (folder / "my_folder").mkdir()
    for name in ("reviews.csv", "train.csv", "validation.csv", "my_folder/train.csv", "my_folder/validation.csv"):
        (folder / name).write_text("\n".join(lines) + "\n")
    for name in ("my_texts.txt", "texts.txt"):
        (folder / name).write_text("5 March 2024\n6. Mai 1999\n")
    (folder / "recipe.yaml").write_text(
        "model: {task: text-classification}\n"
        "data: {text_column: review, label_column: stars, tokenizer: word, test_split: null}\n"
    )


def test_outputs_of_commands_are_ignored_by_git():
    if not (ROOT / ".git").exists():
        pytest.skip("no repository")

    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()

    outputs = {"alignments.png", "model.onnx", "runs/films/config.json"}
    assert set(git("check-ignore", *outputs)) == outputs
    assert git("ls-files", "--cached", "--ignored", "--exclude-standard") == []
    assert len(git("ls-files", "examples/*.png")) == 4
