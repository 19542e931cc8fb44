"""The catalogue derived from day files."""

import gzip
import json

import pytest

from runner.sandbox.kinds import symbol_type


def symbols(fetch, server, exchange="binance"):
    datasets = fetch(server.url, f"/v1/exchanges/{exchange}", key=None).json["datasets"]
    return {item["id"]: item for item in datasets["symbols"]}, datasets


def test_symbols_keep_their_own_days_and_the_newest_are_still_listed(start, put, tmp_path, fetch):
    for path in ("trades/2024/08/08/BTCUSDT", "quotes/2024/08/10/BTCUSDT", "trades/2024/08/09/OLDUSDT"):
        put(f"binance/{path}")
    put("binance/trades/2024/08/10/NEWUSDT")
    put("deribit/trades/2024/01/05/BTC-PERPETUAL")
    server = start(data=tmp_path / "data")
    found, datasets = symbols(fetch, server)
    assert datasets["exportedFrom"] == "2024-08-08T00:00:00.000Z"
    assert datasets["exportedUntil"] == "2024-08-11T00:00:00.000Z"
    assert {name: (item["availableSince"][:10], item["availableTo"][:10]) for name, item in found.items()} == {
        "BTCUSDT": ("2024-08-08", "2024-08-11"),
        "OLDUSDT": ("2024-08-09", "2024-08-10"),
        "NEWUSDT": ("2024-08-10", "2024-08-11"),
    }
    assert found["BTCUSDT"]["dataTypes"] == ["quotes", "trades"]
    assert symbols(fetch, server, "deribit")[1]["exportedUntil"] == "2024-01-06T00:00:00.000Z"


def test_hole_in_the_days_of_a_symbol_is_404(start, put, tmp_path, fetch):
    put("binance/trades/2024/07/31/BTCUSDT")
    put("binance/trades/2024/08/02/BTCUSDT")
    put("binance/quotes/2024/08/02/BTCUSDT")
    server = start(data=tmp_path / "data")
    path = "/v1/binance/{}/2024/{}/BTCUSDT.csv.gz"
    assert fetch(server.url, path.format("trades", "07/31")).status == 200
    assert fetch(server.url, path.format("trades", "08/01"), key=None).status == 404
    assert fetch(server.url, path.format("quotes", "07/31")).status == 404


def test_files_that_appear_and_vanish_are_seen_at_once(start, put, tmp_path, fetch):
    put("binance/trades/2024/08/08/BTCUSDT")
    server = start(data=tmp_path / "data")
    for number in range(5):
        file = put(f"binance/trades/2024/08/08/X{number}USDT")
        assert f"X{number}USDT" in symbols(fetch, server)[0]
        file.unlink()
        assert f"X{number}USDT" not in symbols(fetch, server)[0]
    put("okex-swap/trades/2024/08/08/BTC-USDT-SWAP")
    assert [item["id"] for item in fetch(server.url, "/v1/exchanges").json] == ["binance", "okex-swap"]
    put("binance/trades/2025/01/01/BTCUSDT")
    assert symbols(fetch, server)[1]["exportedUntil"] == "2025-01-02T00:00:00.000Z"


def test_strange_files_are_not_offered(start, put, tmp_path, fetch):
    put("binance/trades/2024/08/08/BTCUSDT")
    put("binance/trades/2024/8/8/ETHUSDT")
    put("binance/trades/2024/02/30/ETHUSDT")
    (tmp_path / "data/binance/trades/2024/08/08/README.md").write_text("x")
    (tmp_path / "data/notes.txt").write_text("x")
    server = start(data=tmp_path / "data")
    assert list(symbols(fetch, server)[0]) == ["BTCUSDT"]
    assert [item["id"] for item in fetch(server.url, "/v1/exchanges").json] == ["binance"]


def test_generated_days_join_the_files(start, put, tmp_path, fetch):
    put("binance/trades/2024/08/08/BTCUSDT")
    spec = {"exchange": "binance", "symbols": ["ETHUSDT"], "days": ["2024-08-09", "2024-08-10"], "rows_per_day": 9}
    other = {"exchange": "bybit", "symbols": ["BTCUSD"], "days": ["2024-08-01"], "rows_per_day": 9}
    server = start(data=tmp_path / "data", generate=[spec, other])
    found, datasets = symbols(fetch, server)
    assert datasets["exportedUntil"] == "2024-08-11T00:00:00.000Z"
    assert found["BTCUSDT"]["availableTo"] == "2024-08-09T00:00:00.000Z"
    assert found["ETHUSDT"]["dataTypes"] == ["book_snapshot_5", "quotes", "trades"]
    assert symbols(fetch, server, "bybit")[0]["BTCUSD"]["type"] == "perpetual"


