import pytest

from tests.embeddings.toy_source import write_source


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """A folder with a tiny encoder and its tokenizer."""
    return write_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setattr("hf_maskattn.data.cache.HF_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"
