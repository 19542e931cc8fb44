import json
import re
import string
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from runner.errors import NotFoundError
from runner.layout import instrument_of, name_of
from runner.market.names import GROUPS
from runner.market.symbols import (
    DEFAULT_VENUES,
    VENUES,
    Availability,
    Instrument,
    Unparsed,
    exchange_of,
    is_instrument,
    parse_symbol,
    resolve_type,
    resolve_venue,
    selects,
    tardis_symbol,
    unmatched,
    venue_of,
)

SINCE = Availability(datetime(2019, 3, 30, tzinfo=UTC), None, ("trades",))
DAY = date(2024, 8, 8)


def parse(exchange, symbol, symbol_type, day=DAY, availability=SINCE):
    return parse_symbol(exchange, symbol, symbol_type, availability=availability, day=day)


def key_of(exchange, symbol, symbol_type):
    found = parse(exchange, symbol, symbol_type)
    assert isinstance(found, Instrument), found
    return found.instrument_key


# exchange, symbol, type, key, inverse, settle asset, amount unit
KEYS = """
binance           BTCUSDT                  spot       BINANCE:SPOT_PAIR:BTC-USDT                      no  -     base
binance           ETHBTC                   spot       BINANCE:SPOT_PAIR:ETH-BTC                       no  -     base
binance           BTCFDUSD                 spot       BINANCE:SPOT_PAIR:BTC-FDUSD                     no  -     base
binance           BTCTUSD                  spot       BINANCE:SPOT_PAIR:BTC-TUSD                      no  -     base
binance           TUSDUSDT                 spot       BINANCE:SPOT_PAIR:TUSD-USDT                     no  -     base
binance           TUSDT                    spot       BINANCE:SPOT_PAIR:T-USDT                        no  -     base
binance           USDTBRL                  spot       BINANCE:SPOT_PAIR:USDT-BRL                      no  -     base
binance           USDTTRY                  spot       BINANCE:SPOT_PAIR:USDT-TRY                      no  -     base
binance           USDCUSDT                 spot       BINANCE:SPOT_PAIR:USDC-USDT                     no  -     base
binance           WBTCBTC                  spot       BINANCE:SPOT_PAIR:WBTC-BTC                      no  -     base
binance           WBETHETH                 spot       BINANCE:SPOT_PAIR:WBETH-ETH                     no  -     base
binance           LUNAEUR                  spot       BINANCE:SPOT_PAIR:LUNA-EUR                      no  -     base
binance           ADAEUR                   spot       BINANCE:SPOT_PAIR:ADA-EUR                       no  -     base
binance           BTCAEUR                  spot       BINANCE:SPOT_PAIR:BTC-AEUR                      no  -     base
binance           BTCU                     spot       BINANCE:SPOT_PAIR:BTC-U                         no  -     base
binance           XRPRLUSD                 spot       BINANCE:SPOT_PAIR:XRP-RLUSD                     no  -     base
binance           EURIUSDT                 spot       BINANCE:SPOT_PAIR:EURI-USDT                     no  -     base
binance           BTCEURI                  spot       BINANCE:SPOT_PAIR:BTC-EURI                      no  -     base
binance           1INCHUSDT                spot       BINANCE:SPOT_PAIR:1INCH-USDT                    no  -     base
binance           1000SATSUSDT             spot       BINANCE:SPOT_PAIR:1000SATS-USDT                 no  -     base
binance           JUPUSDT                  spot       BINANCE:SPOT_PAIR:JUP-USDT                      no  -     base
binance           SYRUPUSDT                spot       BINANCE:SPOT_PAIR:SYRUP-USDT                    no  -     base
binance           BTCUPUSDT                spot       BINANCE:SPOT_PAIR:BTCUP-USDT                    no  -     base
binance           币安人生USDT             spot       BINANCE:SPOT_PAIR:币安人生-USDT  no  -  base
binance-futures   BTCUSDT                  perpetual  BINANCE-FUTURES:PERPETUAL:BTC-USDT              no  USDT  base
binance-futures   ETHBTC                   perpetual  BINANCE-FUTURES:PERPETUAL:ETH-BTC               no  BTC   base
binance-futures   BTCUSDC                  perpetual  BINANCE-FUTURES:PERPETUAL:BTC-USDC              no  USDC  base
binance-futures   1000SHIBUSDT             perpetual  BINANCE-FUTURES:PERPETUAL:1000SHIB-USDT         no  USDT  base
binance-futures   BTCUSDT_231229           future     BINANCE-FUTURES:FUTURE:BTC-USDT-231229          no  USDT  base
deribit           BTC-PERPETUAL            perpetual  DERIBIT:PERPETUAL:BTC-USD                       yes BTC   quote
deribit           ETH-PERPETUAL            perpetual  DERIBIT:PERPETUAL:ETH-USD                       yes ETH   quote
deribit           BTC_USDC-PERPETUAL       perpetual  DERIBIT:PERPETUAL:BTC-USDC                      no  USDC  base
deribit           BTC_USDC                 spot       DERIBIT:SPOT_PAIR:BTC-USDC                      no  -     base
deribit           STETH_ETH                spot       DERIBIT:SPOT_PAIR:STETH-ETH                     no  -     base
deribit           BTC-29DEC23              future     DERIBIT:FUTURE:BTC-USD-231229                   yes BTC   quote
deribit           BTC-2JUN23               future     DERIBIT:FUTURE:BTC-USD-230602                   yes BTC   quote
deribit           BTCDVOL_USDC-27DEC23     future     DERIBIT:FUTURE:BTCDVOL-USDC-231227              no  USDC  base
deribit           BTC-2JUN23-1850-P        option     DERIBIT:OPTION:BTC-USD-230602-1850-PUT          no  BTC   base
deribit           BTC-25DEC24-50000-C      option     DERIBIT:OPTION:BTC-USD-241225-50000-CALL        no  BTC   base
deribit           XRP_USDC-29DEC23-0d5-C   option     DERIBIT:OPTION:XRP-USDC-231229-0.5-CALL         no  USDC  base
deribit           XRP_USDC-29DEC23-0d4875-P option    DERIBIT:OPTION:XRP-USDC-231229-0.4875-PUT       no  USDC  base
deribit           SOL_USDC-30JUN23-20-C    option     DERIBIT:OPTION:SOL-USDC-230630-20-CALL          no  USDC  base
bybit             BTCUSDT                  perpetual  BYBIT:PERPETUAL:BTC-USDT                        no  USDT  base
bybit             BTCUSD                   perpetual  BYBIT:PERPETUAL:BTC-USD                         yes BTC   quote
bybit             DOTUSD                   perpetual  BYBIT:PERPETUAL:DOT-USD                         yes DOT   quote
bybit             BTCPERP                  perpetual  BYBIT:PERPETUAL:BTC-USDC                        no  USDC  base
bybit             PERPUSDT                 perpetual  BYBIT:PERPETUAL:PERP-USDT                       no  USDT  base
bybit             SHIB1000USDT             perpetual  BYBIT:PERPETUAL:SHIB1000-USDT                   no  USDT  base
bybit             1000PEPEPERP             perpetual  BYBIT:PERPETUAL:1000PEPE-USDC                   no  USDC  base
bybit             BTC-29DEC23              future     BYBIT:FUTURE:BTC-USDC-231229                    no  USDC  base
bybit             BTCUSDT-29DEC23          future     BYBIT:FUTURE:BTC-USDT-231229                    no  USDT  base
bybit             BTCUSDM25                future     BYBIT:FUTURE:BTC-USD-250627                     yes BTC   quote
bybit             BTCUSDZ21                future     BYBIT:FUTURE:BTC-USD-211231                     yes BTC   quote
bybit             ETHUSDH22                future     BYBIT:FUTURE:ETH-USD-220325                     yes ETH   quote
bybit             ETHUSDG24                future     BYBIT:FUTURE:ETH-USD-240223                     yes ETH   quote
bybit-spot        BTCUSDT                  spot       BYBIT-SPOT:SPOT_PAIR:BTC-USDT                   no  -     base
bybit-spot        BTCUSDE                  spot       BYBIT-SPOT:SPOT_PAIR:BTC-USDE                   no  -     base
bybit-spot        BTC3LUSDT                spot       BYBIT-SPOT:SPOT_PAIR:BTC3L-USDT                 no  -     base
okex              BTC-USDT                 spot       OKX:SPOT_PAIR:BTC-USDT                          no  -     base
okex              BTC-USD                  spot       OKX:SPOT_PAIR:BTC-USD                           no  -     base
okex-futures      BTC-USDT-231229          future     OKX-FUTURES:FUTURE:BTC-USDT-231229              no  USDT  contract
okex-futures      BTC-USD-240105           future     OKX-FUTURES:FUTURE:BTC-USD-240105               yes BTC   contract
okex-futures      BTC-USD_UM_XPERP-310404  future     OKX-FUTURES:FUTURE:BTC-USD_UM_XPERP-310404      no  USD   contract
okex-swap         BTC-USDT-SWAP            perpetual  OKX-SWAP:PERPETUAL:BTC-USDT                     no  USDT  contract
okex-swap         BTC-USDC-SWAP            perpetual  OKX-SWAP:PERPETUAL:BTC-USDC                     no  USDC  contract
okex-swap         BTC-USD-SWAP             perpetual  OKX-SWAP:PERPETUAL:BTC-USD                      yes BTC   contract
upbit             KRW-BTC                  spot       UPBIT:SPOT_PAIR:BTC-KRW                         no  -     base
upbit             USDT-ETH                 spot       UPBIT:SPOT_PAIR:ETH-USDT                        no  -     base
binance-delivery  BTCUSD_PERP              perpetual  BINANCE-DELIVERY:PERPETUAL:BTC-USD              yes BTC   contract
binance-delivery  DOTUSD_PERP              perpetual  BINANCE-DELIVERY:PERPETUAL:DOT-USD              yes DOT   contract
binance-delivery  BTCUSD_231229            future     BINANCE-DELIVERY:FUTURE:BTC-USD-231229          yes BTC   contract
"""
ROWS = [line.split() for line in KEYS.strip().splitlines()]


