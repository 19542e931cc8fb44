from datetime import date
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.errors import SpecError
from runner.spec import Resolved, RunSpec, Selection, resolve, tardis_key
from runner.spec.model import fields
from runner.spec.resolve import flag_of, variable_of
from runner.store import open_store

STORE = {"RUNNER_STORE": "file:///data"}


def _resolve(
    tmp_path: Path,
    *,
    flags: dict[str, object] | None = None,
    file: str | bytes = b"",
    env: dict[str, str] | None = None,
) -> Resolved:
    path = None
    if file:
        path = Path("run.yaml")
        (tmp_path / path).write_bytes(file.encode() if isinstance(file, str) else file)
    return resolve(flags or {}, path, env={**STORE, **(env or {})}, cwd=tmp_path)


def _refusal(tmp_path: Path, **given: object) -> str:
    with pytest.raises(SpecError) as caught:
        _resolve(tmp_path, **given)
    message = str(caught.value)
    assert message.isprintable(), "one line, nothing invisible"
    return message


def test_flags_win_over_run_file_over_environment_over_own_file_over_defaults(tmp_path: Path) -> None:
    (tmp_path / "runner.yaml").write_text("shards: 1\nparallelism: 1\nmaxInstruments: 1\ndeep: true\n")
    found = _resolve(
        tmp_path,
        flags={"shards": "4"},
        file="shards: 3\nparallelism: 3\n",
        env={"RUNNER_SHARDS": "2", "RUNNER_PARALLELISM": "2", "RUNNER_MAX_INSTRUMENTS": "2"},
    )
    spec, origins = found.spec, found.origins
    assert (spec.shards, spec.parallelism, spec.max_instruments, spec.deep) == (4, 3, 2, True)
    assert spec.select is Selection.MISSING
    assert origins["shards"] == "flag --shards"
    assert origins["parallelism"] == "run.yaml:parallelism"
    assert origins["maxInstruments"] == "env RUNNER_MAX_INSTRUMENTS"
    assert origins["deep"] == "runner.yaml:deep"
    assert origins["select"] == "default"
    assert set(origins) == set(fields())


def test_every_key_can_be_given_by_environment_but_the_workers_own(tmp_path: Path) -> None:
    given = {
        "stage": "validate",
        "startDate": "2024-01-01",
        "endDate": "2024-01-02",
        "venues": "deribit",
        "instrumentTypes": "PERP",
        "instruments": "*",
        "dataTypes": "trades",
        "maxInstruments": "3",
        "select": "all",
        "store": "memory://x",
        "backend": "local",
        "logFormat": "json",
        "logLevel": "DEBUG",
        "deep": "true",
        "tardis.url": "http://127.0.0.1:1/v1",
        "tardis.apiUrl": "http://127.0.0.1:2/v1",
    }
    env = {variable_of(key): given.get(key, "5") for key in fields() if key != "parent"}
    found = _resolve(tmp_path, env=env)
    assert {key for key, origin in found.origins.items() if origin == "default"} == {"parent"}
    assert found.spec.tardis.stall_s == 5.0


def test_names_of_the_seed_are_understood(tmp_path: Path) -> None:
    found = resolve({}, env={"GCS_BUCKET": "ticks", "MAX_CONCURRENT_REQUESTS": "7", "LOG_LEVEL": "debug"}, cwd=tmp_path)
    assert (found.spec.store, found.spec.tardis.connections, found.spec.log_level) == ("gs://ticks", 7, "DEBUG")
    assert found.origins["store"] == "env GCS_BUCKET"


def test_our_name_wins_over_that_of_the_seed(tmp_path: Path) -> None:
    assert _resolve(tmp_path, env={"GCS_BUCKET": "ticks"}).spec.store == "file:///data"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("OKX, binance", ("BINANCE", "OKX")), ("okex binance BINANCE", ("BINANCE", "OKX"))],
)
def test_venues_are_our_names_in_one_order_however_given(tmp_path: Path, text: str, expected: tuple[str, ...]) -> None:
    assert _resolve(tmp_path, flags={"venues": text}).spec.venues == expected
    assert _resolve(tmp_path, file=f"venues: [{text}]").spec.venues == expected


