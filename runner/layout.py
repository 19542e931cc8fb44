"""Task to object keys, and back: the only module that knows a path of the store.

Keys are `/`-separated; an instrument key keeps its `:`. A part that could not be told apart from path syntax is
percent-encoded, so the codec is injective: `instrument_of(name_of(key)) == key`.
"""

from __future__ import annotations

from datetime import date
from urllib.parse import quote, unquote

from runner.market.names import TIMEFRAMES, book_depth

RUNS = "_runs"
_SAFE = ":@+,=!$&'()~*;"


def name_of(key: str) -> str:
    """Return an instrument key as a file name, without its suffix.

    >>> name_of("BINANCE:SPOT_PAIR:BTC-USDT"), name_of("X:SPOT_PAIR:A/B-C")
    ('BINANCE:SPOT_PAIR:BTC-USDT', 'X:SPOT_PAIR:A%2FB-C')
    """
    return quote(key, safe=_SAFE)


def instrument_of(name: str) -> str:
    """Return the instrument key of a file name made by `name_of`.

    >>> instrument_of("X:SPOT_PAIR:A%2FB-C")
    'X:SPOT_PAIR:A/B-C'
    """
    return unquote(name)


def instruments(day: date) -> str:
    """Return the key of a day's instrument table.

    >>> instruments(date(2024, 8, 8))
    'instrument_availability/by_date/day-2024-08-08/instruments.parquet'
    """
    return f"instrument_availability/by_date/day-{day}/instruments.parquet"


def ticks_prefix(day: date, data_type: str) -> str:
    """Return the prefix under which the ticks of a day and data type lie.

    >>> ticks_prefix(date(2024, 8, 8), "trades")
    'raw_tick_data/by_date/day-2024-08-08/data_type-trades/'
    """
    return f"raw_tick_data/by_date/day-{day}/data_type-{data_type}/"


def ticks(day: date, data_type: str, key: str) -> str:
    """Return the key of an instrument's ticks.

    >>> ticks(date(2024, 8, 8), "trades", "BINANCE:SPOT_PAIR:BTC-USDT").rsplit("/", 1)[1]
    'BINANCE:SPOT_PAIR:BTC-USDT.parquet'
    """
    return f"{ticks_prefix(day, data_type)}{name_of(key)}.parquet"


def candles_prefix(day: date, timeframe: str) -> str:
    """Return the prefix under which a day's candles of one timeframe lie.

    >>> candles_prefix(date(2024, 8, 8), "1m")
    'processed_candles/by_date/day-2024-08-08/timeframe-1m/'
    """
    return f"processed_candles/by_date/day-{day}/timeframe-{timeframe}/"


def candles(day: date, timeframe: str, key: str) -> str:
    """Return the key of an instrument's candles.

    >>> candles(date(2024, 8, 8), "1m", "A:SPOT_PAIR:B-C")
    'processed_candles/by_date/day-2024-08-08/timeframe-1m/A:SPOT_PAIR:B-C.parquet'
    """
    return f"{candles_prefix(day, timeframe)}{name_of(key)}.parquet"


def book_candles_prefix(day: date, depth: int, timeframe: str) -> str:
    """Return the prefix under which a day's book candles of one depth and timeframe lie.

    >>> book_candles_prefix(date(2024, 8, 8), 5, "1m")
    'processed_book_snapshots/by_date/day-2024-08-08/depth-5/timeframe-1m/'
    """
    return f"processed_book_snapshots/by_date/day-{day}/depth-{depth}/timeframe-{timeframe}/"


def book_candles(day: date, depth: int, timeframe: str, key: str) -> str:
    """Return the key of an instrument's book candles.

    >>> book_candles(date(2024, 8, 8), 5, "1h", "A:SPOT_PAIR:B-C").rsplit("/", 2)[1:]
    ['timeframe-1h', 'A:SPOT_PAIR:B-C.parquet']
    """
    return f"{book_candles_prefix(day, depth, timeframe)}{name_of(key)}.parquet"


