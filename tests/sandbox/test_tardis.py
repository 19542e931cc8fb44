"""What the sandbox answers when nothing is wrong with it."""

import gzip
import hashlib
import http.client
import io
import json
import shutil
from pathlib import Path

import pytest

from runner.errors import SpecError
from runner.sandbox.tardis import Options, serve

CATALOGUES = Path(__file__).parents[1] / "data/tardis/exchanges"
SAMPLE = Path(__file__).parents[2] / "runner/sandbox/data/binance"
PATH = "/v1/binance/trades/2024/08/08/BTCUSDT.csv.gz"
FILE = (SAMPLE / "trades/2024/08/08/BTCUSDT.csv.gz").read_bytes()


@pytest.fixture
def given(start, tmp_path, put):
    """A server with the catalogues as Tardis gives them, and BTCUSDT trades with a hole on 08-09."""
    shutil.copytree(CATALOGUES, tmp_path / "data/exchanges")
    for day in ("08", "10"):
        put(f"binance/trades/2024/08/{day}/BTCUSDT")
    return start(data=tmp_path / "data")


def test_day_file_has_the_headers_of_the_source(server, fetch):
    answer = fetch(server.url, PATH)
    assert answer.status == 200
    assert answer.body == FILE
    assert answer.headers["content-type"] == "text/csv"
    assert answer.headers["content-length"] == str(len(FILE))
    assert answer.headers["x-md5"] == f'"{hashlib.md5(FILE).hexdigest()}"'
    assert "content-encoding" not in answer.headers
    assert "accept-ranges" not in answer.headers


def test_retry_attempt_and_range_are_ignored(server, fetch):
    answer = fetch(server.url, f"{PATH}?retryAttempt=3", Range="bytes=10-20", Accept_Encoding="identity")
    assert (answer.status, answer.body) == (200, FILE)


def test_head_is_404_for_a_file_that_exists(server, fetch):
    answer = fetch(server.url, PATH, method="HEAD")
    assert (answer.status, answer.body) == (404, b"")
    assert server.stats()["paths"][PATH]["statuses"] == {"404": 1}


def test_one_connection_carries_many_requests(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    for method, status in (("GET", 200), ("HEAD", 404), ("POST", 404), ("GET", 200)):
        connection.request(method, PATH, headers={"Authorization": "Bearer fake-key-1"}, body=b"x" * 9)
        response = connection.getresponse()
        response.read()
        assert response.status == status
    connection.close()


@pytest.mark.parametrize(
    ("path", "code", "words"),
    [
        (
            "binanse/trades/2024/08/08/BTCUSDT",
            100,
            "Invalid 'exchange' param provided: 'binanse'. Did you mean 'binance'?",
        ),
        ("binanse/nothing/2020/08/08/NONE", 100, "Allowed values: binance"),
        ("binance/nothing/2020/08/08/NONE", 300, "Invalid 'symbol' param provided: 'NONE'"),
        ("binance/trades/2024/08/08/btcusdt", 300, "Invalid 'symbol' param provided: 'btcusdt'"),
        ("binance/liquidations/2020/08/08/BTCUSDT", 300, "Data type 'liquidations' is not supported for 'BTCUSDT'"),
        ("binance/trades/2024/08/07/BTCUSDT", 140, "available only since 2024-08-08"),
        ("binance/trades/2024/08/10/BTCUSDT", 140, "available only up to 2024-08-10"),
        ("binance/trades/2024/13/10/BTCUSDT", 100, "ISO 8601 format"),
        ("binance/trades/2024/8/8/BTCUSDT", 100, "ISO 8601 format"),
        ("binance/trades/2023/02/29/BTCUSDT", 100, "ISO 8601 format"),
        ("../binance/2024/08/08/BTCUSDT", 100, "Invalid 'exchange'"),
        ("binance/trades/2024/08/08/..%2F08%2FBTCUSDT", 300, "Invalid 'symbol'"),
    ],
)
def test_refusals_come_in_the_order_of_the_source(server, fetch, path, code, words):
    answer = fetch(server.url, f"/v1/{path}.csv.gz")
    assert (answer.status, answer.json["code"]) == (400, code)
    assert words in answer.json["message"]


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v2/exchanges", "/v1/binance/trades/2024/08/08/BTCUSDT.csv", "/bucket/x"]
)
def test_other_paths_are_404(server, fetch, path):
    assert fetch(server.url, path).status == 404


