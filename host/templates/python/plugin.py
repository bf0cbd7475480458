"""Turns orders that were created into webhooks."""

from wirehook import Event, Reject, Webhook


def on_event(event: Event) -> list[Webhook]:
    if event.subject != "fraiseql.order.created":
        return []  # not for us: filtered
    if event.entity_id is None:
        raise Reject("the order has no id")
    return [
        Webhook.json(
            {
                "event": "order.created",
                "order_id": event.entity_id,
                "customer_email": event.entity.get("customer_email"),
                "total": event.entity.get("total"),
            }
        )
    ]
