/* An order that was created becomes a webhook. */
#include "wirehook.h"

/* Called once for each event. No webhooks: the event is not for this plugin. */
wh_result wh_on_event(const wh_event *event) {
  if (!wh_is(event->subject, "fraiseql.order.created")) return wh_none();
  if (!event->entity_id.data) return wh_reject(WH("the order has no id"));
  if (wh_json_kind_of(event->entity) != WH_JSON_OBJECT) return wh_reject(WH("the event's entity is no JSON object"));

  /* What is passed on is as the publisher wrote it: an amount never goes through a float. */
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