def test_hole_between_two_files_is_404_also_with_a_given_catalogue(given, fetch):
    statuses = [fetch(given.url, PATH.replace("08/08", f"08/{day}")).status for day in ("08", "09", "10")]
    assert statuses == [200, 404, 200]


def test_day_without_a_file_outside_every_file_is_empty_with_a_given_catalogue(given, fetch):
    for path in ("binance/trades/2023/05/05/BTCUSDT", "binance/trades/2024/08/08/ETHUSDT"):
        answer = fetch(given.url, f"/v1/{path}.csv.gz")
        assert answer.status == 200
        assert len(answer.body) == 20
        assert gzip.decompress(answer.body) == b""
        assert answer.headers["x-md5"] == f'"{hashlib.md5(answer.body).hexdigest()}"'


def test_whole_days_are_compared(start, tmp_path, fetch):
    (tmp_path / "exchanges").mkdir()
    symbol = {"id": "A", "type": "spot", "dataTypes": ["trades"]}
    symbol |= {"availableSince": "2024-01-02T09:30:00.000Z", "availableTo": "2024-01-06T08:00:00.000Z"}
    document = {"id": "x", "datasets": {"exportedUntil": "2024-02-01T00:00:00.000Z", "symbols": [symbol]}}
    (tmp_path / "exchanges/x.json").write_text(json.dumps(document))
    server = start(data=tmp_path)
    answers = {day: fetch(server.url, f"/v1/x/trades/2024/01/0{day}/A.csv.gz").status for day in range(1, 10)}
    assert answers == {1: 400, 2: 200, 3: 200, 4: 200, 5: 200, 6: 200, 7: 400, 8: 400, 9: 400}


def test_exported_until_ends_every_symbol(start, tmp_path, fetch):
    (tmp_path / "exchanges").mkdir()
    symbol = {"id": "A", "dataTypes": ["trades"], "availableSince": "2024-01-01T00:00:00.000Z"}
    document = {"id": "x", "datasets": {"exportedUntil": "2024-01-03T00:00:00.000Z", "symbols": [symbol]}}
    (tmp_path / "exchanges/x.json").write_text(json.dumps(document))
    server = start(data=tmp_path)
    days = [fetch(server.url, f"/v1/x/trades/2024/01/{day}/A.csv.gz") for day in ("02", "03")]
    assert [answer.status for answer in days] == [200, 400]
    assert days[1].json["code"] == 140


def test_redirect_leads_to_another_origin_that_refuses_authorization(start, fetch):
    server = start(data=SAMPLE.parent, redirect=True)
    answer = fetch(server.url, PATH)
    assert answer.status == 302
    host, _, path = answer.headers["location"].removeprefix("http://").partition("/")
    assert host != server.origin.removeprefix("http://")
    assert fetch(f"http://{host}", f"/{path}").status == 400
    assert fetch(f"http://{host}", f"/{path}", key=None).body == FILE
    assert fetch(f"http://{host}", "/bucket/00ff", key=None).status == 403
    assert server.stats()["paths"][f"/bucket{PATH}"]["statuses"] == {"200": 1, "400": 1}


def test_signature_expires_by_the_clock(start, fetch):
    server = start(data=SAMPLE.parent, redirect=True, signature_ttl_s=60)
    fetch(server.url, "/__sandbox/clock", method="POST", body={"now": "2024-08-10T08:00:00Z"})
    host, _, path = fetch(server.url, PATH).headers["location"].removeprefix("http://").partition("/")
    fetch(server.url, "/__sandbox/clock", method="POST", body={"now": "2024-08-10T08:00:50Z"})
    assert fetch(f"http://{host}", f"/{path}", key=None).status == 200
    fetch(server.url, "/__sandbox/clock", method="POST", body={"now": "2024-08-10T08:01:01Z"})
    assert fetch(f"http://{host}", f"/{path}", key=None).status == 403


def test_redirect_does_not_hide_refusals(start, fetch):
    server = start(data=SAMPLE.parent, redirect=True)
    assert fetch(server.url, PATH.replace("08/08", "08/07")).json["code"] == 140
    assert fetch(server.url, "/v1/exchanges").status == 200