def test_types_are_accepted_in_any_case_and_with_their_aliases(tmp_path: Path) -> None:
    flags = {"dataTypes": "BOOK-SNAPSHOT-5,trades,INCREMENTAL_BOOK_L2", "instrumentTypes": "perp spot"}
    spec = _resolve(tmp_path, flags=flags).spec
    assert spec.data_types == ("trades", "book_snapshot_5", "incremental_book_L2")
    assert spec.instrument_types == ("SPOT_PAIR", "PERPETUAL")


def test_dates_of_a_file_are_read_as_written(tmp_path: Path) -> None:
    spec = _resolve(tmp_path, file='startDate: 2024-02-28\nendDate: "2024-02-29"\n').spec
    assert (spec.start_date, spec.end_date) == (date(2024, 2, 28), date(2024, 2, 29))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("file://./s", "file://{cwd}/s"),
        ("./s/", "file://{cwd}/s"),
        ("/abs/s", "file:///abs/s"),
        ("file:///abs/s/", "file:///abs/s"),
        ("gs://bucket/prefix/", "gs://bucket/prefix"),
        ("memory://x", "memory://x"),
    ],
)
def test_a_store_has_one_absolute_form(tmp_path: Path, given: str, expected: str) -> None:
    assert _resolve(tmp_path, flags={"store": given}).spec.store == expected.format(cwd=tmp_path)