@pytest.mark.parametrize("row", ROWS, ids=[f"{row[0]}-{row[1]}" for row in ROWS])
def test_symbol_becomes_the_key_written_by_hand_and_back(row):
    exchange, symbol, symbol_type, key, inverse, settle, unit = row
    found = parse(exchange, symbol, symbol_type)
    assert isinstance(found, Instrument), found
    assert found.instrument_key == key
    assert (found.venue, found.instrument_type) == tuple(key.split(":")[:2])
    assert found.inverse is (inverse == "yes")
    assert found.settle_asset == (None if settle == "-" else settle)
    assert found.amount_unit == unit
    assert tardis_symbol(key) == (exchange, symbol)


UNREADABLE = [
    ("binance", "BTCQQQ", "spot", "no quote asset"),
    ("binance", "USDT", "spot", "no quote asset"),
    ("binance", "btcusdt", "spot", "no quote asset"),
    ("binance", "btcUSDT", "spot", "upper-case"),
    ("binance", "", "spot", "no quote asset"),
    ("binance", "BTC/USDT", "spot", "upper-case"),
    ("binance", "../../USDT", "spot", "upper-case"),
    ("binance", "%2FUSDT", "spot", "upper-case"),
    ("binance", "A:BUSDT", "spot", "upper-case"),
    ("binance", "A-BUSDT", "spot", "upper-case"),
    ("binance", "A\x00USDT", "spot", "upper-case"),
    ("binance", "A USDT", "spot", "upper-case"),
    ("binance", "\uff22\uff34\uff23USDT", "spot", "upper-case"),
    ("binance", "ßUSDT", "spot", "upper-case"),
    ("binance", "BTCUSDT", "perpetual", "binance has no PERPETUAL"),
    ("binance", "BTCUSDT", "prediction", "type 'prediction'"),
    ("kraken", "BTCUSDT", "spot", "venue 'kraken'"),
    ("binance-futures", "BTCUSDT_231332", "future", "not a date"),
    ("binance-futures", "BTCUSDT_2312", "future", "not a date"),
    ("binance-futures", "BTCUSDT_231229_1", "future", "BTCUSDT_231229"),
    ("binance-futures", "BTCUSDT_٢٣١٢٢٩", "future", "not a date"),
    ("binance-delivery", "BTCUSD", "perpetual", "_PERP"),
    ("deribit", "BTC-02JUN23", "future", "not a date"),
    ("deribit", "BTC-31JUN23", "future", "not a date"),
    ("deribit", "BTC-2JUX23", "future", "not a date"),
    ("deribit", "BTC_USD-PERPETUAL", "perpetual", "'BTC-PERPETUAL'"),
    ("deribit", "BTC_-PERPETUAL", "perpetual", "upper-case"),
    ("deribit", "-PERPETUAL", "perpetual", "upper-case"),
    ("deribit", "BTC-2JUN23-01850-P", "option", "strike"),
    ("deribit", "XRP_USDC-2JUN23-0.5-P", "option", "'XRP_USDC-2JUN23-0d5-P'"),
    ("deribit", "XRP_USDC-2JUN23-0d5d5-P", "option", "strike"),
    ("deribit", "BTC-2JUN23--1-P", "option", "BTC-2JUN23-1850-P"),
    ("deribit", "BTC-2JUN23-1850-X", "option", "neither C nor P"),
    ("deribit", "BTC-PERPETUAL", "spot", "BTC_USDC"),
    ("bybit", "BTCUSD1231", "future", "BTCUSDM25"),
    ("bybit", "BTCUSDA25", "future", "BTCUSDM25"),
    ("bybit", "BTCUSDC", "perpetual", "no quote asset"),
    ("bybit", "PERP", "perpetual", "upper-case"),
    ("okex", "BTC-USDT-SWAP", "spot", "BTC-USDT"),
    ("okex-swap", "BTC-USDT", "perpetual", "-SWAP"),
    ("okex-futures", "BTC-USDT-20231229", "future", "not a date"),
    ("upbit", "BTCKRW", "spot", "KRW-BTC"),
]


