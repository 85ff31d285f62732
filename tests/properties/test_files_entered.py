"""A toy run is small enough to be read: few files have a function that runs in it."""

import sys
from pathlib import Path

import pytest

from tests.clean_process import run_clean

PROBE = """
    import sys, threading
    from pathlib import Path

    CO_OPTIMIZED = 1  # a function; not the body of a module or class, nor a comprehension in it, nor an annotation
    entered = set()

    def profile(frame, event, argument):
        code = frame.f_code
        if event == "call" and code.co_flags & CO_OPTIMIZED and not code.co_name.startswith(("<", "__annotate")):
            entered.add(code.co_filename)

    sys.setprofile(profile)
    threading.setprofile(profile)
    sys.argv = ["hf-maskattn", *{arguments!r}]
    from hf_maskattn.cli import main
    try:
        main()
    except SystemExit as end:
        assert not end.code, end.code
    sys.setprofile(None)
    root = str(Path(sys.modules["hf_maskattn"].__file__).parent)
    print(*sorted(name.removeprefix(root) for name in entered if name.startswith(root)), sep="\\n", file=sys.stderr)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.gettrace() is not None, reason="a debugger or a coverage measurement uses the hooks")
def test_toy_run_enters_few_files(tmp_path):
    rows = [
        "text,label",
        *(f"a {word} film,{label}" for word, label in {"good": "pos", "bad": "neg", "fine": "pos", "poor": "neg"}.items()),
    ]
    (tmp_path / "films.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "recipe.yaml").write_text(
        "model: {task: text-classification, hidden_size: 8, embedding_size: 4}\n"
        "data: {train_file: films.csv, validation_file: films.csv, tokenizer: word}\n"
        "training: {output_dir: run, num_train_epochs: 1, disable_tqdm: true}\n"
    )
    for limit, arguments in {40: ["train", "recipe.yaml"], 20: ["predict", "run", "--text", "good"]}.items():
        done = run_clean(PROBE.format(arguments=arguments), Path(tmp_path))
        assert done.returncode == 0, done.stderr
        files = [line for line in done.stderr.splitlines() if line.startswith("/") and line.endswith(".py")]
        assert 10 < len(files) <= limit, "\n".join([f"{len(files)} files", *files])
