/* The example of FraiseQL's webhooks page: an order that was created becomes a webhook for the shop's notifications. */
#include "wirehook.h"

/* Turns fraiseql.order.created into one webhook for the default endpoint; anything else is not for this plugin. */
wh_result wh_on_event(const wh_event *event) {
  if (!wh_is(event->subject, "fraiseql.order.created")) return wh_none();
  if (!event->entity_id.data) return wh_reject(WH("the order has no id"));
  if (!event->entity.data) return wh_reject(WH("the event has no entity"));
  if (wh_json_kind_of(event->entity) != WH_JSON_OBJECT) return wh_reject(WH("the event's entity is no JSON object"));

  /* In the page's order, and as the publisher wrote it: an amount never goes through a float here. What the order lacks
   * is null, as with Python's dict.get. */
  wh_json body = {0};
  wh_put_object(&body, NULL);
  wh_put_text(&body, "event", WH("order.created"));
  wh_put_text(&body, "order_id", event->entity_id);
  wh_put_raw(&body, "customer_email", wh_json_get(event->entity, "/customer_email"));
  wh_put_raw(&body, "total", wh_json_get(event->entity, "/total"));

  wh_result result = wh_none();
  wh_add(&result, wh_written(&body));
  return result;
}
