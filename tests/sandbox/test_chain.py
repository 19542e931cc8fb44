"""Generated options chains and merged grouped files, read back with the standard library."""

import csv
import gzip
import json
import math
from datetime import UTC, date, datetime

import pytest

from runner.sandbox.chain import HEADER, chain_chunks, members
from runner.sandbox.walk import Day

DAY = date(2024, 8, 8)
START = int(datetime(2024, 8, 8, tzinfo=UTC).timestamp()) * 1_000_000
SPEC = {"exchange": "deribit", "days": ["2024-08-08", "2024-08-09"], "rows_per_day": 600, "seed": 7}
TRADES = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n"
NUMBERS = [name for name in HEADER.split(",") if name not in ("type", "underlying_index")]


def read(body: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(gzip.decompress(body).decode().splitlines()))


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    """More rows than one block holds."""
    day = Day("deribit", "OPTIONS", "options_chain", DAY, 30_000, 7)
    return read(b"".join(chain_chunks(day, members("deribit", DAY, DAY))))


def test_the_header_is_that_of_the_source(rows) -> None:
    assert ",".join(rows[0]) == f"exchange,symbol,timestamp,local_timestamp,{HEADER}"
    assert len(rows) == 30_000


def test_symbols_tell_the_other_columns(rows) -> None:
    for row in rows[::7]:
        name, day, strike, right = row["symbol"].split("-")
        expiry = datetime.strptime(f"{day.title()} +0000", "%d%b%y %z").replace(hour=8)
        assert int(row["expiration"]) == expiry.timestamp() * 1_000_000
        assert float(row["strike_price"]) == float(strike.replace("d", "."))
        assert row["type"] == {"C": "call", "P": "put"}[right]
        assert row["underlying_index"] == f"SYN.{name}-{day}"
    assert {row["symbol"].split("-", 1)[0] for row in rows} == {"BTC", "ETH", "XRP_USDC"}


def test_rows_arrive_in_order_and_expired_options_are_gone(rows) -> None:
    arrivals = [int(row["local_timestamp"]) for row in rows]
    assert arrivals == sorted(arrivals)
    assert all(int(row["timestamp"]) < int(row["expiration"]) for row in rows)
    assert any(int(row["expiration"]) < START + 86_400_000_000 for row in rows)


def test_greeks_are_those_of_the_price_and_volatility_of_the_row(rows) -> None:
    seen = 0
    for row in rows[::11]:
        if not row["delta"] or not row["mark_iv"]:
            continue
        years = max(int(row["expiration"]) - int(row["timestamp"]), 60e6) / (365 * 86_400e6)
        deviation = float(row["mark_iv"]) / 100 * math.sqrt(years)
        d1 = math.log(float(row["underlying_price"]) / float(row["strike_price"])) / deviation + deviation / 2
        up = (1 + math.erf(d1 / math.sqrt(2))) / 2
        # Prices have five decimals: of a cheap underlying that is not much.
        assert float(row["delta"]) == pytest.approx(up - (row["type"] == "put"), abs=0.005)
        seen += 1
    assert seen > 2_000


def test_sides_trades_and_greeks_are_missing_now_and_then(rows) -> None:
    missing = {name: sum(not row[name] for row in rows) / len(rows) for name in NUMBERS}
    assert missing["bid_price"] == missing["bid_amount"] == missing["bid_iv"] == pytest.approx(0.15, abs=0.02)
    assert 0 < missing["delta"] == missing["rho"] < 0.01
    assert 0 < missing["mark_iv"] < 0.01
    assert missing["strike_price"] == missing["expiration"] == missing["mark_price"] == 0
    assert all(math.isfinite(float(row[name])) for row in rows[::13] for name in NUMBERS if row[name])
    assert {float(row["bid_iv"]) == 0 for row in rows if row["bid_iv"]} == {True, False}


