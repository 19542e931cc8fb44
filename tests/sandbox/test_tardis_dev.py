"""Proof of fidelity: the vendor's own client downloads from the sandbox."""

import gzip
import hashlib
import json
import urllib.error
from pathlib import Path

import pytest
import tardis_dev
from tardis_dev import download_datasets, get_exchange_details

SAMPLES = Path(__file__).parents[2] / "runner/sandbox/data"
FILE = (SAMPLES / "binance/trades/2024/08/08/BTCUSDT.csv.gz").read_bytes()
PATH = "/v1/binance/trades/2024/08/08/BTCUSDT.csv.gz"


@pytest.fixture
def download(tmp_path):
    def run(server, data_types=("trades",), symbols=("BTCUSDT",), days=("2024-08-08", "2024-08-09"), **more):
        download_datasets(
            exchange=more.pop("exchange", "binance"),
            data_types=list(data_types),
            symbols=list(symbols),
            from_date=days[0],
            to_date=days[1],
            endpoint=server.url,
            api_key=more.pop("api_key", "fake-key-1"),
            download_dir=str(tmp_path / "out"),
            timeout=20,
            **more,
        )
        return {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    return run


def test_it_is_the_version_the_facts_were_recorded_from():
    assert tardis_dev.__version__.split(".")[0] == "5"


def test_plain_download_of_two_days_and_all_types(server, download):
    types = ("trades", "quotes", "book_snapshot_5")
    found = download(server, types, days=("2024-08-08", "2024-08-10"))
    assert len(found) == 6
    assert found["binance_trades_2024-08-08_BTCUSDT.csv.gz"] == FILE
    assert all(gzip.decompress(body).startswith(b"exchange,symbol,timestamp,") for body in found.values())
    figures = server.stats()
    assert figures["total"]["statuses"] == {"200": 6}
    assert figures["paths"][PATH]["keys"] == [hashlib.sha256(b"fake-key-1").hexdigest()[:12]]


def test_it_retries_a_503_with_its_cache_buster(server, download):
    server.add_faults({"path": "*", "fault": "status", "code": 503, "count": 1})
    assert list(download(server).values()) == [FILE]
    assert server.stats()["paths"][PATH]["statuses"] == {"200": 1, "503": 1}


def test_it_retries_a_body_that_is_cut(server, download):
    server.add_faults({"path": "*", "fault": "cut", "at": 0.5, "framing": "content-length", "count": 1})
    assert list(download(server).values()) == [FILE]
    assert server.stats()["paths"][PATH]["requests"] == 2


def test_it_waits_as_a_429_says(server, download):
    server.add_faults({"path": "*", "fault": "status", "code": 429, "headers": {"Retry-After": "0"}, "count": 1})
    assert list(download(server).values()) == [FILE]


def test_it_gives_up_on_an_exhausted_quota(server, download):
    server.add_faults({"path": "*", "fault": "status", "code": 429, "headers": {"Retry-After": "3600"}})
    with pytest.raises(urllib.error.HTTPError) as caught:
        download(server)
    assert caught.value.code == 429


def test_it_follows_a_redirect_without_its_key(start, download):
    server = start(data=SAMPLES, redirect=True)
    assert list(download(server).values()) == [FILE]
    figures = server.stats()["paths"]
    assert figures[PATH]["statuses"] == {"302": 1}
    assert figures[f"/bucket{PATH}"]["statuses"] == {"200": 1}
    assert figures[f"/bucket{PATH}"]["keys"] == []


def test_empty_day_is_an_empty_file(start, put, tmp_path, download):
    put("binance/trades/2024/08/08/BTCUSDT").write_bytes(b"")
    (body,) = download(start(data=tmp_path / "data")).values()
    assert gzip.decompress(body) == b""


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"days": ("2024-08-06", "2024-08-07")}, 140),
        ({"days": ("2024-08-12", "2024-08-13")}, 140),
        ({"symbols": ("NONE",)}, 300),
        ({"data_types": ("liquidations",)}, 300),
        ({"exchange": "binanse"}, 100),
    ],
)
def test_what_is_not_there_is_a_400_at_once(server, download, changes, code):
    with pytest.raises(urllib.error.HTTPError) as caught:
        download(server, **changes)
    assert (caught.value.code, json.loads(caught.value.msg)["code"]) == (400, code)
    assert server.stats()["total"]["requests"] == 1


def test_locked_key_is_a_403_at_once(server, download, fetch):
    assert fetch(server.url, PATH, X_Fake_Client_IP="10.0.0.9").status == 200
    with pytest.raises(urllib.error.HTTPError) as caught:
        download(server)
    body = json.loads(caught.value.msg)
    assert (caught.value.code, body["code"]) == (403, 274)
    assert 0 < body["retryAfterSeconds"] <= 900


def test_no_key_is_a_401_except_on_the_first_of_a_month(start, download):
    spec = {"exchange": "binance", "symbols": ["BTCUSDT"], "days": ["2024-08-01", "2024-08-02"], "rows_per_day": 50}
    server = start(generate=spec)
    assert len(download(server, api_key="", days=("2024-08-01", "2024-08-02"))) == 1
    with pytest.raises(urllib.error.HTTPError) as caught:
        download(server, api_key="", days=("2024-08-02", "2024-08-03"))
    assert caught.value.code == 401


def test_generated_days_download(start, download):
    spec = {
        "exchange": "deribit",
        "symbols": ["BTC-PERPETUAL"],
        "days": ["2024-08-01", "2024-08-04"],
        "rows_per_day": 99,
    }
    found = download(
        start(generate=spec), exchange="deribit", symbols=("BTC-PERPETUAL",), days=("2024-08-01", "2024-08-05")
    )
    assert len(found) == 4
    assert all(gzip.decompress(body).count(b"\n") == 100 for body in found.values())


def test_it_reads_the_derived_catalogue(server):
    details = get_exchange_details("binance", endpoint=server.url)
    (symbol,) = details["datasets"]["symbols"]
    assert (symbol["id"], symbol["type"]) == ("BTCUSDT", "spot")
