import sys

import datasets
import pytest

from hf_maskattn.data.progress import bars_for_many_bytes, bars_for_many_rows


@pytest.fixture
def _bars_on(monkeypatch):
    datasets.enable_progress_bars()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)


@pytest.mark.usefixtures("_bars_on")
@pytest.mark.parametrize(
    ("bars", "long"), [(bars_for_many_rows, 50_000), (bars_for_many_bytes, 50_000_000), (bars_for_many_bytes, None)]
)
def test_nothing_is_shown_where_nobody_looks(monkeypatch, bars, long):
    with bars(long):
        assert not datasets.are_progress_bars_disabled()
    with bars(1):
        assert datasets.are_progress_bars_disabled()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    with bars(long):
        assert datasets.are_progress_bars_disabled()
    assert not datasets.are_progress_bars_disabled()


@pytest.mark.usefixtures("_bars_on")
def test_few_rows_hide_the_bars_and_many_do_not():
    with bars_for_many_rows(10):
        assert datasets.are_progress_bars_disabled()
    assert not datasets.are_progress_bars_disabled()
    with bars_for_many_rows(50_000):
        assert not datasets.are_progress_bars_disabled()


@pytest.mark.usefixtures("_bars_on")
def test_the_former_setting_is_back_after_an_error():
    with pytest.raises(KeyError), bars_for_many_rows(10):
        raise KeyError
    assert not datasets.are_progress_bars_disabled()


def test_bars_that_were_off_stay_off():
    datasets.disable_progress_bars()
    with bars_for_many_rows(10):
        pass
    assert datasets.are_progress_bars_disabled()