def test_the_file_is_served_and_the_catalogue_lists_the_options_to_their_expiry(start, fetch, tmp_path) -> None:
    spec = {**SPEC, "symbols": ["OPTIONS", "BTC-PERPETUAL"], "data_types": ["options_chain", "liquidations", "trades"]}
    server = start(generate=spec, cache=tmp_path / "cache")
    datasets = fetch(server.url, "/v1/exchanges/deribit", key=None).json["datasets"]
    listed = {item["id"]: item for item in datasets["symbols"]}
    assert listed["OPTIONS"]["dataTypes"] == ["liquidations", "options_chain", "trades"]
    assert listed["BTC-PERPETUAL"]["dataTypes"] == ["liquidations", "trades"]
    options = {name: item for name, item in listed.items() if name.endswith(("-C", "-P"))}
    assert {(item["type"], *item["dataTypes"]) for item in options.values()} == {("option", "trades")}
    to = {name.split("-")[1]: item["availableTo"][:10] for name, item in options.items()}
    assert (to["8AUG24"], to["9AUG24"], to["30AUG24"]) == ("2024-08-09", "2024-08-10", "2024-08-10")
    rows = read(fetch(server.url, "/v1/deribit/options_chain/2024/08/08/OPTIONS.csv.gz").body)
    assert {row["symbol"] for row in rows} < set(options)
    assert fetch(server.url, "/v1/deribit/options_chain/2024/08/08/BTC-PERPETUAL.csv.gz").json["code"] == 300
    again = start(generate=spec, cache=tmp_path / "other")
    path = "/v1/deribit/options_chain/2024/08/08/OPTIONS.csv.gz"
    assert fetch(server.url, path).body == fetch(again.url, path).body


def test_named_options_are_those_of_the_chain_and_its_grouped_files(start, fetch, tmp_path) -> None:
    options = ["BTC-9AUG24-60000-C", "SOL_USDC-30AUG24-150-P"]
    spec = {**SPEC, "symbols": options, "data_types": ["options_chain", "liquidations"]}
    server = start(generate=spec, cache=tmp_path / "cache")
    chain = read(fetch(server.url, "/v1/deribit/options_chain/2024/08/08/OPTIONS.csv.gz").body)
    assert {row["symbol"] for row in chain} == set(options)
    whole = read(fetch(server.url, "/v1/deribit/liquidations/2024/08/08/OPTIONS.csv.gz").body)
    single = [read(fetch(server.url, f"/v1/deribit/liquidations/2024/08/08/{name}.csv.gz").body) for name in options]
    assert whole == sorted((row for each in single for row in each), key=lambda row: int(row["local_timestamp"]))


def test_a_grouped_file_that_the_directory_lacks_is_merged_from_its_members(start, put, tmp_path, fetch) -> None:
    at = {"BTC-PERPETUAL": (1, 4, 4), "ETH-PERPETUAL": (2, 4), "BTC-27SEP24": (3,)}
    for symbol, times in at.items():
        text = TRADES + "".join(f"deribit,{symbol},{n},{START + n},{n},buy,1,1\n" for n in times)
        put(f"deribit/trades/2024/08/08/{symbol}", text)
    symbols = [("BTC-PERPETUAL", "perpetual"), ("ETH-PERPETUAL", "perpetual"), ("PERPETUALS", "perpetual")]
    listed = [
        {"id": name, "type": kind, "dataTypes": ["trades"], "availableSince": "2024-08-01T00:00:00.000Z"}
        for name, kind in symbols
    ]
    document = {"id": "deribit", "datasets": {"exportedUntil": "2024-08-10T00:00:00.000Z", "symbols": listed}}
    (tmp_path / "data/exchanges").mkdir()
    (tmp_path / "data/exchanges/deribit.json").write_text(json.dumps(document))
    server = start(data=tmp_path / "data", cache=tmp_path / "cache")
    rows = read(fetch(server.url, "/v1/deribit/trades/2024/08/08/PERPETUALS.csv.gz").body)
    assert [(row["symbol"][:3], int(row["local_timestamp"]) - START) for row in rows] == [
        *(("BTC", 1), ("ETH", 2)),
        *(("BTC", 4), ("BTC", 4), ("ETH", 4)),
    ]


def test_a_day_on_which_every_option_has_expired_is_empty() -> None:
    day = Day("deribit", "OPTIONS", "options_chain", DAY, 100, 7)
    assert gzip.decompress(b"".join(chain_chunks(day, ["BTC-2AUG24-60000-C"]))) == b""
