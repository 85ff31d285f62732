"""The blocks of README.md work when the page is typed from top to bottom."""

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
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
TOY = {
    "language_identification.yaml": ["model.hidden_size=16", "training.max_steps=2"],
    "dates_to_iso.yaml": ["model.hidden_size=16", "training.max_steps=2", "data.test_split=validation"],
    "date_fields.yaml": ["model.hidden_size=16", "training.max_steps=2", "data.test_split=validation"],
}


def blocks(language):
    """The text of every block of a language, in the order of the page."""
    found = [text for name, text in BLOCKS if name == language]
    assert found
    return found


def shell_commands():
    """Every command of the page as a list of words, in order; a line that begins with a comment is none."""
    lines = "".join(blocks("bash")).replace("\\\n", " ").splitlines()
    words = [shlex.split(command, comments=True) for line in lines for command in line.split("&&")]
    return [command for command in words if command]


def our_commands():
    """The commands of ours, without what launches them."""
    for command in shell_commands():
        if command[0] == "hf-maskattn":
            yield command[1:]
        elif command[0] == "accelerate":
            yield command[command.index("hf_maskattn.cli") + 1 :]


def test_every_command_is_known():
    known = {"hf-maskattn", "accelerate", "pip", "pytest", "hf"}
    assert {command[0] for command in shell_commands()} == known


@pytest.mark.parametrize("command", [*our_commands()], ids=shlex.join)
def test_flags_are_those_of_the_command(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    verb = typer.main.get_command(app).commands[command[0]]
    verb.make_context(command[0], command[1:])  # raises for an option or argument that it does not know
    for word in command:
        assert not word.startswith("configs/") or (ROOT / word).is_file()
    if command[0] == "train":
        load_recipe(Path(command[1]), [word for word in command[2:] if not word.startswith("-")])


def test_launcher_reads_its_flags_and_files():
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    for command in shell_commands():
        if command[0] == "accelerate":
            arguments, rest = launch_command_parser().parse_known_args(command[2:])
            assert arguments.module
            assert arguments.training_script == "hf_maskattn.cli"
            assert rest == []
            if arguments.config_file is not None:
                load_config_from_file(str(ROOT / arguments.config_file))


def test_each_run_has_a_folder_of_its_own():
    """A second run in a folder is refused, so no two commands but --resume write to the same one."""
    folders = []
    for command in our_commands():
        if command[0] == "train" and "--resume" not in command:
            overrides = dict(word.split("=") for word in command[2:])
            folders.append(overrides.get("training.output_dir", f"runs/{Path(command[1]).stem}"))
    assert len(folders) > 5
    assert len(set(folders)) == len(folders)


def test_recipe_fragments_fit_a_recipe(tmp_path):
    for text in blocks("yaml"):
        base = {"model": {"task": "text-classification"}, "data": {}, "training": {"output_dir": "run"}}
        for group, values in yaml.safe_load(text).items():
            base[group].update(values)
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(base))
        load_recipe(tmp_path / "recipe.yaml")


def test_python_blocks_run_one_after_the_other(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    names = {}
    for text in blocks("python"):
        if "peft" in text:
            pytest.importorskip("peft")
            # PEFT 0.21 asks for a name that transformers 5.24 is about to remove.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        exec(compile(text, "README.md", "exec"), names)
        for expected in re.findall(r"print\(.*\)  # (.*)$", text, re.MULTILINE):
            found = [line for line in capfd.readouterr().out.splitlines() if re.fullmatch(like(expected), line)]
            assert found, expected


def like(printed):
    """A pattern of a printed line, in which `...` stands for digits."""
    return re.escape(printed).replace(re.escape("..."), r"\d*")


@pytest.mark.slow
def test_shell_blocks_run_from_top_to_bottom(tmp_path, hub):
    """At toy size, each command in a process of its own; GPUs, installations, the tests and measurements are left out."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": hub.token,
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "*",
    }
    for command in shell_commands():
        if command[0] in ("pip", "pytest", "hf") or "benchmark" in command or any("fsdp2" in word for word in command):
            continue
        toy = TOY[Path(command[command.index("train") + 1]).name] if "train" in command else []
        if command[0] == "hf-maskattn":
            command = [sys.executable, "-m", "hf_maskattn.cli", *command[1:]]
        else:
            command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", *command[1:]]
        done = subprocess.run(
            [*command, *toy], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        # An untrained toy model may well fail an audit, which ends with 1; a mistake ends with 2.
        assert done.returncode == 0 or ("audit" in command and done.returncode == 1), (command, done.stderr)
    assert {path.name for path in tmp_path.iterdir()} == {"alignments.png", "configs", "model.onnx", "runs"}


def test_what_the_commands_write_is_ignored_by_git():
    if not (ROOT / ".git").exists():
        pytest.skip("no repository")

    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()

    written = {"alignments.png", "model.onnx", "runs/films/config.json"}
    assert set(git("check-ignore", *written)) == written
    assert git("ls-files", "--cached", "--ignored", "--exclude-standard") == []
    assert len(git("ls-files", "examples/*.png")) == 3
