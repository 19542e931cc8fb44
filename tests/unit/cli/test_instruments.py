"""`instruments list|show|changes` over tables that a store has: what is printed, in each form, and the exit codes."""

import json
import logging
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest
import yaml

from runner.cli import main
from runner.stages.instruments import day_instruments
from runner.store import open_store

BTC, PERP, OPTION = (
    "BINANCE:SPOT_PAIR:BTC-USDT",
    "OKX-SWAP:PERPETUAL:BTC-USDT",
    "DERIBIT:OPTION:BTC-USD-241225-50000-CALL",
)
TYPES = ["trades", "quotes"]


def symbol(name: str, kind: str, since: str = "2020-01-01", to: str | None = None, types: list[str] = TYPES) -> dict:
    entry = {"id": name, "type": kind, "dataTypes": types, "availableSince": f"{since}T00:00:00.000Z"}
    return entry | ({"availableTo": f"{to}T00:00:00.000Z"} if to else {})


CATALOGUE = {
    "binance": [
        symbol("BTCUSDT", "spot"),
        symbol("ETHUSDT", "spot", since="2024-08-02"),
        symbol("XRPUSDT", "spot", to="2024-08-02"),
        symbol("WHATEVER", "spot"),
    ],
    "okex-swap": [symbol("BTC-USDT-SWAP", "perpetual")],
    "deribit": [symbol("BTC-25DEC24-50000-C", "option"), symbol("OPTIONS", "option", types=["options_chain"])],
}
LATER = CATALOGUE | {"okex-swap": [symbol("BTC-USDT-SWAP", "perpetual", types=["trades"])]}


class Source:
    """The source's catalogue, as it is on a day."""

    def __init__(self, catalogue: dict) -> None:
        self._catalogue = catalogue

    def exchanges(self) -> list[dict]:
        return [{"id": name, "supportsDatasets": True} for name in self._catalogue]

    def exchange(self, name: str) -> dict:
        datasets = {"exportedUntil": "2024-09-01T00:00:00.000Z", "symbols": self._catalogue[name]}
        return {"id": name, "datasets": datasets}


@pytest.fixture
def runner(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable]:
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level

    def run(*words: str) -> tuple[int, str, str]:
        code = main([*words, "--store", f"file://{tmp_path}/store"])
        return code, *capsys.readouterr()

    yield run
    root.handlers[:] = before
    root.setLevel(level)


@pytest.fixture
def filled(tmp_path: Path, runner: Callable) -> Callable:
    store = open_store(f"file://{tmp_path}/store")
    day_instruments(store, Source(CATALOGUE), date(2024, 8, 1))
    day_instruments(store, Source(LATER), date(2024, 8, 2))
    return runner


def test_a_day_is_listed_with_groups_and_symbols_without_a_key_apart(filled) -> None:
    code, out, err = filled("instruments", "list", "--day", "2024-08-01")
    assert (code, err) == (0, "")
    instruments, groups, unparsed = out.split("\n\n")
    assert [line.split()[0] for line in instruments.splitlines()] == [
        "INSTRUMENT",
        BTC,
        "BINANCE:SPOT_PAIR:XRP-USDT",
        OPTION,
        PERP,
    ]
    assert instruments.splitlines()[2].split() == (
        ["BINANCE:SPOT_PAIR:XRP-USDT", "XRPUSDT", "2020-01-01", "2024-08-02", "trades", "quotes"]
    )
    assert groups.splitlines()[1].split()[:2] == ["DERIBIT:OPTION:OPTIONS", "OPTIONS"]
    assert unparsed.splitlines()[1].startswith("binance WHATEVER")


def test_without_a_day_it_is_the_newest(filled) -> None:
    code, out, _ = filled("instruments", "list", "-o", "name", "--venues", "binance")
    assert (code, out.split()) == (0, [BTC, "BINANCE:SPOT_PAIR:ETH-USDT"])


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (("--instruments", "*:BTC-*"), [BTC, OPTION, PERP, "DERIBIT:OPTION:OPTIONS"]),
        (("--instruments", "deribit:option:options"), ["DERIBIT:OPTION:OPTIONS"]),
        (("--instruments", "btcusdt"), [BTC]),
        (("--instrument-types", "perp"), [PERP]),
        (("--venues", "okex-swap,binance", "--max-instruments", "1"), [BTC, PERP]),
    ],
)
def test_selectors_take_what_a_request_takes(filled, words: tuple[str, ...], keys: list[str]) -> None:
    assert filled("instruments", "list", "-o", "name", *words)[1].split() == keys