@pytest.mark.parametrize(("exchange", "symbol", "symbol_type", "reason"), UNREADABLE)
def test_symbol_that_cannot_be_read_is_reported_with_its_reason(exchange, symbol, symbol_type, reason):
    found = parse(exchange, symbol, symbol_type)
    assert isinstance(found, Unparsed)
    assert (found.exchange, found.symbol, found.symbol_type) == (exchange, symbol, symbol_type)
    assert reason in found.reason


@pytest.mark.parametrize(
    "key",
    [
        "",
        "BINANCE",
        "BINANCE:SPOT_PAIR",
        "BINANCE:SPOT_PAIR:BTCUSDT",
        "BINANCE:SPOT_PAIR:BTC-QQQ",
        "BINANCE:PERPETUAL:BTC-USDT",
        "BINANCE:EQUITY:BTC-USDT",
        "binance:SPOT_PAIR:BTC-USDT",
        "BINANCE:SPOT_PAIR:LUN-AEUR",
        "KRAKEN:SPOT_PAIR:BTC-USD",
        "DERIBIT:OPTION:OPTIONS",
        "DERIBIT:OPTION:BTC-USD-230602-1850-CALLS",
        "DERIBIT:OPTION:BTC-USD-230602-1850-",
        "DERIBIT:FUTURE:BTC-USD-231332",
        "BYBIT:FUTURE:BTC-USD-250626",
        "BYBIT:PERPETUAL:BTC-QQQ",
    ],
)
def test_text_that_is_no_key_of_any_symbol_is_refused(key):
    with pytest.raises(NotFoundError):
        tardis_symbol(key)