def output_prefixes(day: date, data_type: str) -> tuple[str, ...]:
    """Return the prefixes under which the outputs of a day and data type lie, the ticks' last.

    >>> len(output_prefixes(date(2024, 8, 8), "trades")), len(output_prefixes(date(2024, 8, 8), "quotes"))
    (8, 1)
    """
    depth = book_depth(data_type)
    derived: list[str] = []
    if data_type == "trades":
        derived = [candles_prefix(day, timeframe) for timeframe in TIMEFRAMES]
    elif depth is not None:
        derived = [book_candles_prefix(day, depth, timeframe) for timeframe in TIMEFRAMES]
    return (*derived, ticks_prefix(day, data_type))


def outputs(day: date, data_type: str, key: str) -> tuple[str, ...]:
    """Return every object that a settled (task, data type) leaves, in the order of their commit: the ticks come last.

    >>> outputs(date(2024, 8, 8), "quotes", "A:SPOT_PAIR:B-C")
    ('raw_tick_data/by_date/day-2024-08-08/data_type-quotes/A:SPOT_PAIR:B-C.parquet',)
    """
    return tuple(f"{prefix}{name_of(key)}.parquet" for prefix in output_prefixes(day, data_type))


def completeness(day: date, venue: str) -> str:
    """Return the key of a completeness record.

    >>> completeness(date(2024, 8, 8), "BINANCE")
    'completeness/day-2024-08-08/BINANCE.json'
    """
    return f"completeness/day-{day}/{name_of(venue)}.json"


def run_prefix(run: str) -> str:
    """Return the prefix of everything about a run.

    >>> run_prefix("download-3f9a1c20")
    '_runs/download-3f9a1c20/'
    """
    return f"{RUNS}/{run}/"


def plan(run: str) -> str:
    """Return the key of a run's plan.

    >>> plan("download-3f9a1c20")
    '_runs/download-3f9a1c20/plan.parquet'
    """
    return f"{run_prefix(run)}plan.parquet"


def run_record(run: str) -> str:
    """Return the key of a run's record, whose existence is the commit of the run.

    >>> run_record("download-3f9a1c20")
    '_runs/download-3f9a1c20/run.json'
    """
    return f"{run_prefix(run)}run.json"


def cancellation(run: str) -> str:
    """Return the key of the object that asks for a run's cancellation.

    >>> cancellation("r")
    '_runs/r/cancel.json'
    """
    return f"{run_prefix(run)}cancel.json"


def ending(run: str) -> str:
    """Return the key of the object that says how a run's supervisor ended it.

    >>> ending("r")
    '_runs/r/end.json'
    """
    return f"{run_prefix(run)}end.json"


def cluster(run: str) -> str:
    """Return the key of the object that says on which cluster a run's Job was made, and with which values.

    >>> cluster("r")
    '_runs/r/cluster.json'
    """
    return f"{run_prefix(run)}cluster.json"


def ledger(run: str, shard: int, attempt: str) -> str:
    """Return the key of an attempt's ledger.

    >>> ledger("r", 7, "a1")
    '_runs/r/shards/7/a1.json'
    """
    return f"{run_prefix(run)}shards/{shard}/{attempt}.json"


def progress(run: str, shard: int, attempt: str) -> str:
    """Return the key of an attempt's progress object.

    >>> progress("r", 7, "a1")
    '_runs/r/progress/7/a1'
    """
    return f"{run_prefix(run)}progress/{shard}/{attempt}"


def log(run: str, shard: int, attempt: str) -> str:
    """Return the key of an attempt's log.

    >>> log("r", 7, "a1")
    '_runs/r/logs/7/a1.log'
    """
    return f"{run_prefix(run)}logs/{shard}/{attempt}.log"


def shard_and_attempt(key: str) -> tuple[int, str]:
    """Return (shard, attempt) of a ledger, progress or log key.

    >>> shard_and_attempt("_runs/r/logs/7/a1.log")
    (7, 'a1')
    """
    shard, name = key.rsplit("/", 2)[1:]
    return int(shard), name.split(".", 1)[0]
