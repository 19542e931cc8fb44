"""Task to object keys, and back: the only module that knows a path of the store.

Keys are `/`-separated; an instrument key keeps its `:`. A part that could not be told apart from path syntax is
percent-encoded, so the codec is injective: `instrument_of(name_of(key)) == key`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date
from functools import lru_cache
from urllib.parse import quote, unquote

from runner.market.names import DATA_TYPE_NAMES, OPTIONS_CHAIN, TIMEFRAMES, book_depth, is_group

RUNS = "_runs"
_SAFE = ":@+,=!$&'()~*;"


@lru_cache(maxsize=1 << 16)
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
    return f"{instruments_prefix()}day-{day}/instruments.parquet"


def instruments_prefix() -> str:
    """Return the prefix under which the instrument tables of all days lie.

    >>> instruments(date(2024, 8, 8)).startswith(instruments_prefix())
    True
    """
    return "instrument_availability/by_date/"


@lru_cache(maxsize=1 << 12)
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


def option_features_prefix(day: date, timeframe: str) -> str:
    """Return the prefix under which a day's option features of one timeframe lie.

    >>> option_features_prefix(date(2024, 8, 8), "1m")
    'option_features/by_date/day-2024-08-08/timeframe-1m/'
    """
    return f"option_features/by_date/day-{day}/timeframe-{timeframe}/"


def option_features(day: date, timeframe: str, underlying: str) -> str:
    """Return the key of an underlying's option features; `underlying` is named by `part_key`.

    >>> option_features(date(2024, 8, 8), "1m", "DERIBIT:BTC-USD").rsplit("/", 1)[1]
    'DERIBIT:BTC-USD.parquet'
    """
    return f"{option_features_prefix(day, timeframe)}{name_of(underlying)}.parquet"


def part_key(key: str, part: str) -> str:
    """Return what stands for an instrument key in the names of one part (underlying) of a group's outputs.

    >>> part_key("DERIBIT:OPTION:OPTIONS", "BTC-USD")
    'DERIBIT:BTC-USD'
    """
    return f"{key.split(':', 1)[0]}:{part}"


def missing_data_reports(day: date) -> str:
    """Return the key of a day's report on what is missing.

    >>> missing_data_reports(date(2024, 8, 8))
    'missing_data_reports/by_date/day-2024-08-08/missing_data.parquet'
    """
    return f"missing_data_reports/by_date/day-{day}/missing_data.parquet"


def available_tick_data(day: date) -> str:
    """Return the key of a day's report on what is there.

    >>> available_tick_data(date(2024, 8, 8))
    'available_tick_data/by_date/day-2024-08-08/available_data.parquet'
    """
    return f"available_tick_data/by_date/day-{day}/available_data.parquet"


def probe(token: str) -> str:
    """Return the key of an object that is written only to see whether that can be done, and deleted at once.

    >>> probe("5f1e")
    '_doctor/5f1e'
    """
    return f"_doctor/{token}"


def output_prefixes(day: date, data_type: str) -> tuple[str, ...]:
    """Return the prefixes under which the outputs of a day and data type lie, the ticks' last.

    >>> [len(output_prefixes(date(2024, 8, 8), data_type)) for data_type in ("trades", "options_chain", "quotes")]
    [8, 8, 1]
    """
    depth = book_depth(data_type)
    derived: list[str] = []
    if data_type == "trades":
        derived = [candles_prefix(day, timeframe) for timeframe in TIMEFRAMES]
    elif data_type == OPTIONS_CHAIN:
        derived = [option_features_prefix(day, timeframe) for timeframe in TIMEFRAMES]
    elif depth is not None:
        derived = [book_candles_prefix(day, depth, timeframe) for timeframe in TIMEFRAMES]
    return (*derived, ticks_prefix(day, data_type))


def outputs(day: date, data_type: str, key: str, parts: Sequence[str] = ()) -> tuple[str, ...]:
    """Return every object that a settled (task, data type) leaves, in the order of their commit: ticks come last.

    Options chains have objects for each of `parts`, and the ticks of all parts, in their order, follow everything
    derived: so the very last object proves all the others. No candles come of a group's file.

    >>> outputs(date(2024, 8, 8), "quotes", "A:SPOT_PAIR:B-C")
    ('raw_tick_data/by_date/day-2024-08-08/data_type-quotes/A:SPOT_PAIR:B-C.parquet',)
    >>> found = outputs(date(2024, 8, 8), "options_chain", "DERIBIT:OPTION:OPTIONS", ("BTC-USD", "ETH-USD"))
    >>> len(found), [path.rsplit("/", 1)[1] for path in found[-2:]]
    (16, ['DERIBIT:BTC-USD.parquet', 'DERIBIT:ETH-USD.parquet'])
    """
    *derived, last = output_prefixes(day, data_type)
    names = [f"{name_of(key)}.parquet"]
    if data_type == OPTIONS_CHAIN:
        names = [f"{name_of(part_key(key, part))}.parquet" for part in parts] or names
    elif is_group(key):
        derived = []
    return tuple(f"{prefix}{name}" for group in (derived, [last]) for name in names for prefix in group)


def day_of(key: str) -> str | None:
    """Return the date in the key of an output or instrument table, as text; None where there is none.

    >>> day_of("raw_tick_data/by_date/day-2024-08-08/data_type-trades/A:SPOT_PAIR:B-C.parquet")
    '2024-08-08'
    >>> day_of("raw_tick_data/by_date/day-2024-08-08.bak/data_type-trades/A:SPOT_PAIR:B-C.parquet")
    """
    name = key.partition("/day-")[2].partition("/")[0]
    return name if len(name) == len("2024-08-08") else None


def day_prefixes(root: str, days: Iterable[date]) -> tuple[str, ...]:
    """Return the fewest prefixes below which everything of these days lies, and nothing of others, in order.

    >>> day_prefixes("by_date/", [date(2024, 8, day) for day in range(9, 32)])
    ('by_date/day-2024-08-09/', 'by_date/day-2024-08-1', 'by_date/day-2024-08-2', 'by_date/day-2024-08-3')
    >>> day_prefixes("by_date/", [date(2024, 2, day) for day in range(1, 30)])
    ('by_date/day-2024-02-',)
    """
    wanted = {str(day) for day in days}
    found = {f"{root}day-{_whole(day, wanted)}" for day in wanted}
    return tuple(sorted(found))


_CUTS = (len("2024-"), len("2024-08-"), len("2024-08-0"))


def _whole(day: str, wanted: AbstractSet[str]) -> str:
    """Return the beginning of a day that most days share, all of them wanted; or the day itself."""
    year = _days_of(int(day[:4]))
    wholes = (day[:cut] for cut in _CUTS if all(other in wanted for other in year if other.startswith(day[:cut])))
    return next(wholes, f"{day}/")


@lru_cache(maxsize=8)
def _days_of(year: int) -> tuple[str, ...]:
    first, last = date(year, 1, 1).toordinal(), date(year, 12, 31).toordinal()
    return tuple(str(date.fromordinal(number)) for number in range(first, last + 1))


def listings(days: Iterable[date], data_types: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Return the prefixes to list for the outputs of days and data types: a row for each kind, its days in order.

    A kind is listed whole, days together, where a third or more of what it may hold is wanted; else piece by piece.

    >>> listings([date(2024, 8, 8)], ["trades"])[0]
    ('processed_candles/by_date/day-2024-08-08/',)
    >>> listings([date(2024, 8, 8)], ["trades"])[1]
    ('raw_tick_data/by_date/day-2024-08-08/data_type-trades/',)
    """
    days = sorted(days)
    held, wanted = _pieces(DATA_TYPE_NAMES), _pieces(data_types)
    return tuple(
        day_prefixes(root, days)
        if _FEW * len(wanted[root]) >= len(held[root])
        else tuple(f"{root}day-{day}/{piece}/" for day in days for piece in sorted(wanted[root]))
        for root in sorted(wanted)
    )


_FEW = 3


def _pieces(data_types: Iterable[str]) -> Mapping[str, AbstractSet[str]]:
    """Return the names below a day's folder that outputs of data types have, by what stands before the day."""
    found: dict[str, set[str]] = {}
    for prefix in (prefix for data_type in data_types for prefix in output_prefixes(date.min, data_type)):
        root, _, rest = prefix.partition(f"day-{date.min}/")
        found.setdefault(root, set()).add(rest.partition("/")[0])
    return found


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


def shard_and_attempt(key: str) -> tuple[int, str] | None:
    """Return (shard, attempt) of a ledger, progress or log key; None of a key that is none of these.

    >>> shard_and_attempt("_runs/r/logs/7/a1.log"), shard_and_attempt("_runs/r/logs/notes.txt")
    ((7, 'a1'), None)
    """
    shard, name = key.rsplit("/", 2)[1:]
    return (int(shard), name.split(".", 1)[0]) if shard.isascii() and shard.isdecimal() else None
