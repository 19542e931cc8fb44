"""Generated days, read back with the standard library."""

import csv
import gzip
import hashlib
import itertools
import json
import re
import socket
import threading
import time
from datetime import UTC, date, datetime

import pytest

from runner.errors import SpecError
from runner.sandbox.generate import read_spec
from runner.sandbox.rows import WRITERS, day_chunks
from runner.sandbox.walk import Day

DAY = date(2024, 8, 8)
START = int(datetime(2024, 8, 8, tzinfo=UTC).timestamp()) * 1_000_000
END = START + 86_400_000_000
PLAIN = re.compile(r"^(0|[1-9]\d*)(\.\d*[1-9])?$")


def made(data_type="trades", rows=3000, **changes) -> bytes:
    of = {"exchange": "binance", "symbol": "BTCUSDT", "day": DAY, "seed": 7} | changes
    return b"".join(day_chunks(Day(data_type=data_type, rows=rows, **of)))


def read(*args, **kwargs) -> list[dict[str, str]]:
    return list(csv.DictReader(gzip.decompress(made(*args, **kwargs)).decode().splitlines()))


@pytest.fixture(scope="module")
def trades():
    """More rows than one block holds."""
    return read(rows=70_000)


@pytest.mark.parametrize("data_type", WRITERS)
def test_same_specification_gives_the_same_bytes_and_a_seed_others(data_type):
    assert made(data_type) == made(data_type)
    assert made(data_type) != made(data_type, seed=8)
    assert made(data_type) != made(data_type, symbol="ETHUSDT")
    assert made(data_type) != made(data_type, day=date(2024, 8, 9))


@pytest.mark.parametrize("data_type", WRITERS)
@pytest.mark.parametrize("rows", [1, 3, 4, 4_097])
def test_every_type_has_its_rows_and_no_odd_field(data_type, rows):
    text = gzip.decompress(made(data_type, rows)).decode()
    assert text.endswith("\n")
    lines = text.splitlines()
    assert len(lines) == rows + 1
    assert {line.count(",") for line in lines} == {lines[0].count(",")}
    found = list(csv.DictReader(lines))
    local = [int(row["local_timestamp"]) for row in found]
    assert local == sorted(local)
    assert local[0] >= START
    assert local[-1] < END
    words = {"exchange", "symbol", "side", "is_snapshot"}
    numbers = {value for row in found for name, value in row.items() if name not in words and value}
    assert not [value for value in numbers if not PLAIN.match(value)]


@pytest.mark.parametrize(
    ("data_type", "header"),
    [
        ("trades", "id,side,price,amount"),
        ("quotes", "ask_amount,ask_price,bid_price,bid_amount"),
        ("liquidations", "id,side,price,amount"),
        ("incremental_book_L2", "is_snapshot,side,price,amount"),
    ],
)
def test_headers_are_the_source_s(data_type, header):
    first = gzip.decompress(made(data_type, 5)).decode().splitlines()[0]
    assert first == f"exchange,symbol,timestamp,local_timestamp,{header}"


def test_header_of_books_is_that_of_a_real_file():
    first = gzip.decompress(made("book_snapshot_5", 5)).decode().splitlines()[0]
    levels = [f"asks[{n}].price,asks[{n}].amount,bids[{n}].price,bids[{n}].amount" for n in range(5)]
    assert first == ",".join(["exchange,symbol,timestamp,local_timestamp", *levels])


def test_trades_have_increasing_ids_that_go_on_over_midnight(trades):
    ids = [int(row["id"]) for row in trades]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    following = read(rows=70_000, day=date(2024, 8, 9))
    assert int(following[0]["id"]) == ids[-1] + 1


def test_price_goes_on_over_midnight(trades):
    following = read(rows=70_000, day=date(2024, 8, 9))
    assert float(following[0]["price"]) == pytest.approx(float(trades[-1]["price"]), rel=2e-3)
    prices = [float(row["price"]) for row in trades]
    assert 30_000 < min(prices) < max(prices) < 120_000
    assert max(prices) / min(prices) > 1.005
    assert max(abs(a - b) for a, b in itertools.pairwise(prices)) < 0.003 * prices[0]


