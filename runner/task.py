"""Tasks, outcomes and ledger entries: the nouns that plan, worker and ledger share. No I/O, no policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum

Fact = str | int | float | bool | None


class Stage(StrEnum):
    """What a run does to each of its tasks."""

    INSTRUMENTS = "instruments"
    AVAILABILITY = "availability"
    DOWNLOAD = "download"
    CANDLES = "candles"
    VALIDATE = "validate"
    PIPELINE = "pipeline"


WORKER_STAGES = tuple(stage for stage in Stage if stage is not Stage.PIPELINE)
"""Stages whose tasks workers do. A pipeline is a run of its own, of one task: its controller has the others done."""


class Outcome(StrEnum):
    """How a (task, data type) ended."""

    DONE = "done"
    EMPTY = "empty"
    NOT_OFFERED = "not_offered"
    NOT_AVAILABLE = "not_available"
    PENDING = "pending"
    FAILED = "failed"

    @property
    def settled(self) -> bool:
        """Tell whether the outcome is final and proven.

        >>> [o.value for o in Outcome if not o.settled]
        ['pending', 'failed']
        """
        return self not in (Outcome.PENDING, Outcome.FAILED)


@dataclass(frozen=True, slots=True)
class Source:
    """What a task must know of its instrument: where Tardis has it, its units, the whole days it is listed.

    `listed_from` and `listed_to` are UTC dates, [from, to); None is unbounded.
    `amount_unit` is base, quote or contract; `contract_size` is None where unknown.
    """

    exchange: str
    symbol: str
    inverse: bool = False
    amount_unit: str = "base"
    contract_size: float | None = None
    listed_from: date | None = None
    listed_to: date | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """The smallest unit that is done, recorded and retried: (stage, day, key), with its data types.

    `key` is a canonical instrument key or the reserved key of a group (download, candles), a venue (validate), or `*`
    for the whole day; `source` is None where nothing is read from Tardis. `parts` are the underlyings that the output
    is split by, sorted: those of which an option is listed that day (options_chain); empty where it is not split.
    """

    stage: Stage
    day: date
    key: str
    data_types: tuple[str, ...]
    source: Source | None = None
    predicted_bytes: int = 0
    parts: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Return the name of this task in logs, ledgers and progress.

        >>> Task(Stage.DOWNLOAD, date(2024, 8, 8), "BINANCE:SPOT_PAIR:BTC-USDT", ("trades",)).id
        'download/2024-08-08/BINANCE:SPOT_PAIR:BTC-USDT'
        """
        return f"{self.stage}/{self.day}/{self.key}"


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of one (task, data type), with the facts that prove it."""

    task_id: str
    data_type: str
    outcome: Outcome
    facts: Mapping[str, Fact] = field(default_factory=dict)