def test_without_a_store_the_three_places_to_name_one_are_told(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        resolve({}, env={}, cwd=tmp_path)
    for place in ("--store", "RUNNER_STORE", "`store:`"):
        assert place in str(caught.value)
    assert resolve({}, env={}, cwd=tmp_path, need_store=False).spec.store == ""


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        *[("shards", value, ("--shards", "1 to 100000")) for value in ("0", "-1", "1.5", "100001", "9" * 5000, "x")],
        ("shards", "", ("--shards", "is empty")),
        ("store", " ", ("--store", "is empty")),
        ("parallelism", "0", ("--parallelism", "1 to")),
        ("startDate", "2026-02-30", ("--start-date 2026-02-30", "not a day of the calendar")),
        ("startDate", "2026-13-01", ("--start-date 2026-13-01", "not a day of the calendar")),
        ("startDate", "0001-01-01", ("--start-date", "2010 to 2100")),
        ("startDate", "2026-1-1", ("YYYY-MM-DD",)),
        ("startDate", "2026-01-01T00:00:00+02:00", ("YYYY-MM-DD",)),
        ("startDate", "today", ("YYYY-MM-DD",)),
        ("venues", "BINANSE", ("--venues BINANSE", "did you mean BINANCE?", "valid: BINANCE,")),
        ("dataTypes", "trade", ("--data-types", "did you mean trades?")),
        ("instrumentTypes", "PERPETUALS", ("--instrument-types", "did you mean PERPETUAL?")),
        ("select", "fialed", ("--select", "did you mean failed?")),
        ("backend", "kubernets", ("--backend", "valid: local")),
        ("stage", "downlod", ("STAGE downlod", "did you mean download?")),
        ("stage", "mft-processing", ("STAGE mft-processing", "is now mft")),
        ("store", "s3://bucket", ("--store s3://bucket", "unknown scheme")),
        ("store", "bucket/prefix", ("has no scheme", "gs://")),
        ("store", "gs://Bad_Bucket", ("bucket name",)),
        ("store", "file://", ("names no directory",)),
        ("store", "~nobody-here/x", ("--store ~nobody-here/x", "home")),
        ("tardis.url", "ftp://x", ("--tardis-url", "https://host/path")),
        ("tardis.url", "http://user:word@x", ("looks like a key",)),
        ("tardis.url", "http://x:port", ("is not a URL",)),
        ("instruments", "BTC%2fUSDT", ("--instruments", "VENUE:TYPE:SYMBOL")),
        ("instruments", "BTC\u202eUSDT", ("--instruments", "\\u202e")),
        ("instruments", "BTC\x00", ("--instruments", "\\x00")),
        ("instruments", "\U0001f680", ("--instruments",)),
        ("instruments", "-BTC", ("--instruments",)),
        ("instruments", "B" * 300, ("--instruments",)),
        ("instruments", " , ", ("is an empty list",)),
        ("maxInstruments", "0", ("--max-instruments", "from 1")),
        ("parent", "two words", ("--parent", "one word")),
    ],
)
def test_a_bad_flag_is_refused_with_where_why_and_what_to_do(
    tmp_path: Path, key: str, value: str, parts: tuple[str, ...]
) -> None:
    message = _refusal(tmp_path, flags={key: value})
    assert all(part in message for part in parts), message
    assert len(message) < 400


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ({"startDate": "2024-02-02", "endDate": "2024-02-01"}, ("--start-date", "--end-date", "before", "inclusive")),
        ({"endDate": "2024-02-01"}, ("--end-date", "without startDate")),
        ({"startDate": "2010-01-01", "endDate": "2030-01-01"}, ("over 4000 days",)),
    ],
)
def test_days_that_make_no_range_are_refused(tmp_path: Path, flags: dict[str, object], parts: tuple[str, ...]) -> None:
    message = _refusal(tmp_path, flags=flags)
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        ("shard: 5", ("run.yaml:shard", "did you mean shards?")),
        ("tardis: {stalSeconds: 5}", ("run.yaml:tardis.stalSeconds", "did you mean tardis.stallSeconds?")),
        ("tardis: 5", ("run.yaml:tardis", "keys of its own")),
        ("shards: [1, 2]", ("run.yaml:shards 1, 2", "whole number")),
        ("shards: true", ("run.yaml:shards true", "whole number")),
        ("shards: 2.0", ("run.yaml:shards 2.0", "whole number")),
        ("shards:", ("run.yaml:shards", "has no value")),
        ('store: ""', ("run.yaml:store", "is empty")),
        ("deep: perhaps", ("run.yaml:deep perhaps", "true or false")),
        ("venues: []", ("run.yaml:venues", "empty list")),
        ("venues: {a: b}", ("run.yaml:venues", "list of names")),
        ("startDate: 2026-02-30", ("run.yaml:startDate 2026-02-30", "calendar")),
        ("startDate: 2026-02-03T00:00:00Z", ("YYYY-MM-DD",)),
        ("retry: {backoffSeconds: .nan}", ("retry.backoffSeconds .nan", "above 0")),
        ("shards: 1\nshards: 2", ("run.yaml:2", "shards stands twice")),
        ("tardis: {attempts: 1, attempts: 2}", ("attempts stands twice",)),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", ("anchors and aliases are refused",)),
        ("x: !!python/object/apply:os.system [ls]", ("tags are refused",)),
        ("shards: !!int x", ("tags are refused",)),
        ("startDate: !!timestamp 2024-02-30", ("tags are refused",)),
        ("shards: " + "9" * 500_000, ("run.yaml:shards 999", "whole number")),
        ("shards: 010x", ("run.yaml:shards 010x", "whole number")),
        ("shards: 0x10", ("run.yaml:shards 0x10", "whole number")),
        ("shards: 1:30", ("run.yaml:shards 1:30", "whole number")),
        ("shards: 1e3", ("run.yaml:shards 1e3", "whole number")),
        ("shards: \x1b", ("not valid YAML",)),
        ("<<: {shards: 1}", ("a key must be a word",)),
        ("? [a]\n: b", ("a key must be a word",)),
        ("[" * 5000, ("nested too deeply",)),
        ("shards: [1", ("run.yaml:1", "not valid YAML")),
        ("shards: 1\n--- \nshards: 2", ("not valid YAML",)),
        ("just words", ("not a mapping",)),
        ("# nothing\n", ("is empty",)),
        ("x" * (2 << 20), ("larger than 1 MiB",)),
        ("shards: 5".encode("utf-16"), ("UTF-16", "UTF-8")),
        (b"shards: \x00", ("binary",)),
        (b"store: \xff\xff", ("not UTF-8",)),
    ],
)
def test_a_bad_run_file_is_refused_with_file_key_and_way_out(
    tmp_path: Path, body: str | bytes, parts: tuple[str, ...]
) -> None:
    message = _refusal(tmp_path, file=body)
    assert message.startswith("run.yaml")
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    "body",
    [
        "tardis: {apiKey: fake-key-1}",
        "tardisKey: fake-key-1",
        "TARDIS_API_KEY: fake-key-1",
        "tardisApiKeyFile: fake-key-1",
        "token: fake-key-1",
        "parent: TD.fakefake",
        "instruments: [TD.fakefake]",
    ],
)
def test_a_secret_in_a_file_is_refused_without_repeating_it(tmp_path: Path, body: str) -> None:
    message = _refusal(tmp_path, file=body)
    assert "TARDIS_API_KEY_FILE" in message
    assert "fake" not in message.lower()