def test_exchanges_lists_what_is_here_with_what_the_source_says_of_it(given, fetch):
    answer = fetch(given.url, "/v1/exchanges", key=None)
    assert [item["id"] for item in answer.json] == ["binance", "deribit", "okex-futures"]
    assert answer.json[1]["name"] == "Deribit"
    assert answer.json[1]["availableSince"] == "2019-03-30T00:00:00.000Z"


def test_exchange_details_are_the_given_ones_and_gzipped_when_accepted(given, fetch):
    plain = fetch(given.url, "/v1/exchanges/deribit", key=None, Accept_Encoding="identity")
    packed = fetch(given.url, "/v1/exchanges/deribit", key=None, Accept_Encoding="deflate, gzip;q=0.5")
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    assert [item["id"] for item in plain.json["datasets"]["symbols"]][:2] == ["BTC-PERPETUAL", "ETH-PERPETUAL"]
    assert fetch(given.url, "/v1/exchanges/deribitt", key=None).json["code"] == 100


def test_instruments_need_a_key_and_obey_filters(given, fetch):
    def ids(query=""):
        return [row["datasetId"] for row in fetch(given.url, f"/v1/instruments/deribit{query}").json]

    assert fetch(given.url, "/v1/instruments/deribit", key=None).status == 401
    assert ids() == ["BTC-PERPETUAL", "ETH-PERPETUAL", "BTC-14FEB25", "BTC-25APR25-200000-P", "BTC_USDC"]
    assert ids("?filter=%7B%22type%22%3A%22option%22%7D") == ["BTC-25APR25-200000-P"]
    assert ids("?filter=%7B%22type%22%3A%5B%22spot%22%2C%22future%22%5D%7D") == ["BTC-14FEB25", "BTC_USDC"]
    assert ids("?filter=%7B%22availableTo%22%3A%222020-01-01%22%7D") == ["BTC-PERPETUAL", "ETH-PERPETUAL"]
    assert fetch(given.url, "/v1/instruments/deribit?filter=%7B%22colour%22%3A1%7D").status == 400
    assert fetch(given.url, "/v1/instruments/deribit?filter=nonsense").status == 400
    assert fetch(given.url, "/v1/instruments/deribit/btc-perpetual").json["datasetId"] == "BTC-PERPETUAL"
    assert fetch(given.url, "/v1/instruments/deribit/nothing").status == 400


def test_instruments_of_bitmex_are_free(start, put, tmp_path, fetch):
    put("bitmex/trades/2024/08/08/XBTUSD")
    server = start(data=tmp_path / "data")
    row = fetch(server.url, "/v1/instruments/bitmex/XBTUSD", key=None).json
    assert (row["type"], row["baseCurrency"], row["quoteCurrency"]) == ("perpetual", "BTC", "USD")


def test_zero_byte_file_stands_for_an_empty_day(start, put, tmp_path, fetch):
    put("binance/trades/2024/08/08/BTCUSDT").write_bytes(b"")
    answer = fetch(start(data=tmp_path / "data").url, PATH)
    assert gzip.GzipFile(fileobj=io.BytesIO(answer.body)).read() == b""
    assert len(answer.body) == 20


def test_file_replaced_under_the_server_is_served_with_its_own_checksum(start, put, tmp_path, fetch):
    put("binance/trades/2024/08/08/BTCUSDT", "one\n")
    server = start(data=tmp_path / "data")
    fetch(server.url, PATH)
    replaced = put("binance/trades/2024/08/08/BTCUSDT", "another, longer\n").read_bytes()
    answer = fetch(server.url, PATH)
    assert answer.body == replaced
    assert answer.headers["x-md5"] == f'"{hashlib.md5(replaced).hexdigest()}"'


def test_faulty_options_are_named(tmp_path):
    def fails(words, **options):
        with pytest.raises(SpecError, match=words):
            serve(Options(**options)).close()

    (tmp_path / "keys").write_text("fake-key-1 yesterday\n")
    fails("no such directory", data=tmp_path / "nothing")
    fails("key file .*nothing", key_file=tmp_path / "nothing")
    fails("line 1", key_file=tmp_path / "keys")
    fails("time-factor is 0", time_factor=0)
    fails("egress '10.0.0.0/99=a'", egress="10.0.0.0/99=a")
    with serve(Options()) as other:
        fails("cannot listen on 127.0.0.1", port=other.port)
