from pathlib import Path

import pytest
from plugin import on_event
from wirehook import Reject, testing

CREATED = Path(__file__).parent / "events" / "order_created.json"


def test_a_created_order_becomes_a_webhook() -> None:
    [webhook] = testing.call(on_event, CREATED.read_bytes())
    assert webhook.body == (
        b'{"event":"order.created","order_id":"550e8400-e29b-41d4-a716-446655440000",'
        b'"customer_email":"ada@example.com","total":129.5}'
    )


def test_other_events_are_not_for_this_plugin() -> None:
    assert on_event(testing.event("fraiseql.order.deleted")) == []


def test_an_order_without_an_id_is_a_dead_letter() -> None:
    with pytest.raises(Reject, match="has no id"):
        on_event(testing.event("fraiseql.order.created"))
