import json

from rich.console import Console

from hf_maskattn.benchmark.report import Outcome, Ratio, Report, Row, Table

EQUAL = {"ours": Outcome(2.0, spread=0.01), "baseline": Outcome(5.0, spread=0.02, difference=1e-7)}
UNEQUAL = {"ours": Outcome(1234.5), "baseline": Outcome(difference=0.3, unequal=True, remark="unequal, 3e-01 in states")}
ABSENT = {"ours": Outcome(0.01234), "baseline": Outcome(remark="baseline is not installed")}


def report(**rows):
    rows = {case: Row(outcomes, runs=7) for case, outcomes in rows.items()}
    table = Table("Title", "Caption.", {}, [Ratio("times faster", "baseline", "ours")], rows=rows)
    return Report({"CPU": "abacus"}, [table])


def printed(value):
    console = Console(width=140)
    with console.capture() as capture:
        console.print(value)
    return capture.get()


def test_report_prints_times_ratios_and_resolution():
    text = printed(report(small=EQUAL, large=ABSENT))
    assert "CPU: abacus" in text
    assert "│ small │   2.00 │     5.00 │         2.50 │" in text
    assert "│ large │ 0.0123 │        - │            - │" in text
    assert "Median of 7 interleaved runs. Half of the interquartile range is 2.0% of the median" in text
    assert "baseline: baseline is not installed." in text


def test_report_fails_on_unequal_results():
    assert report(small=EQUAL).passed
    failed = report(small=EQUAL, large=UNEQUAL)
    assert not failed.passed
    text = printed(failed)
    assert " 1234 │" in text or " 1235 │" in text
    assert "unequal, 3e-01" in " ".join(text.split("│"))


def test_json_has_all_values():
    content = json.loads(report(small=EQUAL, large=UNEQUAL).to_json())
    assert content["passed"] is False
    assert content["machine"] == {"CPU": "abacus"}
    (table,) = content["tables"]
    assert (table["title"], table["caption"], table["unit"]) == ("Title", "Caption.", "ms")
    small, large = table["rows"]["small"], table["rows"]["large"]
    assert small["runs"] == 7
    assert small["ratios"] == {"times faster": 2.5}
    assert large["ratios"] == {"times faster": None}
    assert large["ways"]["baseline"] == {
        "value": None,
        "spread": None,
        "difference": 0.3,
        "unequal": True,
        "remark": "unequal, 3e-01 in states",
    }
