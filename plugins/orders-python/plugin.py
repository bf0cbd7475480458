"""The example of FraiseQL's webhooks page: an order that was created becomes a webhook."""

from wirehook import Event, Reject, Webhook


def on_event(event: Event) -> list[Webhook]:
    if event.subject != "fraiseql.order.created":
        return []
    if event.entity_id is None:
        raise Reject("the order has no id")
    order = event.entity
    if not isinstance(order, dict):
        raise Reject(f"the order is no object: {order!r:.100}")
    return [
        Webhook.json(
            {
                "event": "order.created",
                "order_id": event.entity_id,
                "customer_email": order.get("customer_email"),
                "total": order.get("total"),
            }
        )
    ]