def test_expiry_comes_from_the_symbol_at_eight_utc_and_never_from_availability():
    late = Availability(datetime(2023, 1, 5, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC))
    for exchange, symbol in [
        ("deribit", "BTC-29DEC23"),
        ("binance-futures", "BTCUSDT_231229"),
        ("binance-delivery", "BTCUSD_231229"),
        ("okex-futures", "BTC-USDT-231229"),
        ("bybit", "BTC-29DEC23"),
        ("bybit", "BTCUSDZ23"),
    ]:
        found = parse(exchange, symbol, "future", availability=late)
        assert found.expiry == datetime(2023, 12, 29, 8, tzinfo=UTC)
        assert found.listed_to == date(2023, 12, 30)


@pytest.mark.parametrize(
    ("since", "to", "first", "end"),
    [
        (datetime(2023, 5, 1, tzinfo=UTC), None, date(2023, 5, 1), None),
        (datetime(2023, 5, 1, 23, 59, 59, tzinfo=UTC), None, date(2023, 5, 1), None),
        (datetime(2023, 5, 1, tzinfo=UTC), datetime(2023, 5, 3, tzinfo=UTC), date(2023, 5, 1), date(2023, 5, 3)),
        (
            datetime(2023, 5, 1, tzinfo=UTC),
            datetime(2023, 5, 3, 0, 0, 0, 1, tzinfo=UTC),
            date(2023, 5, 1),
            date(2023, 5, 4),
        ),
    ],
)
def test_listing_is_whole_days_that_the_availability_touches(since, to, first, end):
    found = parse("binance", "BTCUSDT", "spot", availability=Availability(since, to))
    assert (found.listed_from, found.listed_to) == (first, end)


def test_a_contract_delisted_before_its_expiry_ends_when_delisted():
    early = Availability(datetime(2023, 1, 5, tzinfo=UTC), datetime(2023, 6, 1, 4, tzinfo=UTC))
    assert parse("deribit", "BTC-29DEC23", "future", availability=early).listed_to == date(2023, 6, 2)


@pytest.mark.parametrize(
    ("exchange", "symbol", "symbol_type", "size"),
    [
        ("okex-swap", "BTC-USDT-SWAP", "perpetual", 0.01),
        ("okex-swap", "ETH-USDT-SWAP", "perpetual", 0.1),
        ("okex-swap", "BTC-USD-SWAP", "perpetual", 100),
        ("okex-swap", "ETH-USD-SWAP", "perpetual", 10),
        ("okex-futures", "BTC-USDT-241227", "future", 0.01),
        ("okex-futures", "ETH-USD-241227", "future", 10),
        ("okex-swap", "OBSCURE-USDT-SWAP", "perpetual", None),
        ("binance-delivery", "BTCUSD_PERP", "perpetual", 100),
        ("binance-delivery", "ETHUSD_241227", "future", 10),
        ("deribit", "BTC-PERPETUAL", "perpetual", None),
        ("binance", "BTCUSDT", "spot", None),
    ],
)
def test_contract_size_is_base_per_linear_and_quote_per_inverse_contract(exchange, symbol, symbol_type, size):
    assert parse(exchange, symbol, symbol_type).contract_size == size


def test_contract_size_is_unknown_on_days_before_its_record():
    assert parse("okex-swap", "BTC-USDT-SWAP", "perpetual", day=date(2020, 6, 1)).contract_size is None
    assert parse("okex-swap", "BTC-USD-SWAP", "perpetual", day=date(2019, 6, 1)).contract_size == 100


