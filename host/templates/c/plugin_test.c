#include "wirehook_test.h"

static void a_created_order_becomes_a_webhook(void) {
  wh_event event = wh_test_message(wh_test_file("events/order_created.json"));
  wh_result result = wh_on_event(&event);
  WH_EXPECT_STR(result.reason, NULL);
  WH_EXPECT_INT(result.webhook_count, 1);
  if (!result.webhooks) return;
  WH_EXPECT_STR(result.webhooks->body,
                "{\"event\":\"order.created\",\"order_id\":\"550e8400-e29b-41d4-a716-446655440000\","
                "\"customer_email\":\"ada@example.com\",\"total\":129.5}");
}

static void other_events_are_not_for_this_plugin(void) {
  wh_event event = wh_test_event("fraiseql.order.deleted");
  wh_result result = wh_on_event(&event);
  WH_EXPECT_INT(result.outcome, WH_WEBHOOKS);
  WH_EXPECT_INT(result.webhook_count, 0);
}

static void an_order_without_an_id_is_a_dead_letter(void) {
  wh_event event = wh_test_event("fraiseql.order.created");
  event.entity = WH("{}");
  WH_EXPECT_INT(wh_on_event(&event).outcome, WH_REJECT);
}

int main(void) {
  WH_RUN(a_created_order_becomes_a_webhook);
  WH_RUN(other_events_are_not_for_this_plugin);
  WH_RUN(an_order_without_an_id_is_a_dead_letter);
  return wh_test_end();
}
