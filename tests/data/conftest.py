import datasets
import pytest

from hf_maskattn.data import cldr
from hf_maskattn.data.cldr import build_cldr_date_fields, build_cldr_dates, build_cldr_languages

SMALL_SIZES = {"train": 900, "validation": 50, "test": 50}


@pytest.fixture(autouse=True)
def _quiet_and_clean(tmp_path_factory, monkeypatch):
    """Sets the cache to a folder of this run, and disables progress bars."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture(scope="session")
def languages():
    return build_cldr_languages()


@pytest.fixture(scope="session")
def date_fields():
    """The corpus of date fields with 1,000 rows."""
    with pytest.MonkeyPatch.context() as context:
        context.setattr(cldr, "FIELD_SPLIT_SIZES", SMALL_SIZES)
        return build_cldr_date_fields()


@pytest.fixture(scope="session")
def dates():
    """The corpus of dates with 1,000 rows."""
    with pytest.MonkeyPatch.context() as context:
        context.setattr(cldr, "DATE_SPLIT_SIZES", SMALL_SIZES)
        return build_cldr_dates()


@pytest.fixture(scope="session")
def all_date_fields():
    return build_cldr_date_fields()


@pytest.fixture(scope="session")
def all_dates():
    return build_cldr_dates()


@pytest.fixture
def write(tmp_path):
    """Writes a file, and returns its path."""

    def write_file(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file