@pytest.mark.parametrize(
    ("exchange", "symbol", "symbol_type", "multiplier", "base"),
    [
        ("binance-futures", "1000SHIBUSDT", "perpetual", 1000, "1000SHIB"),
        ("binance-futures", "1000000MOGUSDT", "perpetual", 1_000_000, "1000000MOG"),
        ("bybit", "10000LADYSUSDT", "perpetual", 10_000, "10000LADYS"),
        ("bybit", "SHIB1000USDT", "perpetual", 1000, "SHIB1000"),
        ("binance", "1MBABYDOGEUSDT", "spot", 1_000_000, "1MBABYDOGE"),
        ("binance", "1INCHUSDT", "spot", 1, "1INCH"),
        ("binance", "100XUSDT", "spot", 1, "100X"),
        ("binance", "1MILUSDT", "spot", 1, "1MIL"),
        ("binance-futures", "1000XUSDT", "perpetual", 1000, "1000X"),
        ("binance", "BTCUSDT", "spot", 1, "BTC"),
    ],
)
def test_multiplier_stays_in_the_name_and_has_its_column(exchange, symbol, symbol_type, multiplier, base):
    found = parse(exchange, symbol, symbol_type)
    assert (found.multiplier, found.base_asset) == (multiplier, base)


@pytest.mark.parametrize(
    ("exchange", "symbol", "asset_class"),
    [
        ("binance", "BTCUPUSDT", "leveraged_token"),
        ("binance", "ETHBULLUSDT", "leveraged_token"),
        ("binance", "JUPUSDT", "crypto"),
        ("binance", "SYRUPUSDT", "crypto"),
        ("bybit-spot", "BTC3LUSDT", "leveraged_token"),
        ("okex", "JUP-USDT", "crypto"),
    ],
)
def test_leveraged_tokens_are_known_by_list(exchange, symbol, asset_class):
    assert parse(exchange, symbol, "spot").asset_class == asset_class


@pytest.mark.parametrize(
    ("exchange", "symbol", "symbol_type", "ccxt"),
    [
        ("binance", "BTCUSDT", "spot", ("binance", "BTC/USDT")),
        ("binance-futures", "BTCUSDT_231229", "future", ("binanceusdm", "BTC/USDT:USDT-231229")),
        ("deribit", "BTC-PERPETUAL", "perpetual", ("deribit", "BTC/USD:BTC")),
        ("deribit", "BTC-25DEC24-50000-C", "option", ("deribit", "BTC/USD:BTC-241225-50000-C")),
        ("okex-swap", "BTC-USDT-SWAP", "perpetual", ("okx", "BTC/USDT:USDT")),
    ],
)
def test_ccxt_names_are_the_unified_ones(exchange, symbol, symbol_type, ccxt):
    found = parse(exchange, symbol, symbol_type)
    assert (found.ccxt_exchange, found.ccxt_symbol) == ccxt


def test_option_has_strike_side_and_underlying():
    found = parse("deribit", "XRP_USDC-29DEC23-0d5-C", "option")
    assert (found.strike, found.option_type, found.contract_type) == (0.5, "call", "call_option")
    assert (found.underlying, found.base_asset, found.quote_asset) == ("XRP-USDC", "XRP", "USDC")


def test_source_carries_what_a_task_must_know():
    source = parse("okex-futures", "BTC-USD-240927", "future").source
    assert (source.exchange, source.symbol, source.inverse) == ("okex-futures", "BTC-USD-240927", True)
    assert (source.amount_unit, source.contract_size) == ("contract", 100)
    assert (source.listed_from, source.listed_to) == (date(2019, 3, 30), date(2024, 9, 28))


def test_combos_and_grouped_symbols_are_not_instruments():
    assert not is_instrument("BTC-CS-29DEC23-40000_45000", "combo")
    for grouped in ("SPOT", "PERPETUALS", "FUTURES", "OPTIONS", "COMBOS"):
        assert not is_instrument(grouped, "option")
    assert is_instrument("BTCUSDT", "spot")


def test_ten_venues_have_two_names_each_and_eight_are_default():
    expected = {
        "binance": "BINANCE",
        "binance-futures": "BINANCE-FUTURES",
        "deribit": "DERIBIT",
        "bybit": "BYBIT",
        "bybit-spot": "BYBIT-SPOT",
        "okex": "OKX",
        "okex-futures": "OKX-FUTURES",
        "okex-swap": "OKX-SWAP",
        "upbit": "UPBIT",
        "binance-delivery": "BINANCE-DELIVERY",
    }
    assert {v.exchange: v.venue for v in VENUES} == expected
    assert list(DEFAULT_VENUES) == list(expected.values())[:8]
    for exchange, venue in expected.items():
        assert (venue_of(exchange), exchange_of(venue)) == (venue, exchange)
        assert {resolve_venue(text) for text in (exchange, exchange.title(), venue, venue.lower())} == {venue}
    assert resolve_venue("bitmex") is None
    with pytest.raises(NotFoundError, match="'bitmex'"):
        venue_of("bitmex")


