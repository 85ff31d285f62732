import datetime
from collections import Counter

from hf_maskattn.data.date_drawing import draw_dates


def _draw(last):
    return draw_dates(datetime.date(2000, 1, 1), last)


def test_every_date_is_drawn_once_and_not_in_order():
    drawn = [date.date for date in _draw(datetime.date(2000, 12, 31))]
    assert len(set(drawn)) == 366
    assert sorted(drawn)[0] == datetime.date(2000, 1, 1)
    assert drawn != sorted(drawn)


def test_what_a_date_draws_does_not_depend_on_the_others():
    few, many = _draw(datetime.date(2000, 2, 1)), _draw(datetime.date(2001, 12, 31))
    ranks = {date.date: rank for rank, date in enumerate(many)}
    assert [ranks[date.date] for date in few] == sorted(ranks[date.date] for date in few)
    assert set(few) < set(many)


def test_draws_are_even_and_independent():
    pairs = Counter((date.draw("abc", 0), date.draw("abc", 1)) for date in _draw(datetime.date(2009, 12, 31)))
    assert len(pairs) == 9
    expected = pairs.total() / 9
    assert all(abs(count - expected) < 5 * expected**0.5 for count in pairs.values())