def test_json_and_yaml_say_the_same_and_have_every_column(filled) -> None:
    words = ("instruments", "list", "--day", "2024-08-01", "-o")
    document = json.loads(filled(*words, "json")[1])
    assert yaml.safe_load(filled(*words, "yaml")[1]) == document
    assert (document["apiVersion"], document["kind"], document["day"]) == ("runner/v1", "InstrumentList", "2024-08-01")
    (perp,) = [row for row in document["instruments"] if row["instrument_key"] == PERP]
    assert len(perp) == 30
    assert (perp["tardis_symbol"], perp["contract_size"], perp["amount_unit"]) == ("BTC-USDT-SWAP", 0.01, "contract")
    assert [group["instrument_key"] for group in document["groups"]] == ["DERIBIT:OPTION:OPTIONS"]
    (unparsed,) = document["unparsed"]
    assert (unparsed["exchange"], unparsed["symbol"], bool(unparsed["reason"])) == ("binance", "WHATEVER", True)


def test_an_instrument_is_shown_with_symbol_dates_and_units(filled) -> None:
    code, out, _ = filled("instruments", "show", PERP.lower(), "--day", "2024-08-01")
    cells = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert code == 0
    assert (cells["exchange_raw_symbol"], cells["listed_from"], cells["listed_to"]) == (
        "BTC-USDT-SWAP",
        "2020-01-01",
        "-",
    )
    assert cells["amounts_are_in"] == "contracts of 0.01 BTC"
    option = json.loads(filled("instruments", "show", OPTION, "-o", "json")[1])["instrument"]
    assert (option["strike"], option["option_type"], option["listed_to"]) == (50000.0, "call", "2024-12-26")
    assert filled("instruments", "show", "deribit:option:options", "-o", "name")[1] == "DERIBIT:OPTION:OPTIONS\n"
    assert filled("instruments", "show", "btcusdt", "-o", "name")[1] == f"{BTC}\n"


def test_changes_are_what_two_days_differ_in(filled) -> None:
    words = ("instruments", "changes", "--start-date", "2024-08-01", "--end-date", "2024-08-02")
    code, out, _ = filled(*words, "-o", "json")
    document = json.loads(out)
    assert code == 0
    assert document["listed"] == ["BINANCE:SPOT_PAIR:ETH-USDT"]
    assert document["delisted"] == ["BINANCE:SPOT_PAIR:XRP-USDT"]
    assert document["changed"] == [{"key": PERP, "column": "data_types", "before": TYPES, "after": ["trades"]}]
    assert [line.split()[:2] for line in filled(*words)[1].splitlines()] == [
        ["INSTRUMENT", "WHAT"],
        ["BINANCE:SPOT_PAIR:ETH-USDT", "listed"],
        ["BINANCE:SPOT_PAIR:XRP-USDT", "delisted"],
        [PERP, "changed"],
    ]
    same = filled("instruments", "changes", "--start-date", "2024-08-02", "--end-date", "2024-08-02")
    assert same == (0, "", "nothing changed from 2024-08-02 to 2024-08-02\n")


def test_what_is_listed_on_both_days_has_not_changed_whatever_else_has(filled, tmp_path) -> None:
    gone = [symbol("BTC-25DEC24-50000-C", "option", to="2024-08-02"), *CATALOGUE["deribit"][1:]]
    day_instruments(open_store(f"file://{tmp_path}/store"), Source({**LATER, "deribit": gone}), date(2024, 8, 3))
    words = ("instruments", "changes", "--start-date", "2024-08-01", "--end-date", "2024-08-03", "-o", "json")
    document = json.loads(filled(*words, "--instruments", OPTION)[1])
    assert (document["listed"], document["delisted"], document["changed"]) == ([], [OPTION], [])
    assert filled(*words, "--max-instruments", "1")[0] == 2


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (("list", "--day", "2024-08-09"), 5, "runner submit instruments --start-date 2024-08-09 --end-date 2024-08-09"),
        (("list", "--instruments", "*:DOGE-*"), 5, "nothing matches: *:DOGE-*"),
        (("list", "--day", "yesterday"), 2, "--day yesterday"),
        (("show", "BINANCE:SPOT_PAIR:BTC-USDX"), 5, f"did you mean {BTC}?"),
        (("show", "BINANCE:SPOT_PAIR:XRP-USDT"), 5, "not listed on 2024-08-02"),
        (("show", "*:btc-*"), 2, f"*:btc-* means 3 instruments on 2024-08-02: {BTC}, {OPTION}, {PERP}; give the key"),
        (("changes",), 2, "--start-date and --end-date"),
        (("changes", "--start-date", "2024-08-01", "--end-date", "2024-08-09"), 5, "2024-08-09 yet; make it"),
        (("changes", "--start-date", "2024-08-01", "--end-date", "2024-08-02", "--venues", "upbit"), 5, "UPBIT"),
        (("lst",), 2, "lst"),
    ],
)
def test_what_cannot_be_shown_is_one_line_and_an_exit_code(
    filled, words: tuple[str, ...], code: int, part: str
) -> None:
    ended, out, err = filled("instruments", *words)
    assert (ended, out, err.count("\n")) == (code, "", 1), err
    assert part in err


def test_a_store_without_tables_says_how_to_make_them(runner, tmp_path: Path) -> None:
    code, out, err = runner("instruments", "list")
    assert (code, out) == (5, "")
    assert err.endswith(f"make it: runner submit instruments --store file://{tmp_path}/store\n")