def test_all_types_of_an_instrument_tell_of_the_same_price(trades):
    by_minute = {int(row["timestamp"]) // 60_000_000: float(row["price"]) for row in trades}
    for row in read("book_snapshot_5", rows=500):
        near = by_minute.get(int(row["timestamp"]) // 60_000_000)
        if near and row["asks[0].price"]:
            assert float(row["asks[0].price"]) == pytest.approx(near, rel=5e-3)


def test_rows_cross_midnight_both_ways(trades):
    times = [int(row["timestamp"]) for row in trades]
    assert START - 10_000 < times[0] < START
    assert END <= times[-1] < END + 10_000
    before, after = sum(t < START for t in times), sum(t >= END for t in times)
    assert 1 <= before <= 100
    assert 1 <= after <= 100


def test_times_are_reordered_and_shared(trades):
    pairs = [(int(row["timestamp"]), int(row["local_timestamp"])) for row in trades]
    assert sum(a > b for (a, _), (b, _) in itertools.pairwise(pairs)) > 10
    assert sum(a == b for a, b in itertools.pairwise(pairs)) > len(pairs) / 5
    assert {at % 1000 for at, _ in pairs} == {0}
    delays = [local - at for at, local in pairs]
    assert min(delays) < 0
    assert max(delays) > 200_000
    assert 2_000 < sorted(delays)[len(delays) // 2] < 50_000


def test_a_day_has_a_silence_that_empties_whole_bars(trades):
    local = [int(row["local_timestamp"]) for row in trades]
    gap = max(b - a for a, b in itertools.pairwise(local))
    assert 100_000_000 <= gap < 110_000_000


def test_sides_are_takers_and_rarely_unknown(trades):
    sides = [row["side"] for row in trades]
    assert set(sides) == {"buy", "sell", "unknown"}
    assert sides.count("unknown") < len(sides) / 200


def test_books_lack_levels_from_the_far_end_and_are_sometimes_crossed():
    rows = read("book_snapshot_5", rows=10_000)
    missing = crossed = 0
    for row in rows:
        for side in ("asks", "bids"):
            prices = [row[f"{side}[{n}].price"] for n in range(5)]
            kept = list(itertools.takewhile(bool, prices))
            assert not any(prices[len(kept) :])
            assert [bool(row[f"{side}[{n}].amount"]) for n in range(5)] == [bool(price) for price in prices]
            numbers = [float(price) for price in kept]
            assert numbers == sorted(set(numbers), reverse=side == "bids")
            missing += len(kept) < 5
        best = row["asks[0].price"], row["bids[0].price"]
        crossed += all(best) and float(best[1]) > float(best[0])
    assert 10 < missing < 500
    assert 1 <= crossed < 100


def test_quotes_lack_sides_now_and_then():
    rows = read("quotes", rows=20_000)
    assert any(not row["ask_price"] and not row["ask_amount"] and row["bid_price"] for row in rows)
    assert any(not row["bid_price"] and not row["bid_amount"] and row["ask_price"] for row in rows)


def test_updates_begin_with_a_snapshot_in_one_message():
    rows = read("incremental_book_L2", rows=4000)
    head = list(itertools.takewhile(lambda row: row["is_snapshot"] == "true", rows))
    assert len(head) == 400
    assert len({row["local_timestamp"] for row in head}) == 1
    assert "true" not in {row["is_snapshot"] for row in rows[400:]}
    assert any(row["amount"] == "0" for row in rows)


@pytest.mark.parametrize(
    ("exchange", "symbol"),
    [("deribit", "BTC-PERPETUAL"), ("okex-swap", "DOGE-USDT-SWAP"), ("bybit", "1000SHIBUSDT"), ("upbit", "KRW-XRP")],
)
def test_other_venues_have_positive_prices_and_amounts(exchange, symbol):
    for row in read(rows=2000, exchange=exchange, symbol=symbol):
        assert float(row["price"]) > 0
        assert float(row["amount"]) > 0


def test_day_of_no_rows_is_an_empty_gzip_without_a_header():
    data = made(rows=0)
    assert len(data) == 20
    assert gzip.decompress(data) == b""


def test_served_days_are_the_generator_s_and_kept_in_the_cache(start, fetch, tmp_path):
    spec = {"exchange": "binance", "symbols": ["BTCUSDT"], "days": ["2024-08-08", "2024-08-09"], "rows_per_day": 3000}
    (tmp_path / "spec.json").write_text(json.dumps(spec | {"seed": 7, "data_types": ["trades"]}))
    path = "/v1/binance/trades/2024/08/08/BTCUSDT.csv.gz"
    for _ in range(2):
        server = start(generate=tmp_path / "spec.json", cache=tmp_path / "cache")
        answer = fetch(server.url, path)
        assert answer.body == made()
        assert answer.headers["x-md5"] == f'"{hashlib.md5(answer.body).hexdigest()}"'
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert fetch(server.url, path.replace("08/08/", "08/10/")).json["code"] == 140


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"days": ["2024-08-02", "2024-08-01"]}, "days is"),
        ({"days": ["2024-02-30"]}, "days is"),
        ({"days": []}, "days is"),
        ({"symbols": []}, "symbols is"),
        ({"symbols": "BTCUSDT"}, "symbols is"),
        ({"data_types": ["book_snapshot_7"]}, "cannot generate 'book_snapshot_7'"),
        ({"rows_per_day": -1}, "rows_per_day is -1"),
        ({"rows_per_day": 1.5}, "rows_per_day is 1.5"),
        ({"seed": "x"}, "seed is 'x'"),
        ({"exchange": ""}, "exchange is ''"),
        ({"colour": 1}, "unknown field colour"),
    ],
)
def test_wrong_specifications_are_named(change, words):
    item = {"exchange": "binance", "symbols": ["BTCUSDT"], "days": ["2024-08-01"]} | change
    with pytest.raises(SpecError, match=words):
        read_spec(item)


def test_unreadable_specifications_are_named(tmp_path):
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(SpecError, match="not JSON"):
        read_spec(tmp_path / "broken.json")
    with pytest.raises(SpecError, match="No such file"):
        read_spec(tmp_path / "nothing.json")
    with pytest.raises(SpecError, match="no days"):
        read_spec({"exchange": "binance", "symbols": ["BTCUSDT"]})
    with pytest.raises(SpecError, match="not an object"):
        read_spec(["x"])


def test_server_closes_while_it_generates_a_long_day(start, tmp_path):
    spec = {"exchange": "binance", "symbols": ["BTCUSDT"], "days": ["2024-08-01"], "rows_per_day": 50_000_000}
    server = start(generate=spec, cache=tmp_path / "cache")
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(b"GET /v1/binance/trades/2024/08/01/BTCUSDT.csv.gz HTTP/1.1\r\nHost: x\r\n\r\n")
        pause = threading.Event()
        while not list(tmp_path.glob("cache/*.part")):
            pause.wait(0.01)
        begin = time.monotonic()
        server.close()
        assert time.monotonic() - begin < 20
        assert client.recv(1) == b""
    assert not list((tmp_path / "cache").iterdir())
