import logging
import os
import subprocess
import sys
from datetime import datetime, timezone
from decimal import Decimal

import pytest
import wirehook
from wirehook import Event, RawJson, Reject, Retry, Webhook, _json, testing
from wirehook.log import LogHandler, Printed


@pytest.mark.parametrize("number", ["129.50", "12345678901234567890.10", "1e400", "-0.0", "7", "1E5"])
def test_numbers_keep_their_digits(number: str) -> None:
    assert _json.dumps(_json.loads(number)) == number.encode()


def test_numbers_can_be_reckoned_with() -> None:
    total = _json.loads('{"total": 129.50}')["total"]
    assert isinstance(total, RawJson) and total * 2 == Decimal("259.00")
    assert _json.dumps([total * 2, 0.1]) == b"[259.00,0.1]"


def test_json_is_strict_and_compact() -> None:
    assert _json.dumps({"ä": [True, None, "\n\u2028"], "e": {}, "l": []}) == '{"ä":[true,null,"\\n\u2028"],"e":{},"l":[]}'.encode()
    for wrong in (float("nan"), Decimal("Infinity")):
        with pytest.raises(ValueError):
            _json.dumps(wrong)
    for wrong in ({1: 2}, {"a": object()}, b"bytes"):
        with pytest.raises(TypeError):
            _json.dumps(wrong)
    with pytest.raises(ValueError):
        _json.loads("NaN")


@pytest.mark.parametrize(
    ("text", "is_too_deep"),
    [
        ("[" * 127 + "]" * 127, False),
        ("[" * 128 + "]" * 128, True),
        ('{"a":' * 128 + "1" + "}" * 128, True),
        ("[" * 5000 + "]" * 5000, True),
        ('["' + "[" * 200 + '\\"",[]]', False),
        ("[" + "{}," * 200 + "{}]", False),
        ('"' + "[" * 200, False),
    ],
)
def test_an_entity_that_is_too_deep_is_named(text: str, is_too_deep: bool) -> None:
    event = testing.event("a.order.created", entity_json=text.encode())
    try:
        _ = event.entity
        refused = ""
    except Reject as reject:
        refused = reject.reason
    assert (refused == "the event's `entity` is nested deeper than 127 levels") == is_too_deep, refused


def test_an_event_is_read_when_it_is_asked_for() -> None:
    event = testing.event("fraiseql.order_line.created", entity_json=b"no json", timestamp="2026-03-02T14:00:00Z")
    assert (event.entity_type, event.operation) == ("order_line", "created")
    assert event.now == datetime(2026, 3, 2, 14, tzinfo=timezone.utc)
    with pytest.raises(Reject, match="the entity is not JSON"):
        _ = event.entity
    with pytest.raises(Reject, match="has no entity"):
        _ = testing.event("a").entity
    assert testing.event("a", timestamp="soon").now.year == 1970
    assert testing.event("a").random.random() == testing.event("a").random.random()
    assert testing.event("a", attributes=[("header.x-a", "1")]).header("X-A") == "1"


@pytest.mark.parametrize(
    "message",
    [
        '{"entity_type":"OrderLine","operation":"created","entity_id":"3","entity":{"total":1.50}}',
        '{"entity_type":"OrderLine","event_type":"INSERT","entity_id":"3","data":{"total":1.50}}',
        '{"object_type":"OrderLine","op":"insert","object_id":"3","after":{"total":1.50},"before":null}',
        '{"object_type":"order_line","modification_type":"INSERT","object_id":"3","object_data":{"total":1.50}}',
    ],
)
def test_every_format_gives_the_same_event(message: str) -> None:
    event = testing.from_message(message)
    assert (event.subject, event.entity_id) == ("fraiseql.order_line.created", "3")
    assert event.entity_json == b'{"total":1.50}' and event.previous is None


def test_what_is_raised_becomes_a_reject_that_names_the_line() -> None:
    def on_event(event: Event) -> list[Webhook]:
        return [Webhook.json(event.entity["total"])]

    with pytest.raises(Reject) as caught:
        testing.call(on_event, '{"a": 1}')
    assert caught.value.reason.startswith("KeyError: 'total'\n  at test_sdk.py:")
    assert "in on_event: return [Webhook.json" in caught.value.reason

    def forgets(_: Event) -> list[Webhook]:
        return None  # type: ignore[return-value]

    with pytest.raises(Reject, match="must return a list of Webhook, not None"):
        testing.call(forgets, "{}")

    def waits(_: Event) -> list[Webhook]:
        raise Retry("later")

    with pytest.raises(Retry, match="later"):
        testing.call(waits, "{}")


def test_config_and_log_are_the_tests() -> None:
    testing.config(currency="USD")
    assert wirehook.config.get("currency") == "USD" and wirehook.config.all() == {"currency": "USD"}
    testing.config()
    assert wirehook.config.get("currency", "EUR") == "EUR"
    wirehook.log.info("one")
    LogHandler().emit(logging.LogRecord("a", logging.WARNING, "", 0, "two %s", ("2",), None))
    print("three\nfour", file=Printed("debug"))
    assert testing.logs() == [("info", "one"), ("warn", "two 2"), ("debug", "three"), ("debug", "four")]
    assert testing.logs() == []


def test_a_webhook_is_data() -> None:
    webhook = Webhook.json({"a": 1}, endpoint="audit", key="k", headers=[("x-a", "1")])
    assert webhook == Webhook(b'{"a":1}', "audit", "k", None, [("x-a", "1")]) and webhook.body_json() == {"a": 1}


def test_what_needs_a_file_says_so_once_the_build_is_over() -> None:
    code = """
import importlib, sys, zoneinfo
from wirehook import _sealed
_sealed.seal()
for needing in (lambda: importlib.import_module("colorsys"), lambda: zoneinfo.ZoneInfo("Europe/Paris")):
    try:
        needing()
    except Exception as error:
        print(type(error).__name__, error)
importlib.import_module("json"), importlib.import_module("itertools")
"""
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.run([sys.executable, "-c", code], env=paths, capture_output=True, text=True, check=True).stdout
    assert "ModuleNotFoundError colorsys was not imported when the plugin was built" in said
    assert "ZoneInfoNotFoundError \"no data for the time zone 'Europe/Paris'" in said