def test_types_resolve_in_any_case_with_the_alias_perp():
    assert resolve_type("PERP") == resolve_type("Perpetual") == "PERPETUAL"
    assert resolve_type("spot_pair") == resolve_type("spot") == "SPOT_PAIR"
    assert resolve_type("swap") is None


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("OKX-SWAP:PERPETUAL:BTC-USDT", True),
        ("okx-swap:perpetual:btc-usdt", True),
        ("okx-swap:perp:btc-usdt", True),
        ("okex-swap:PERP:BTC-*", True),
        ("*:PERP:*", True),
        ("OKX-SWAP:*:BTC-*", True),
        ("okex-*:*:btc-usdt", True),
        ("BTC-USDT-SWAP", True),
        ("btc-usdt-swap", True),
        ("BTC-USDT", True),
        ("btc-*", True),
        ("okex-swap:BTC-USDT-SWAP", True),
        ("okx-swap", True),
        ("OKEX-SWAP", True),
        ("*", True),
        ("OKX:*:BTC-*", False),
        ("okex", False),
        ("OKX-SWAP:FUTURE:*", False),
        ("BTC", False),
        ("TC-USDT", False),
        ("ETH-*", False),
        ("", False),
        ("PERP", False),
    ],
)
def test_selector_means_the_instrument_or_not(pattern, expected):
    assert selects(pattern, parse("okex-swap", "BTC-USDT-SWAP", "perpetual")) is expected


def test_selector_of_a_delivery_perpetual_by_its_tardis_symbol():
    found = parse("binance-delivery", "BTCUSD_PERP", "perpetual")
    assert selects("btcusd_perp", found)
    assert selects("binance-delivery:btcusd_perp", found)


def test_symbols_import_no_arrow_numpy_or_pydantic():
    code = "import sys, runner.market.symbols; print([m for m in ('pyarrow','numpy','pydantic') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


# Symbols as the exchanges would write them, from parts: the grammar is written down here a second time.

ASSETS = st.text(string.ascii_uppercase + string.digits, min_size=1, max_size=8)
DAYS = st.dates(date(2019, 1, 1), date(2035, 12, 31))
STRIKES = st.one_of(
    st.integers(1, 500_000).map(str),
    st.tuples(st.integers(0, 99), st.text(string.digits, min_size=1, max_size=4)).map(lambda t: f"{t[0]}d{t[1]}"),
)
MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]


def dmy(day):
    return f"{day.day}{MONTHS[day.month - 1]}{day.year % 100:02d}"


def ymd(day):
    return f"{day.year % 100:02d}{day.month:02d}{day.day:02d}"


def of(exchange, symbol_type, build, *parts):
    return st.tuples(*parts).map(lambda p: (exchange, symbol_type, build(*p)))


SYMBOLS = st.one_of(
    of("binance", "spot", "{}{}".format, ASSETS, st.sampled_from(["USDT", "BTC", "FDUSD", "TUSD", "BRL", "EUR"])),
    of("binance-futures", "perpetual", "{}{}".format, ASSETS, st.sampled_from(["USDT", "USDC"])),
    of("binance-futures", "future", lambda b, d: f"{b}USDT_{ymd(d)}", ASSETS, DAYS),
    of("binance-delivery", "perpetual", "{}USD_PERP".format, ASSETS),
    of("binance-delivery", "future", lambda b, d: f"{b}USD_{ymd(d)}", ASSETS, DAYS),
    of("deribit", "spot", "{}_{}".format, ASSETS, ASSETS),
    of("deribit", "perpetual", "{}-PERPETUAL".format, ASSETS),
    of("deribit", "perpetual", "{}_USDC-PERPETUAL".format, ASSETS),
    of("deribit", "future", lambda b, d: f"{b}-{dmy(d)}", ASSETS, DAYS),
    of("deribit", "option", lambda b, d, s, r: f"{b}-{dmy(d)}-{s}-{r}", ASSETS, DAYS, STRIKES, st.sampled_from("CP")),
    of(
        "deribit",
        "option",
        lambda b, d, s, r: f"{b}_USDC-{dmy(d)}-{s}-{r}",
        ASSETS,
        DAYS,
        STRIKES,
        st.sampled_from("CP"),
    ),
    of("bybit", "perpetual", "{}{}".format, ASSETS, st.sampled_from(["USDT", "USD", "PERP"])),
    of("bybit", "future", lambda b, d: f"{b}-{dmy(d)}", ASSETS, DAYS),
    of("bybit", "future", lambda b, d: f"{b}USDT-{dmy(d)}", ASSETS, DAYS),
    of("bybit", "future", "{}USD{}{}".format, ASSETS, st.sampled_from("FGHJKMNQUVXZ"), st.integers(20, 35)),
    of("bybit-spot", "spot", "{}{}".format, ASSETS, st.sampled_from(["USDT", "USDC", "BTC"])),
    of("okex", "spot", "{}-{}".format, ASSETS, ASSETS),
    of("okex-swap", "perpetual", "{}-{}-SWAP".format, ASSETS, st.sampled_from(["USDT", "USD", "USDC"])),
    of("okex-futures", "future", lambda b, q, d: f"{b}-{q}-{ymd(d)}", ASSETS, ASSETS, DAYS),
    of("upbit", "spot", "{}-{}".format, ASSETS, ASSETS),
)


