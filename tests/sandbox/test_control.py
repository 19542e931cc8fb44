"""The control requests, with nothing but a socket."""

import hashlib
import threading

import pytest

PATH = "/v1/binance/trades/2024/08/08/BTCUSDT.csv.gz"


def control(fetch, server, method, name, body=None):
    return fetch(server.origin, f"/__sandbox/{name}", method=method, key=None, body=body)


def test_stats_tell_of_every_path(server, fetch):
    fetch(server.url, PATH)
    fetch(server.url, f"{PATH}?retryAttempt=1", key="fake-key-2")
    fetch(server.url, PATH.replace("BTC", "ETH"))
    stats = control(fetch, server, "GET", "stats").json
    size = len(fetch(server.url, PATH).body)
    assert stats["paths"][PATH] == {
        "requests": 2,
        "statuses": {"200": 2},
        "bytes": 2 * size,
        "bodies_completed": 2,
        "in_flight": 0,
        "concurrency_max": 1,
        "keys": sorted(hashlib.sha256(key).hexdigest()[:12] for key in (b"fake-key-1", b"fake-key-2")),
        "egress": ["all"],
    }
    assert stats["total"]["requests"] == 3
    assert stats["total"]["statuses"] == {"200": 2, "400": 1}
    assert stats["total"]["bodies_completed"] == 2


def test_body_that_is_cut_is_not_completed(server, fetch):
    control(fetch, server, "POST", "faults", [{"path": "*", "fault": "cut", "at": 0.5, "framing": "close"}])
    fetch(server.url, PATH)
    figures = server.stats()["paths"][PATH]
    assert (figures["bodies_completed"], figures["statuses"]) == (0, {"200": 1})
    assert figures["bytes"] > 0


def test_concurrency_counts_answers_in_flight_and_never_ended_ones(server, fetch):
    for _ in range(20):
        fetch(server.url, PATH)
    assert server.stats()["total"]["concurrency_max"] == 1
    control(fetch, server, "POST", "faults", [{"path": PATH, "fault": "hold"}])
    threads = [threading.Thread(target=fetch, args=(server.url, PATH)) for _ in range(3)]
    for thread in threads:
        thread.start()
    pause = threading.Event()
    while server.stats()["paths"][PATH]["in_flight"] < 3:
        pause.wait(0.005)
    control(fetch, server, "DELETE", "faults")
    for thread in threads:
        thread.join()
    assert server.stats()["paths"][PATH]["concurrency_max"] == 3
    assert server.stats()["total"]["in_flight"] == 0


def test_reset_forgets_statistics_faults_locks_and_clock(server, fetch):
    fetch(server.url, PATH, X_Fake_Client_IP="10.0.0.1")
    control(fetch, server, "POST", "faults", [{"path": "*", "fault": "status", "code": 500}])
    control(fetch, server, "POST", "clock", {"now": "2024-08-09T08:00:00Z"})
    assert control(fetch, server, "POST", "reset").status == 200
    assert control(fetch, server, "GET", "stats").json["paths"] == {}
    assert control(fetch, server, "GET", "faults").json == []
    assert fetch(server.url, PATH, X_Fake_Client_IP="10.0.0.2").status == 200
    until = fetch(server.url, "/v1/exchanges/binance").json["datasets"]["exportedUntil"]
    assert until == "2024-08-10T00:00:00.000Z"


def test_clock_decides_what_is_exported_once_it_is_set(server, fetch):
    def seen(now):
        answer = control(fetch, server, "POST", "clock", {"now": now})
        assert answer.status == 200
        datasets = fetch(server.url, "/v1/exchanges/binance").json["datasets"]
        last = fetch(server.url, PATH.replace("08/08/", "08/09/"))
        return datasets["exportedUntil"], [item["availableTo"] for item in datasets["symbols"]], last.status

    early, late = "2024-08-09T00:00:00.000Z", "2024-08-10T00:00:00.000Z"
    assert seen("2024-08-10T05:59:00Z") == (early, [early], 400)
    assert seen("2024-08-10T06:00:00Z") == (late, [late], 200)
    assert seen("2030-01-01T00:00:00+02:00") == (late, [late], 200)


@pytest.mark.parametrize("body", [None, {}, {"now": "soon"}, {"now": 5}, {"now": "2024-08-10", "then": 1}, [1]])
def test_wrong_clock_is_refused_in_one_line(server, fetch, body):
    answer = control(fetch, server, "POST", "clock", body)
    assert answer.status == 400
    assert answer.body.count(b"\n") == 1


def test_unknown_control_is_404_and_names_those_there_are(server, fetch):
    answer = control(fetch, server, "POST", "stats")
    assert answer.status == 404
    assert b"GET /__sandbox/stats" in answer.body


def test_control_is_not_counted(server, fetch):
    for _ in range(3):
        control(fetch, server, "GET", "stats")
    assert server.stats()["total"]["requests"] == 0
