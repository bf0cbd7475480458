// The example of FraiseQL's webhooks page: an order that was created becomes a webhook for the shop's notifications.
// Amounts keep the digits that the publisher wrote: entityExact reads no number as a double.
import { reject, webhook } from "wirehook";

const ORDER_CREATED = "fraiseql.order.created";

/** @type {import("wirehook").OnEvent} */
export function onEvent(event) {
  if (event.subject !== ORDER_CREATED) return [];
  if (event.entityId === undefined) throw reject("the order has no id");
  const order = event.entityExact();
  if (order === null || typeof order !== "object" || Array.isArray(order)) throw reject("the order is no object");
  return [
    webhook.json({
      event: "order.created",
      order_id: event.entityId,
      customer_email: order.customer_email ?? null,
      total: order.total ?? null,
    }),
  ];
}
