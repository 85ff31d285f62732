import datasets
import pytest

from hf_maskattn.data.cldr import build_cldr_languages
from hf_maskattn.data.cldr_dates import build_cldr_date_fields, build_cldr_dates


@pytest.fixture(autouse=True)
def _quiet_and_clean(tmp_path_factory, monkeypatch):
    """Caches go to a folder of this run; progress bars stay out of the report."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture(scope="session")
def languages():
    return build_cldr_languages()


@pytest.fixture(scope="session")
def date_fields():
    return build_cldr_date_fields()


@pytest.fixture(scope="session")
def dates():
    return build_cldr_dates()