@given(SYMBOLS)
def test_every_symbol_written_like_its_exchange_has_a_key_that_leads_back(case):
    exchange, symbol_type, symbol = case
    found = parse(exchange, symbol, symbol_type)
    assert isinstance(found, Instrument), found
    assert re.fullmatch(r"[A-Z-]+:[A-Z_]+:[^:/]+", found.instrument_key)
    assert tardis_symbol(found.instrument_key) == (exchange, symbol)


@given(st.lists(SYMBOLS, min_size=2, max_size=40, unique=True))
def test_no_two_symbols_share_a_key(cases):
    keys = [key_of(exchange, symbol, symbol_type) for exchange, symbol_type, symbol in cases]
    assert len(set(keys)) == len(keys)


@given(
    st.sampled_from([v.exchange for v in VENUES]),
    st.text(max_size=20),
    st.sampled_from(["spot", "perpetual", "future", "option", "combo", "", "prediction"]),
)
def test_any_text_is_a_key_that_leads_back_or_a_reason(exchange, symbol, symbol_type):
    found = parse(exchange, symbol, symbol_type)
    if isinstance(found, Unparsed):
        assert found.reason
    else:
        assert tardis_symbol(found.instrument_key) == (exchange, symbol)


@given(SYMBOLS, SYMBOLS)
def test_a_key_as_selector_means_its_instrument_alone(one, other):
    first, second = parse(one[0], one[2], one[1]), parse(other[0], other[2], other[1])
    assume(first.instrument_key != second.instrument_key)
    assert selects(first.instrument_key, first)
    assert not selects(first.instrument_key, second)


# Symbols nobody would expect: real pieces in any order, so that quotes, dates, multipliers and marks meet everywhere.

PIECES = """
BTC ETH USD USDT USDC FDUSD TUSD EUR BRL U T 1 1M 10 1000 1000000 SHIB 1INCH JUP PERP PERPETUAL SWAP OPTIONS FUTURES
SPOT - -- _ . / : 0d5 0d 50000 C P 29DEC23 2JUN23 31FEB24 231229 231301 M25 Z21 UM XPERP UP DOWN 3L btc ß 币 é
"""
FORMS = {
    ("binance", "spot"): ("{a}{q}", "{a}{b}"),
    ("binance-futures", "perpetual"): ("{a}{q}", "{a}{b}"),
    ("binance-futures", "future"): ("{a}{q}_{d}", "{a}_{b}"),
    ("binance-delivery", "perpetual"): ("{a}USD_PERP", "{a}_{b}"),
    ("binance-delivery", "future"): ("{a}USD_{d}", "{a}_{b}"),
    ("deribit", "spot"): ("{a}_{b}", "{a}-{b}"),
    ("deribit", "perpetual"): ("{a}-PERPETUAL", "{a}_{q}-PERPETUAL", "{a}-{b}"),
    ("deribit", "future"): ("{a}-{e}", "{a}_{q}-{e}", "{a}-{b}"),
    ("deribit", "option"): ("{a}-{e}-{n}-C", "{a}-{e}-{n}-P", "{a}_{q}-{e}-{n}-C", "{a}-{e}-{b}-C"),
    ("bybit", "perpetual"): ("{a}{q}", "{a}PERP", "{a}{b}"),
    ("bybit", "future"): ("{a}-{e}", "{a}{q}-{e}", "{a}USD{m}", "{a}-{b}"),
    ("bybit-spot", "spot"): ("{a}{q}", "{a}{b}"),
    ("okex", "spot"): ("{a}-{q}", "{a}-{b}"),
    ("okex-futures", "future"): ("{a}-{q}-{d}", "{a}-USD_UM_XPERP-{d}", "{a}-{b}"),
    ("okex-swap", "perpetual"): ("{a}-{q}-SWAP", "{a}-{b}-SWAP", "{a}-{b}"),
    ("upbit", "spot"): ("{q}-{a}", "{a}-{b}"),
}
ANY = st.lists(st.sampled_from(PIECES.split()), min_size=1, max_size=2).map("".join)
SLOTS = st.fixed_dictionaries(
    {
        "a": ANY,
        "b": ANY,
        "q": st.sampled_from(["USDT", "USD", "USDC", "BTC", "EUR", "TUSD", "U"]),
        "d": st.sampled_from(["231229", "240105", "231301", "23122"]),
        "e": st.sampled_from(["29DEC23", "2JUN23", "02JUN23", "31FEB24", "29dec23"]),
        "m": st.sampled_from(["M25", "Z21", "A25", "M5"]),
        "n": st.sampled_from(["50000", "050000", "0d5", "0d50", "0.5", "1d", "1e3", "5d0"]),
    }
)
NASTY_CASES = st.sampled_from(sorted(FORMS)).flatmap(
    lambda kind: st.tuples(
        st.just(kind[0]),
        st.just(kind[1]),
        st.lists(
            st.builds(lambda form, slots: form.format(**slots), st.sampled_from(FORMS[kind]), SLOTS),
            min_size=2,
            max_size=30,
            unique=True,
        ),
    )
)


