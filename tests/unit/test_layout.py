"""Keys of the store: literals of the documented layout, and a codec that loses nothing."""

from datetime import date

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runner import layout
from runner.market.names import DATA_TYPE_NAMES, TIMEFRAMES
from runner.store.memory import MemoryStore

DAY = date(2024, 8, 8)
KEY = "BINANCE:SPOT_PAIR:BTC-USDT"
nasty = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=40)


@given(nasty)
@example("A/B")
@example("%2F")
@example("..")
@example("a%b%%20")
@example("x\x00y\n\t")
@example("Ä:日本/語-🚀")
@example("BINANCE:SPOT_PAIR:BTC-USDT")
@example(" lead and trail ")
@example("a\\b?c#d")
def test_instrument_keys_survive_their_file_names(key: str) -> None:
    name = layout.name_of(key)
    assert layout.instrument_of(name) == key
    assert "/" not in name
    assert name.isascii()
    assert name.isprintable()


@given(nasty, nasty)
def test_two_keys_never_share_a_file(one: str, other: str) -> None:
    assert (layout.name_of(one) == layout.name_of(other)) == (one == other)


@given(nasty)
@example("..")
@example("")
@example("a/../../b")
def test_a_store_takes_the_objects_of_any_key(key: str) -> None:
    store = MemoryStore("memory://layout-any-key")
    for path in layout.outputs(DAY, "trades", key):
        assert store.head(path) is None  # raises SpecError for a malformed key
        assert path.startswith(("raw_tick_data/by_date/day-2024-08-08/", "processed_candles/by_date/day-2024-08-08/"))


def test_canonical_keys_stay_readable() -> None:
    for key in (KEY, "DERIBIT:OPTION:XRP-USDC-231229-0.5-CALL", "BINANCE:SPOT_PAIR:1000SHIB-USDT"):
        assert layout.name_of(key) == key


def test_paths_are_those_of_the_contract() -> None:
    assert layout.ticks(DAY, "trades", KEY) == (
        "raw_tick_data/by_date/day-2024-08-08/data_type-trades/BINANCE:SPOT_PAIR:BTC-USDT.parquet"
    )
    assert layout.candles(DAY, "15s", KEY) == (
        "processed_candles/by_date/day-2024-08-08/timeframe-15s/BINANCE:SPOT_PAIR:BTC-USDT.parquet"
    )
    assert layout.book_candles(DAY, 25, "24h", KEY) == (
        "processed_book_snapshots/by_date/day-2024-08-08/depth-25/timeframe-24h/BINANCE:SPOT_PAIR:BTC-USDT.parquet"
    )
    assert layout.instruments(date(987, 1, 2)) == "instrument_availability/by_date/day-0987-01-02/instruments.parquet"
    assert layout.completeness(DAY, "OKX-SWAP") == "completeness/day-2024-08-08/OKX-SWAP.json"
    assert layout.missing_data_reports(DAY) == "missing_data_reports/by_date/day-2024-08-08/missing_data.parquet"
    assert layout.available_tick_data(DAY) == "available_tick_data/by_date/day-2024-08-08/available_data.parquet"


def test_a_split_type_has_the_objects_of_every_underlying_and_all_ticks_after_everything_derived() -> None:
    parts = ("BTC-USD", "BTC-USDC")
    assert layout.outputs(DAY, "options_chain", "DERIBIT:OPTION:OPTIONS", parts) == (
        *(
            f"option_features/by_date/day-2024-08-08/timeframe-{timeframe}/DERIBIT:{part}.parquet"
            for part in parts
            for timeframe in ("15s", "1m", "5m", "15m", "1h", "4h", "24h")
        ),
        "raw_tick_data/by_date/day-2024-08-08/data_type-options_chain/DERIBIT:BTC-USD.parquet",
        "raw_tick_data/by_date/day-2024-08-08/data_type-options_chain/DERIBIT:BTC-USDC.parquet",
    )


@given(st.lists(nasty, min_size=2, max_size=5, unique=True))
def test_two_underlyings_never_share_a_file(parts: list[str]) -> None:
    found = layout.outputs(DAY, "options_chain", "DERIBIT:OPTION:OPTIONS", parts)
    assert len(set(found)) == len(parts) * 8


@pytest.mark.parametrize("data_type", DATA_TYPE_NAMES)
def test_ticks_are_the_last_output_and_candles_come_at_every_timeframe(data_type: str) -> None:
    outputs = layout.outputs(DAY, data_type, KEY)
    assert outputs[-1] == layout.ticks(DAY, data_type, KEY)
    derived = {
        "trades": [layout.candles(DAY, tf, KEY) for tf in TIMEFRAMES],
        "book_snapshot_5": [layout.book_candles(DAY, 5, tf, KEY) for tf in TIMEFRAMES],
        "book_snapshot_25": [layout.book_candles(DAY, 25, tf, KEY) for tf in TIMEFRAMES],
        "options_chain": [layout.option_features(DAY, tf, KEY) for tf in TIMEFRAMES],
    }
    assert list(outputs[:-1]) == derived.get(data_type, [])
    assert len(set(outputs)) == len(outputs)
    assert all(
        key.startswith(prefix) for key, prefix in zip(outputs, layout.output_prefixes(DAY, data_type), strict=True)
    )


def test_prefixes_of_one_data_type_do_not_list_another() -> None:
    prefixes = {t: layout.ticks_prefix(DAY, t) for t in DATA_TYPE_NAMES}
    for name, prefix in prefixes.items():
        assert [t for t in DATA_TYPE_NAMES if layout.ticks(DAY, t, KEY).startswith(prefix)] == [name]


@given(st.integers(0, 10**6), st.from_regex(r"[0-9a-f-]{1,36}", fullmatch=True))
def test_shard_and_attempt_come_back_from_every_kind_of_key(shard: int, attempt: str) -> None:
    for key in (layout.ledger, layout.progress, layout.log):
        assert layout.shard_and_attempt(key("download-3f9a1c20", shard, attempt)) == (shard, attempt)
