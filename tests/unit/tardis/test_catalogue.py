import copy
import json
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from runner.errors import IntegrityError
from runner.tardis.catalogue import parse_exchange

SAMPLES = Path(__file__).parents[2] / "data" / "tardis-api"

SYMBOL = {
    "id": "BTC-29DEC23",
    "type": "future",
    "dataTypes": ["trades", "quotes"],
    "availableSince": "2023-12-22T09:30:00.000Z",
    "availableTo": "2023-12-29T08:00:00.000Z",
}
DOC = {
    "id": "deribit",
    "incidentReports": [{"from": "not read", "status": 7}],
    "datasets": {"exportedUntil": "2024-02-01T00:00:00.000Z", "symbols": [SYMBOL]},
}


def changed(path, value):
    doc = copy.deepcopy(DOC)
    place = doc
    for step in path[:-1]:
        place = place[step]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return doc


def test_document_is_parsed_field_by_field():
    catalogue = parse_exchange(DOC)
    assert (catalogue.exchange, catalogue.exported_until) == ("deribit", datetime(2024, 2, 1, tzinfo=UTC))
    (symbol,) = catalogue.symbols
    assert (symbol.id, symbol.type, symbol.data_types) == ("BTC-29DEC23", "future", ("trades", "quotes"))
    assert symbol.available_since == datetime(2023, 12, 22, 9, 30, tzinfo=UTC)
    assert symbol.available_to == datetime(2023, 12, 29, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("2024-02-01T00:00:00.000Z", None),
        ("2024-03-01T00:00:00.000Z", None),
        ("2024-01-31T00:00:00.000Z", datetime(2024, 1, 31, tzinfo=UTC)),
        (None, None),
    ],
)
def test_symbol_available_until_the_export_ends_is_still_listed(to, expected):
    (symbol,) = parse_exchange(changed(("datasets", "symbols", 0, "availableTo"), to)).symbols
    assert symbol.available_to == expected


def test_exported_until_is_exclusive_and_a_part_of_a_day_is_not_the_day():
    catalogue = parse_exchange(DOC)
    assert catalogue.exported(date(2024, 1, 31))
    assert not catalogue.exported(date(2024, 2, 1))
    noon = parse_exchange(changed(("datasets", "exportedUntil"), "2024-02-01T12:00:00.000Z"))
    assert not noon.exported(date(2024, 2, 1))


def test_offers_compares_whole_days_symbol_and_type():
    catalogue = parse_exchange(DOC)
    offered = [d for d in range(20, 32) if catalogue.offers("BTC-29DEC23", "trades", date(2023, 12, d))]
    assert offered == [22, 23, 24, 25, 26, 27, 28, 29]
    assert not catalogue.offers("BTC-29DEC23", "liquidations", date(2023, 12, 24))
    assert not catalogue.offers("ETH-29DEC23", "trades", date(2023, 12, 24))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("datasets",), None),
        (("datasets",), []),
        (("datasets", "exportedUntil"), None),
        (("datasets", "exportedUntil"), "soon"),
        (("datasets", "symbols"), None),
        (("datasets", "symbols"), {}),
        (("datasets", "symbols", 0), "BTC"),
        (("datasets", "symbols", 0, "id"), None),
        (("datasets", "symbols", 0, "type"), 7),
        (("datasets", "symbols", 0, "dataTypes"), "trades"),
        (("datasets", "symbols", 0, "availableSince"), None),
        (("datasets", "symbols", 0, "availableTo"), "2023-13-01T00:00:00.000Z"),
    ],
)
def test_document_that_is_none_is_refused_with_the_place(path, value):
    with pytest.raises(IntegrityError, match="catalogue of Tardis: deribit") as refused:
        parse_exchange(changed(path, value))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("exchange_*.json")), ids=lambda path: path.stem)
def test_real_documents_are_read(sample):
    catalogue = parse_exchange(json.loads(sample.read_text()))
    assert f"exchange_{catalogue.exchange}" == sample.stem
    assert catalogue.symbols
    assert catalogue.exported(date(2026, 8, 8))
    assert not catalogue.exported(date(2026, 8, 9))