@given(NASTY_CASES)
def test_pieces_in_any_order_never_share_a_key_and_keys_lead_back(case):
    exchange, symbol_type, symbols = case
    read = [(symbol, parse(exchange, symbol, symbol_type)) for symbol in symbols]
    keys = {}
    for symbol, found in read:
        if isinstance(found, Unparsed):
            assert (found.exchange, found.symbol, bool(found.reason)) == (exchange, symbol, True)
            continue
        key = found.instrument_key
        assert keys.setdefault(key, symbol) == symbol
        assert tardis_symbol(key) == (exchange, symbol)
        assert key == f"{found.venue}:{found.instrument_type}:{key.split(':', 2)[2]}"
        assert key == key.upper()
        assert instrument_of(name_of(key)) == key


# Every instrument of the catalogues that come with the project, written by hand.
SHIPPED = """
binance          BTCUSDT                  BINANCE:SPOT_PAIR:BTC-USDT
binance          ETHUSDT                  BINANCE:SPOT_PAIR:ETH-USDT
binance-futures  BTCUSDT                  BINANCE-FUTURES:PERPETUAL:BTC-USDT
binance-futures  ETHUSDT                  BINANCE-FUTURES:PERPETUAL:ETH-USDT
deribit          BTC-PERPETUAL            DERIBIT:PERPETUAL:BTC-USD
deribit          ETH-PERPETUAL            DERIBIT:PERPETUAL:ETH-USD
deribit          BTC-14FEB25              DERIBIT:FUTURE:BTC-USD-250214
deribit          BTC-25APR25-200000-P     DERIBIT:OPTION:BTC-USD-250425-200000-PUT
deribit          BTC_USDC                 DERIBIT:SPOT_PAIR:BTC-USDC
bybit            BTCUSDT                  BYBIT:PERPETUAL:BTC-USDT
bybit            BTCUSD                   BYBIT:PERPETUAL:BTC-USD
bybit            AAVEUSDT                 BYBIT:PERPETUAL:AAVE-USDT
bybit-spot       BTCUSDT                  BYBIT-SPOT:SPOT_PAIR:BTC-USDT
okex             BTC-USDT                 OKX:SPOT_PAIR:BTC-USDT
okex-futures     BTC-USD-240105           OKX-FUTURES:FUTURE:BTC-USD-240105
okex-futures     BTC-USD_UM_XPERP-310404  OKX-FUTURES:FUTURE:BTC-USD_UM_XPERP-310404
okex-swap        BTC-USDT-SWAP            OKX-SWAP:PERPETUAL:BTC-USDT
okex-swap        BTC-USDC-SWAP            OKX-SWAP:PERPETUAL:BTC-USDC
"""


def test_every_symbol_of_the_shipped_catalogues_has_the_key_written_by_hand():
    found = set()
    for path in (Path(__file__).parents[2] / "data" / "tardis-api").glob("exchange_*.json"):
        catalogue = json.loads(path.read_text())
        for each in catalogue["datasets"]["symbols"]:
            if each["id"] not in ("SPOT", "PERPETUALS", "FUTURES", "OPTIONS"):
                key = key_of(catalogue["id"], each["id"], each["type"])
                assert tardis_symbol(key) == (catalogue["id"], each["id"])
                found.add((catalogue["id"], each["id"], key))
            assert is_instrument(each["id"], each["type"]) is (each["id"] not in GROUPS)
    assert found == {tuple(line.split()) for line in SHIPPED.strip().splitlines()}


def test_the_selectors_that_mean_nothing_are_those_that_select_nothing():
    found = [
        parse("binance", "BTCUSDT", "spot"),
        parse("okex-swap", "BTC-USDT-SWAP", "perpetual"),
        parse("deribit", "XRP_USDC-27DEC24-0d5-C", "option"),
    ]
    patterns = (
        "btcusdt", "BTCUSDTT", "okx-swap:perp:btc-usdt", "okex-swap:*", "*:ETH-*", "deribit", "upbit",
        "binance:BTC-USDT", "XRP_USDC-27DEC24-0D5-C", "XRP_USDC-27DEC24-0?5-*", "BTC-US[DT]*",
        "BINANCE:SPOT_PAIR:BTC-USDT", "nothing",
    )  # fmt: skip
    left = [pattern for pattern in patterns if not any(selects(pattern, each) for each in found)]
    assert unmatched(patterns, found) == left == ["BTCUSDTT", "*:ETH-*", "upbit", "nothing"]
