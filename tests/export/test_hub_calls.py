import logging

import pytest
from huggingface_hub import HfApi

from hf_maskattn.export import hub_calls
from hf_maskattn.export.hub_calls import as_told, call, may_pass
from tests.hub import faults

READ = ("GET", "*/api/models/user/pets")


@pytest.fixture
def read(connected, monkeypatch):
    """Reads a repository; returns how often it had to ask, and how long it waited in between."""
    connected.create("user/pets")
    waited = []
    monkeypatch.setattr(hub_calls.time, "sleep", waited.append)

    def run():
        waited.clear()
        before = len(connected.log)
        try:
            call("user/pets", HfApi().model_info, "user/pets")
        finally:
            run.requests = len(connected.log) - before
        return waited

    return run


def test_what_passes_is_tried_again_after_longer_and_longer_waits(read, connected, caplog):
    for fault in (faults.status(500), faults.unheard, faults.truncated):
        connected.fail(*READ, fault)
    with caplog.at_level(logging.INFO, logger="hf_maskattn"):
        assert read() == [1.0, 2.0, 4.0]
    assert f"{connected.url}: the server is told to fail; trying again in 1 s ..." in caplog.text


@pytest.mark.parametrize(
    ("headers", "waits"),
    [
        ({"Retry-After": "7"}, [7.0]),
        ({"Retry-After": "0"}, [1.0]),
        ({"Retry-After": "soon"}, [1.0]),
        ({"RateLimit": '"api";r=0;t=9'}, [9.0]),
    ],
)
def test_the_hub_says_how_long_to_wait(read, connected, headers, waits):
    def crowded(request, answer):
        refused = faults.status(429)(request, answer)
        refused.headers.update(headers)
        return refused

    connected.fail(*READ, crowded)
    assert read() == waits


def test_a_wait_that_is_too_long_is_not_waited(read, connected):
    connected.fail(*READ, faults.status(429, retry_after="61"))
    with pytest.raises(OSError, match=r"has had too many requests \(the server is told to fail\): try again later"):
        read()
    assert read.requests == 1


@pytest.mark.parametrize(
    ("status", "kind", "words", "requests"),
    [
        (400, ValueError, "refuses with 400 what was sent for user/pets: the server is told to fail", 1),
        (401, PermissionError, "does not accept the token", 1),
        (403, PermissionError, "the token may not write to user/pets", 1),
        (404, FileNotFoundError, "has no user/pets", 1),
        (409, ValueError, "refuses with 409", 1),
        (502, OSError, "failed with 502", 4),
        (503, OSError, "failed with 503", 4),
    ],
)
def test_what_does_not_pass_is_told_in_one_line(read, connected, status, kind, words, requests):
    connected.fail(*READ, faults.status(status), times=9)
    with pytest.raises(kind, match=words) as caught:
        read()
    assert "\n" not in str(caught.value)
    assert read.requests == requests


def test_an_upload_is_told_by_what_broke_it():
    broken = RuntimeError("Error while uploading")
    broken.__cause__ = ConnectionResetError("reset by peer")
    assert may_pass(broken)
    assert "broke off (reset by peer)" in str(as_told(broken, "user/pets"))
    broken.__cause__ = KeyError("size")
    assert not may_pass(broken)
    assert "the upload to http" in str(as_told(broken, "user/pets"))
    assert "failed ('size')" in str(as_told(broken, "user/pets"))
