// An order that was created becomes a webhook.
import { type Event, type Webhook, reject, webhook } from "wirehook";

/** What is passed on. */
interface Order {
  customer_email?: string | null;
  total?: number | null;
}

/** Called once for each event. An empty array: the event is not for this plugin. */
export function onEvent(event: Event<Order>): Webhook[] {
  if (event.subject !== "fraiseql.order.created") return [];
  if (event.entityId === undefined) throw reject("the order has no id");
  // Its numbers keep their digits: an amount never goes through a double.
  const order = event.entityExact();
  return [
    webhook.json({
      event: "order.created",
      order_id: event.entityId,
      customer_email: order.customer_email ?? null,
      total: order.total ?? null,
    }),
  ];
}