def test_numbers_and_truth_of_a_file_are_read_as_written(tmp_path: Path) -> None:
    spec = _resolve(
        tmp_path, file="shards: 12\ndeep: yes\nretry: {backoffSeconds: 0.5}\ninstruments: [123, 1INCH]"
    ).spec
    assert (spec.shards, spec.deep, spec.retry.backoff_s) == (12, True, 0.5)
    assert spec.instruments == ("123", "1INCH")


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    assert _resolve(tmp_path, file=b"\xef\xbb\xbfshards: 3").spec.shards == 3


@pytest.mark.parametrize("section", ["run: {store: gs://b/p}", "pod: {image: x, tardisKey: null}", "install: {}"])
def test_values_of_helm_given_as_a_run_file_are_told_where_they_belong(tmp_path: Path, section: str) -> None:
    name = section.partition(":")[0]
    said = "is a section of Helm's values, not a key of a run; give this file with --values"
    assert _refusal(tmp_path, file=f"{section}\n") == f"run.yaml:{name}: {said}"


@pytest.mark.parametrize(("name", "part"), [("missing.yaml", "no such file"), (".", "is a directory")])
def test_a_run_file_that_is_none_is_refused(tmp_path: Path, name: str, part: str) -> None:
    with pytest.raises(SpecError, match=part):
        resolve({}, Path(name), env=STORE, cwd=tmp_path)


@pytest.mark.parametrize(
    ("env", "parts"),
    [
        ({"RUNNER_STOR": "x"}, ("env RUNNER_STOR", "did you mean RUNNER_STORE?")),
        ({"RUNNER_STORE": ""}, ("env RUNNER_STORE", "empty")),
        ({"LOG_LEVEL": " "}, ("env LOG_LEVEL", "empty")),
        ({"LOG_LEVEL": "loud"}, ("env LOG_LEVEL loud", "DEBUG")),
        ({"RUNNER_SHARDS": "0"}, ("env RUNNER_SHARDS 0", "whole number")),
        ({"RUNNER_TARDIS_STALL_SECONDS": "-1"}, ("env RUNNER_TARDIS_STALL_SECONDS -1", "seconds above 0")),
        ({"SHARD_INDEX": "1"}, ("env SHARD_INDEX", "--shards")),
        ({"TOTAL_SHARDS": "8"}, ("env TOTAL_SHARDS", "--shards")),
        ({"RUNNER_TARDIS_API_KEY": "fake-key-1"}, ("RUNNER_TARDIS_API_KEY", "TARDIS_API_KEY_FILE")),
    ],
)
def test_a_bad_variable_is_refused_with_its_name(tmp_path: Path, env: dict[str, str], parts: tuple[str, ...]) -> None:
    message = _refusal(tmp_path, env=env)
    assert all(part in message for part in parts), message
    assert "fake-key-1" not in message


def test_variables_of_workers_and_of_build_machines_are_left_alone(tmp_path: Path) -> None:
    env = {"RUNNER_RUN": "r", "RUNNER_SPEC": "{}", "RUNNER_PARENT": "p", "RUNNER_OS": "Linux", "RUNNER_TEMP": ""}
    assert _resolve(tmp_path, env=env).spec.parent is None


