"""The loopback Hub fails as planned, and refuses what the Hub refuses."""

import json
import urllib.error
import urllib.request

import pytest

from tests.hub import faults


def fetch(url, method="GET", data=None):
    request = urllib.request.Request(url, method=method, data=data)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers.get("Retry-After")


def test_faults_strike_planned_requests_only(hub):
    hub.create("user/a", {"config.json": json.dumps({"a": 1})})
    url = f"{hub.url}/user/a/resolve/main/config.json"
    complete = fetch(url)
    assert complete == (200, b'{"a": 1}')
    hub.fail("GET", "*/config.json", faults.crowded_out, times=2)
    hub.fail("GET", "*/config.json", faults.truncated)
    assert [fetch(url) for _ in range(4)] == [(429, "1"), (429, "1"), (200, b'{"a"'), complete]
    hub.fail("GET", "*/config.json", faults.corrupted)
    status, changed = fetch(url)
    assert (status, len(changed), changed[:4]) == (200, 8, b'{"a"')
    assert changed != complete[1]
    hub.fail("GET", "*/config.json", faults.lost, times=5)
    hub.fail("POST", "*", faults.status(500), body="not in it")
    with pytest.raises(ConnectionError):
        fetch(url)
    assert fetch(f"{hub.url}/api/validate-yaml", "POST", b'{"content": "text"}')[0] == 200
    assert hub.waiting_faults() == ["status"]
    hub.heal()
    assert fetch(url) == complete
    assert [request.fault for request in hub.requests("GET")][1:4] == ["crowded_out", "crowded_out", "truncated"]


@pytest.mark.parametrize(
    ("header", "status"),
    [("base_model: a/b\ndatasets:\n- pets", 200), ("base_model: /home/me/b", 400), ("datasets:\n- a/b\n- data/x/y.dict", 400)],
)
def test_card_that_links_no_repository_is_refused(hub, header, status):
    card = json.dumps({"content": f"---\n{header}\n---\n"}).encode()
    assert fetch(f"{hub.url}/api/validate-yaml", "POST", card)[0] == status


def test_unknown_path_is_logged(hub):
    assert fetch(f"{hub.url}/api/unknown") == (404, None)
    assert [str(request) for request in hub.log] == ["GET /api/unknown 404"]