def test_given_catalogue_wins_over_files_and_gains_generated_symbols(start, put, tmp_path, fetch):
    put("x/trades/2024/08/08/HIDDEN")
    item = {"id": "A", "type": "combo", "dataTypes": ["trades"], "availableSince": "2024-08-01T00:00:00.000Z"}
    document = {"id": "x", "note": "kept", "datasets": {"exportedUntil": "2024-09-01T00:00:00.000Z", "symbols": [item]}}
    (tmp_path / "data/exchanges").mkdir()
    (tmp_path / "data/exchanges/x.json").write_text(json.dumps(document))
    spec = {"exchange": "x", "symbols": ["B"], "days": ["2024-08-09"], "rows_per_day": 9, "data_types": ["trades"]}
    server = start(data=tmp_path / "data", generate=spec)
    found, _ = symbols(fetch, server, "x")
    assert list(found) == ["A", "B"]
    assert found["A"] == item
    assert fetch(server.url, "/v1/exchanges/x").json["note"] == "kept"
    assert fetch(server.url, "/v1/x/trades/2024/08/08/HIDDEN.csv.gz").json["code"] == 300
    assert fetch(server.url, "/v1/x/trades/2024/08/09/B.csv.gz").status == 200


@pytest.mark.parametrize(
    ("exchange", "symbol", "kind"),
    [
        ("binance", "BTCUSDT", "spot"),
        ("binance-futures", "BTCUSDT", "perpetual"),
        ("binance-futures", "BTCUSDT_231229", "future"),
        ("binance-delivery", "BTCUSD_PERP", "perpetual"),
        ("binance-delivery", "BTCUSD_231229", "future"),
        ("deribit", "BTC-PERPETUAL", "perpetual"),
        ("deribit", "BTC_USDC-PERPETUAL", "perpetual"),
        ("deribit", "BTC_USDC", "spot"),
        ("deribit", "BTC-29DEC23", "future"),
        ("deribit", "BTC-2JUN23", "future"),
        ("deribit", "BTC-2JUN23-1850-P", "option"),
        ("deribit", "XRP_USDC-29DEC23-0d5-C", "option"),
        ("deribit", "BTC-FS-28JUN24_PERP", "combo"),
        ("deribit", "BTC-CS-28JUN24-60000_70000", "combo"),
        ("deribit", "OPTIONS", "option"),
        ("deribit", "PERPETUALS", "perpetual"),
        ("bybit", "BTCUSDT", "perpetual"),
        ("bybit", "BTCUSD", "perpetual"),
        ("bybit", "BTCPERP", "perpetual"),
        ("bybit", "BTC-29DEC23", "future"),
        ("bybit", "BTCUSDT-29DEC23", "future"),
        ("bybit", "BTCUSDM25", "future"),
        ("bybit-spot", "BTCUSDT", "spot"),
        ("bybit-options", "BTC-29DEC23-30000-C", "option"),
        ("okex", "BTC-USDT", "spot"),
        ("okex-futures", "BTC-USD-240105", "future"),
        ("okex-futures", "BTC-USD_UM_XPERP-310404", "future"),
        ("okex-swap", "BTC-USDT-SWAP", "perpetual"),
        ("okex-options", "BTC-USD-240105-40000-C", "option"),
        ("upbit", "KRW-BTC", "spot"),
        ("bitmex", "XBTUSD", "perpetual"),
        ("bitmex", "XBTM25", "future"),
        ("huobi-dm-swap", "BTC-USD", "perpetual"),
        ("coinbase", "BTC-USD", "spot"),
    ],
)
def test_type_comes_from_exchange_and_symbol(exchange, symbol, kind):
    assert symbol_type(exchange, symbol) == kind


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"datasets": {"symbols": [{"type": "spot"}]}}', '{"datasets": {"exportedUntil": "soon"}}']
)
def test_catalogue_that_cannot_be_read_is_a_500_that_names_it(start, put, tmp_path, fetch, text):
    put("x/trades/2024/08/08/A")
    (tmp_path / "data/exchanges").mkdir()
    (tmp_path / "data/exchanges/x.json").write_text(text)
    server = start(data=tmp_path / "data")
    answer = fetch(server.url, "/v1/x/trades/2024/08/08/A.csv.gz")
    assert answer.status == 500
    assert b"exchanges/x.json" in answer.body


def test_symbols_may_be_in_any_script(start, put, tmp_path, fetch):
    body = put("binance/trades/2024/08/08/币安人生USDT").read_bytes()
    server = start(data=tmp_path / "data")
    path = "/v1/binance/trades/2024/08/08/%E5%B8%81%E5%AE%89%E4%BA%BA%E7%94%9FUSDT.csv.gz"
    assert fetch(server.url, path).body == body


def test_symbols_with_small_letters_are_found_in_upper_case(start, put, tmp_path, fetch):
    put("deribit/trades/2024/05/10/XRP_USDC-28JUN24-0d5-C", "by hand\n")
    generate = {"exchange": "deribit", "symbols": ["XRP_USDC-28JUN24-0d6-C"], "days": ["2024-05-10"], "rows_per_day": 2}
    server = start(data=tmp_path / "data", generate=generate, cache=tmp_path / "cache")
    by_hand = fetch(server.url, "/v1/deribit/trades/2024/05/10/XRP_USDC-28JUN24-0D5-C.csv.gz")
    made = fetch(server.url, "/v1/deribit/trades/2024/05/10/XRP_USDC-28JUN24-0D6-C.csv.gz")
    assert gzip.decompress(by_hand.body) == b"by hand\n"
    assert gzip.decompress(made.body).splitlines()[1].startswith(b"deribit,XRP_USDC-28JUN24-0D6-C,")
