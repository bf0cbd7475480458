// An order that was created becomes a webhook.
import { reject, webhook } from "wirehook";

/**
 * Called once for each event. An empty array: the event is not for this plugin.
 * @type {import("wirehook").OnEvent}
 */
export function onEvent(event) {
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
