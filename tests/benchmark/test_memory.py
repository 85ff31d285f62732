import sys

import torch

from hf_maskattn.benchmark.memory import weigh
from hf_maskattn.benchmark.ways import Way

CPU = torch.device("cpu")
BLOCK = torch.zeros(1000, 250)  # 1 MB


def at_once():
    return {"sum": (BLOCK + 1) + (BLOCK + 2)}


def one_after_the_other():
    for _ in range(2):
        block = BLOCK + 1
        del block
    return {"sum": BLOCK + BLOCK + 3}


def test_the_peak_counts_not_the_sum(capfd):
    row = weigh([Way("three", at_once), Way("two", one_after_the_other), Way("absent", None)], CPU)
    assert round(row.outcomes["three"].value, 2) == 3
    assert round(row.outcomes["two"].value, 2) == 2
    assert row.outcomes["absent"].value is None
    sys.stderr.write("still here\n")
    assert capfd.readouterr().err == "still here\n"


def test_unequal_results_are_not_weighed():
    row = weigh([Way("ours", at_once), Way("rival", lambda: {"sum": BLOCK})], CPU)
    assert row.outcomes["rival"].unequal
    assert row.outcomes["rival"].value is None
