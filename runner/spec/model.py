"""RunSpec: everything a run is asked to do, and the only defaults.

Python names are snake_case; YAML, JSON and environment use the camelCase aliases. Frozen; unknown keys are refused.
The Tardis key is no part of it: it comes from TARDIS_API_KEY or TARDIS_API_KEY_FILE alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.json_schema import JsonSchemaValue

from runner import logs
from runner.errors import SpecError
from runner.market.names import DATA_TYPE_NAMES, DEFAULT_DATA_TYPES
from runner.market.symbols import DEFAULT_VENUES, INSTRUMENT_TYPES, VENUES
from runner.spec import values
from runner.spec.files import MAX_INTEGER
from runner.task import WORKER_STAGES, Stage

MAX_SHARDS = 100_000
MAX_DAYS = 4_000
_NEVER = 10**9


class Selection(StrEnum):
    """Which tasks of the request a run takes."""

    MISSING = "missing"
    FAILED = "failed"
    ALL = "all"


class Backend(StrEnum):
    """Who runs the shards."""

    LOCAL = "local"
    KUBERNETES = "kubernetes"


@dataclass(frozen=True, slots=True, eq=False)
class _Reader(BeforeValidator):
    """How a value is read, and the JSON schema of what it reads to: all that Helm takes, which cannot tidy."""

    schema: JsonSchemaValue = field(default_factory=dict, kw_only=True)

    def __get_pydantic_json_schema__(self, _: object, __: object) -> JsonSchemaValue:
        return dict(self.schema)


def _only(kind: str, *valid: str) -> _Reader:
    return _Reader(values.choice(kind, valid), schema={"enum": [str(name) for name in valid]})


def _whole(low: int, high: int) -> _Reader:
    return _Reader(values.whole(low, high), schema={"type": "integer", "minimum": low, "maximum": high})


def _text(read: Callable[[object], str], pattern: str) -> _Reader:
    return _Reader(read, schema={"type": "string", "pattern": pattern})


def _several(read: Callable[[object], tuple[str, ...]], least: int, **item: object) -> _Reader:
    return _Reader(read, schema={"type": "array", "items": item, "minItems": least, "uniqueItems": True})


def _some_of(valid: Sequence[str], read: Callable[[object], tuple[str, ...]], least: int) -> _Reader:
    return _several(values.some(read) if least else read, least, enum=list(valid))


# Whole seconds alone: readers of YAML write fractions in their own ways.
Seconds = Annotated[
    float, _Reader(values.positive("seconds"), schema={"type": "integer", "minimum": 1, "maximum": _NEVER})
]
Url = Annotated[str, _text(values.http_url, r"^https?://[A-Za-z0-9.-]+(:[1-9][0-9]{0,4})?(/[!-.0->A-~]+)*$")]
Flag = Annotated[bool, _Reader(values.flag, schema={"type": "boolean"})]
Day = Annotated[date, _text(values.day, r"^(20[1-9][0-9]|2100)-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$")]
Word = Annotated[str, _text(values.word, r"^[A-Za-z0-9_.@-]{1,100}$")]
Name = Annotated[str, _text(values.visible, r"^[!-,.-~][!-~]{0,299}$")]
Namespace = Annotated[str, _text(values.namespace, r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
Store = Annotated[
    str,
    _text(
        lambda value: value and values.store_url(value),
        r"^(gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](/[^/\p{Z}\p{C}]+)*|file://(/[^/.\p{Z}\p{C}][^/\p{Z}\p{C}]*)+)?$",
    ),
]
Venues = Annotated[tuple[str, ...], _some_of([venue.venue for venue in VENUES], values.venues, 1)]
InstrumentTypes = Annotated[tuple[str, ...], _some_of(INSTRUMENT_TYPES, values.instrument_types, 0)]
DataTypes = Annotated[tuple[str, ...], _some_of(DATA_TYPE_NAMES, values.data_types, 1)]
# Upper case, as they are read: letters that have no case are those of other alphabets.
Selectors = Annotated[
    tuple[str, ...],
    _several(
        values.selectors,
        0,
        type="string",
        pattern=r"^[A-Z0-9\p{Lo}:_.*?\[\]!@+&$/=()][A-Z0-9\p{Lo}:_.*?\[\]!@+&$/=()-]{0,199}$",
    ),
]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)


class TardisSpec(_Section):
    """How the source is reached. Times are seconds."""

    url: Url = "https://datasets.tardis.dev/v1"
    api_url: Url = Field("https://api.tardis.dev/v1", alias="apiUrl")
    connections: Annotated[int, _whole(1, 1_000)] = 32
    """Downloads in flight over all shards of a run: one address did well with 100 to 200, badly with 2,000."""
    attempts: Annotated[int, _whole(1, 100)] = 6
    """Tries of one file before its task has failed."""
    connect_s: Seconds = Field(10.0, alias="connectSeconds")
    stall_s: Seconds = Field(30.0, alias="stallSeconds")
    """The longest wait for the next bytes."""
    min_bytes_per_s: Annotated[int, _whole(0, _NEVER)] = Field(4_096, alias="minBytesPerSecond")
    """An attempt slower than this over a whole window is given up."""
    min_speed_window_s: Seconds = Field(60.0, alias="minSpeedWindowSeconds")
    backoff_s: Seconds = Field(1.0, alias="backoffSeconds")
    backoff_max_s: Seconds = Field(60.0, alias="backoffMaxSeconds")
    lock_limit_s: Seconds = Field(2_700.0, alias="lockLimitSeconds")
    """Nothing downloaded for so long because another address holds the key: give up."""
    refusal_s: Seconds = Field(60.0, alias="refusalSeconds")
    """The same refusal must last this long before it is believed."""


class RetrySpec(_Section):
    """How often and when a shard is started again. Times are seconds."""

    limit: Annotated[int, _whole(0, 100)] = 6
    backoff_s: Seconds = Field(10.0, alias="backoffSeconds")
    backoff_max_s: Seconds = Field(360.0, alias="backoffMaxSeconds")


class RunSpec(_Section):
    """A request and how to carry it out.

    `start_date` and `end_date` are UTC days, both inclusive: without both it is the newest day exported, without an end
    the first day alone. No `instruments` and no `instrument_types` means every one. An empty `store` means that none is
    configured: `resolve` refuses it.
    """

    stage: Annotated[Stage, _only("stage", *WORKER_STAGES)] = Stage.DOWNLOAD
    start_date: Day | None = Field(None, alias="startDate")
    end_date: Day | None = Field(None, alias="endDate")
    venues: Venues = DEFAULT_VENUES
    instrument_types: InstrumentTypes = Field((), alias="instrumentTypes")
    instruments: Selectors = ()
    data_types: DataTypes = Field(DEFAULT_DATA_TYPES, alias="dataTypes")
    max_instruments: Annotated[int, _whole(1, _NEVER)] | None = Field(None, alias="maxInstruments")
    """The first so many instruments of each venue and day, by key."""
    select: Annotated[Selection, _only("selection", *Selection)] = Selection.MISSING
    parent: Word | None = None
    """The run whose failed tasks are taken."""
    store: Store = ""
    store_refusal_s: Seconds = Field(60.0, alias="storeRefusalSeconds")
    """A bucket must refuse a worker for so long before it is believed; commands believe it at once."""
    shards: Annotated[int, _whole(1, MAX_SHARDS)] = 8
    parallelism: Annotated[int, _whole(1, MAX_SHARDS)] = 4
    """Shards at work at the same time."""
    backend: Annotated[Backend, _only("backend", *Backend)] = Backend.LOCAL
    namespace: Namespace | None = None
    """Where a cluster's Job lives; without one it is the context's."""
    context: Name | None = None
    """The kubeconfig's context that names the cluster; without one it is the current one."""
    image: Name | None = None
    """What a cluster's pods run."""
    log_format: Annotated[str, _only("log format", *logs.FORMATS)] = Field("text", alias="logFormat")
    log_level: Annotated[str, _only("log level", *logs.LEVELS)] = Field("INFO", alias="logLevel")
    deep: Flag = False
    """validate: read every object again and recompute its digest."""
    tardis: TardisSpec = TardisSpec()
    retry: RetrySpec = RetrySpec()

    @model_validator(mode="after")
    def _days_make_a_range(self) -> Self:
        if self.end_date and not self.start_date:
            raise ValueError("endDate is given without startDate; give both (the end is inclusive)")
        if self.start_date and self.end_date:
            if self.end_date < self.start_date:
                raise ValueError(f"endDate {self.end_date} is before startDate {self.start_date}; the end is inclusive")
            if (self.end_date - self.start_date).days >= MAX_DAYS:
                raise ValueError(f"startDate to endDate is over {MAX_DAYS} days; split the request")
        return self

    def to_json(self) -> str:
        """Return the canonical JSON of this spec: every value, sorted keys, the same bytes for equal specs.

        They are those that Helm writes: whole numbers as such, what is not ASCII as it is.
        """
        document = _plain(self.model_dump(mode="json", by_alias=True))
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, *, where: str = "RUNNER_SPEC") -> Self:
        """Return the spec of a JSON text made by `to_json`; a missing key has its default.

        Raises SpecError that starts with `where`.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as e:
            raise SpecError(f"{where}: is not JSON: {logs.escape(str(e))}") from e
        return cls.build(document, origins={}, default=where)

    @classmethod
    def build(cls, document: object, *, origins: Mapping[str, str], default: str) -> Self:
        """Return the spec of nested camelCase values.

        Raises SpecError with the first thing wrong; `origins` tells where a dotted key came from, else `default`:key.
        """
        try:
            return cls.model_validate(document)
        except ValidationError as e:
            raise SpecError(_line(e, origins=origins, default=default)) from e


def fields(model: type[BaseModel] = RunSpec, prefix: str = "") -> tuple[str, ...]:
    """Return the dotted camelCase keys of a spec, in order.

    >>> [key for key in fields() if key.startswith("retry")]
    ['retry.limit', 'retry.backoffSeconds', 'retry.backoffMaxSeconds']
    """
    found: list[str] = []
    for name, info in model.model_fields.items():
        key = f"{prefix}{info.alias or name}"
        kind: Any = info.annotation
        is_section = isinstance(kind, type) and issubclass(kind, BaseModel)
        found += fields(kind, f"{key}.") if is_section else [key]
    return tuple(found)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() and value < MAX_INTEGER else value


def _line(error: ValidationError, *, origins: Mapping[str, str], default: str) -> str:
    first: Any = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"] if isinstance(part, str) and part[0].islower())
    where = origins.get(key, f"{default}:{key}" if key else default)
    if first["type"] == "extra_forbidden":
        return f"{where}: no such key{values.nearest(key, fields())}"
    why = str(first["ctx"]["error"]) if "error" in first.get("ctx", {}) else logs.escape(first["msg"])
    if key:
        return f"{where} {values.shown(first['input'])}: {why}"
    # Only the range of days concerns more than one key.
    named = [origins[name] for name in ("startDate", "endDate") if name in why and name in origins]
    return f"{', '.join(named) or default}: {why}"