def test_the_key_comes_from_its_variable_or_from_the_file_named(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("fake-key-2\n")
    assert tardis_key({}) is None
    assert tardis_key({"TARDIS_API_KEY": " fake-key-1 "}) == "fake-key-1"
    assert tardis_key({"TARDIS_API_KEY_FILE": str(tmp_path / "key")}) == "fake-key-2"


@pytest.mark.parametrize("body", [b"", b" \n", b"fake-key-1\nfake-key-2", b"fake\x00key", b"\xff\xfe"])
def test_a_key_file_without_one_key_is_refused_without_showing_it(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "key").write_bytes(body)
    with pytest.raises(SpecError, match="TARDIS_API_KEY_FILE") as caught:
        tardis_key({"TARDIS_API_KEY_FILE": str(tmp_path / "key")})
    assert "fake" not in str(caught.value)


def test_flags_and_variables_follow_from_keys() -> None:
    assert flag_of("tardis.minBytesPerSecond") == "--tardis-min-bytes-per-second"
    assert variable_of("tardis.minBytesPerSecond") == "RUNNER_TARDIS_MIN_BYTES_PER_SECOND"


def test_equal_requests_are_equal_whatever_the_order_they_were_typed_in(tmp_path: Path) -> None:
    a = _resolve(tmp_path, flags={"venues": "okx,binance", "instruments": "b a", "dataTypes": "quotes trades"}).spec
    b = _resolve(tmp_path, flags={"venues": "BINANCE OKEX", "instruments": "A,B,a", "dataTypes": "trades,quotes"}).spec
    assert a == b
    assert isinstance(a, RunSpec)


def _assert_spec_or_line(flags: dict[str, object], file: Path | None, cwd: Path) -> None:
    try:
        spec = resolve(flags, file, env=STORE, cwd=cwd).spec
    except SpecError as e:
        message = str(e)
    else:
        assert RunSpec.from_json(spec.to_json()) == spec
        return
    assert message.isprintable()
    assert message.startswith(("run.yaml", "flag --", "STAGE"))


SCALARS = st.sampled_from(["shards", "venues", "tardis", "1", "-", "!!int x", "&a", "*a", "<<", "2024-02-30", "{", "["])


@given(
    st.one_of(
        st.binary(max_size=60),
        st.text(max_size=60).map(str.encode),
        st.lists(SCALARS, max_size=12).map(lambda words: ": ".join(words).encode()),
        st.lists(SCALARS, max_size=12).map(lambda words: "\n".join(f"{word}: {word}" for word in words).encode()),
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_whatever_a_run_file_holds_it_is_a_spec_or_one_line(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "run.yaml").write_bytes(body)
    _assert_spec_or_line({}, Path("run.yaml"), tmp_path)


@given(st.sampled_from([key for key in fields() if key != "parent"]), st.text(max_size=40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_whatever_a_flag_says_it_is_a_spec_or_one_line(tmp_path: Path, key: str, value: str) -> None:
    _assert_spec_or_line({key: value}, None, tmp_path)


def test_values_for_a_cluster_lie_between_the_environment_and_the_run_file(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("shards: 5\n")
    layers = [("a.yaml", {"shards": 3, "parallelism": 3, "maxInstruments": 9}), ("b.yaml", {"maxInstruments": None})]
    env = {"RUNNER_PARALLELISM": "2", "RUNNER_STORE": "gs://bucket/prefix"}
    found = resolve({}, Path("run.yaml"), env=env, cwd=tmp_path, layers=layers)
    assert (found.spec.shards, found.spec.parallelism, found.spec.max_instruments) == (5, 3, None)
    assert found.origins["parallelism"] == "a.yaml:run.parallelism"
    with pytest.raises(SpecError, match=r"a\.yaml:run\.shards"):
        resolve({}, env=env, cwd=tmp_path, layers=[("a.yaml", {"shards": 0})])


@pytest.mark.parametrize(("store", "folder"), [("./a%41b", "a%41b"), ("file://./a%41b", "aAb"), ("./c d", "c d")])
def test_a_percent_sign_is_one_in_a_path_and_an_escape_in_a_url(store: str, folder: str, tmp_path: Path) -> None:
    spec = resolve({"store": store}, env={}, cwd=tmp_path).spec
    open_store(spec.store).put("x", b"y")
    assert (tmp_path / folder / "x").exists()


def test_the_old_name_of_a_stage_that_is_to_come_tells_its_new_one(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("stage: bigquery-upload\n")
    with pytest.raises(SpecError, match=r"run.yaml:stage bigquery-upload: is now load, and this version"):
        resolve({}, Path("run.yaml"), env={}, cwd=tmp_path)
