"""Keys, their plans, and the lock of a key to one address."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from runner.sandbox.access import Egress, KeyLock

SAMPLES = Path(__file__).parents[2] / "runner/sandbox/data"
PATH = "/v1/binance/trades/2024/08/08/BTCUSDT.csv.gz"
FREE = "/v1/binance/trades/2024/08/01/BTCUSDT.csv.gz"
SPEC = {"exchange": "binance", "symbols": ["BTCUSDT"], "days": ["2024-08-01", "2024-08-07"], "rows_per_day": 50}


@pytest.fixture
def keyed(start, tmp_path):
    """A server that knows a few keys; returns it with its key file."""
    keys = tmp_path / "keys"
    lines = [
        "# keys",
        "",
        "fake-key-1",
        "fake-plan 2024-08-03 2024-08-08  # the end is exclusive",
        "fake-old - - 2024-08-10",
    ]
    keys.write_text("\n".join(lines) + "\n")
    return start(data=SAMPLES, key_file=keys, generate=SPEC), keys


def set_clock(fetch, server, now):
    assert fetch(server.url, "/__sandbox/clock", method="POST", body={"now": now}).status == 200


def test_first_of_a_month_is_free_and_other_days_are_not(keyed, fetch):
    server, _ = keyed
    assert fetch(server.url, FREE, key=None).status == 200
    assert fetch(server.url, PATH, key=None).status == 401
    assert set(fetch(server.url, PATH, key=None).json) == {"code", "message"}


def test_unknown_key_is_refused_also_on_a_free_day(keyed, fetch):
    server, _ = keyed
    assert fetch(server.url, PATH, key="fake-unknown").status == 401
    assert fetch(server.url, FREE, key="fake-unknown").status == 401
    assert fetch(server.url, PATH, key="fake-key-1").status == 200


def test_any_key_is_good_without_a_key_file(server, fetch):
    assert fetch(server.url, PATH, key="fake-whatever").status == 200


def test_plan_covers_its_days_and_the_free_ones(keyed, fetch):
    server, _ = keyed
    days = {
        day: fetch(server.url, PATH.replace("08/08/", f"08/{day}/"), key="fake-plan").status
        for day in ("02", "03", "07", "08")
    }
    assert days == {"02": 401, "03": 200, "07": 200, "08": 401}
    assert fetch(server.url, FREE, key="fake-plan").status == 200


def test_expired_key_is_refused_and_has_an_empty_plan(keyed, fetch):
    server, _ = keyed
    set_clock(fetch, server, "2024-08-09T23:59:00Z")
    assert fetch(server.url, PATH.replace("08/08/", "08/05/"), key="fake-old").status == 200
    assert fetch(server.url, "/v1/api-key-info", key="fake-old").json != []
    set_clock(fetch, server, "2024-08-10T00:00:00Z")
    assert fetch(server.url, PATH.replace("08/08/", "08/05/"), key="fake-old").status == 401
    assert fetch(server.url, "/v1/api-key-info", key="fake-old").json == []


def test_key_info_tells_the_plan(keyed, fetch):
    server, _ = keyed
    assert fetch(server.url, "/v1/api-key-info", key=None).status == 401
    assert fetch(server.url, "/v1/api-key-info", key="fake-unknown").status == 401
    (row,) = fetch(server.url, "/v1/api-key-info", key="fake-plan").json
    assert set(row) == {"exchange", "accessType", "from", "to", "symbols", "dataPlan"}
    assert (row["exchange"], row["from"], row["to"]) == (
        "binance",
        "2024-08-03T00:00:00.000Z",
        "2024-08-08T00:00:00.000Z",
    )


def test_key_can_be_revoked_under_a_running_client(keyed, fetch):
    server, keys = keyed
    assert fetch(server.url, PATH).status == 200
    keys.write_text("fake-another\n")
    assert fetch(server.url, PATH).status == 401


def test_key_is_locked_to_the_address_that_used_it_last(server, fetch):
    assert fetch(server.url, PATH, X_Fake_Client_IP="10.0.0.1").status == 200
    answer = fetch(server.url, PATH, X_Fake_Client_IP="10.0.0.2")
    assert answer.status == 403
    assert answer.json["code"] == 274
    assert answer.json["retryAfterSeconds"] in (899, 900)
    assert "already active from another IP address" in answer.json["message"]
    assert fetch(server.url, PATH, X_Fake_Client_IP="10.0.0.1").status == 200
    assert fetch(server.url, PATH, key="fake-key-2", X_Fake_Client_IP="10.0.0.2").status == 200


def test_lock_passes_on_after_its_time(server, fetch):
    set_clock(fetch, server, "2024-08-10T08:00:00Z")
    assert fetch(server.url, PATH, X_Fake_Client_IP="10.0.0.1").status == 200
    set_clock(fetch, server, "2024-08-10T08:10:00Z")
    assert fetch(server.url, PATH, X_Fake_Client_IP="10.0.0.2").json["retryAfterSeconds"] in (300, 301)
    set_clock(fetch, server, "2024-08-10T08:15:30Z")
    assert fetch(server.url, PATH, X_Fake_Client_IP="10.0.0.2").status == 200
    assert fetch(server.url, PATH, X_Fake_Client_IP="10.0.0.1").status == 403


def test_free_days_never_lock(keyed, fetch):
    server, _ = keyed
    assert fetch(server.url, FREE, X_Fake_Client_IP="10.0.0.1").status == 200
    assert fetch(server.url, PATH, X_Fake_Client_IP="10.0.0.2").status == 200
    assert fetch(server.url, FREE, X_Fake_Client_IP="10.0.0.1").status == 200


def test_refused_key_does_not_take_the_lock(keyed, fetch):
    server, _ = keyed
    assert fetch(server.url, PATH, key="fake-plan", X_Fake_Client_IP="10.0.0.1").status == 401
    assert (
        fetch(server.url, PATH.replace("08/08/", "08/05/"), key="fake-plan", X_Fake_Client_IP="10.0.0.2").status == 200
    )


def test_time_factor_shortens_the_wait_that_clients_are_told(start, fetch):
    server = start(data=SAMPLES, time_factor=100)
    fetch(server.url, PATH, X_Fake_Client_IP="10.0.0.1")
    assert fetch(server.url, PATH, X_Fake_Client_IP="10.0.0.2").json["retryAfterSeconds"] in (8, 9)


def test_networks_of_one_name_are_one_address(start, fetch):
    server = start(data=SAMPLES, egress="10.244.0.0/16=a,10.245.0.0/16=a,192.168.0.0/24=b")
    assert fetch(server.url, PATH, X_Fake_Client_IP="10.244.3.7").status == 200
    assert fetch(server.url, PATH, X_Fake_Client_IP="10.245.9.9").status == 200
    assert fetch(server.url, PATH, X_Fake_Client_IP="192.168.0.9").status == 403
    assert server.stats()["paths"][PATH]["egress"] == ["a", "b"]


@pytest.mark.parametrize(
    ("egress", "peer", "claimed", "seen"),
    [
        ("", "127.0.0.1", None, "all"),
        ("", "10.1.2.3", None, "all"),
        ("", "127.0.0.1", "pod-7", "pod-7"),
        ("10.0.0.0/8=a", "10.1.2.3", None, "a"),
        ("10.0.0.0/8=a", "127.0.0.1", None, "127.0.0.1"),
        ("10.0.0.0/8=a", "127.0.0.1", "10.9.9.9", "a"),
        ("10.0.0.0/8", "10.1.2.3", None, "10.0.0.0/8"),
        ("10.0.0.0/8=a fd00::/8=b", "fd00::1", None, "b"),
    ],
)
def test_egress_names_addresses(egress, peer, claimed, seen):
    assert Egress.parse(egress).address(peer, claimed) == seen


def test_clock_set_back_does_not_lengthen_a_lock():
    lock, now = KeyLock(900), datetime(2024, 8, 10, tzinfo=UTC)
    assert lock.claim("k", "a", now) == 0
    assert lock.claim("k", "b", now - timedelta(days=1)) == 900
    assert math.isclose(lock.claim("k", "b", now + timedelta(seconds=899)), 1)
    assert lock.claim("k", "b", now + timedelta(seconds=900)) == 0
