import pytest
from plugin import on_event
from wirehook import Reject, testing

SUBJECT = "fraiseql.order.created"


@pytest.mark.parametrize("total", ["129.5", "12345678901234567890.10", "100", "1e5", "null"])
def test_an_amount_keeps_its_digits(total: str) -> None:
    event = testing.event(SUBJECT, entity_id="550e8400", entity_json=f'{{"total":{total}}}'.encode())
    expected = f'{{"event":"order.created","order_id":"550e8400","customer_email":null,"total":{total}}}'
    assert [webhook.body for webhook in on_event(event)] == [expected.encode()]


def test_other_events_are_filtered_whatever_their_shape() -> None:
    assert on_event(testing.event("fraiseql.order.updated", entity_json=b"not json")) == []


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "has no id"),
        ({"entity_id": "1"}, "has no entity"),
        ({"entity_id": "1", "entity": "text"}, "is no object"),
    ],
)
def test_an_order_without_what_makes_it_one_is_rejected(fields: dict, reason: str) -> None:
    with pytest.raises(Reject, match=reason):
        on_event(testing.event(SUBJECT, **fields))
