"""The files of a Space in examples/space."""

import re
import runpy

from huggingface_hub import RepoCard
from packaging.requirements import Requirement

from hf_maskattn.model.remote_code import install_command


def test_space_serves_the_model_of_its_header(pytestconfig, monkeypatch):
    folder = pytestconfig.rootpath / "examples/space"
    served = []
    monkeypatch.setattr("hf_maskattn.inference.demo.serve_demo", lambda model, **settings: served.append((model, settings)))
    header = RepoCard.load(folder / "README.md").data
    runpy.run_path(str(folder / header.app_file), run_name="__main__")
    assert served == [(header.models[0], {"host": "0.0.0.0"})]
    assert header.sdk == "gradio"


def test_space_installs_the_extras_of_the_demo(pytestconfig):
    folder = pytestconfig.rootpath / "examples/space"
    requirement = Requirement((folder / "requirements.txt").read_text().strip())
    assert requirement.extras == {"demo", "explain"}
    assert requirement.url in install_command("demo")
    extra = re.search(r'^demo = \["(.*)"\]$', (pytestconfig.rootpath / "pyproject.toml").read_text(), re.MULTILINE)[1]
    version = RepoCard.load(folder / "README.md").data.sdk_version
    assert version in Requirement(extra).specifier
