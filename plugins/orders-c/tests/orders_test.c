#include "wirehook_test.h"

static wh_event created(const char *entity) {
  wh_event event = wh_test_event("fraiseql.order.created");
  event.entity_id = WH("550e8400");
  event.entity = wh_str_of(entity);
  return event;
}

static void check(wh_event event, const char *expected) {
  wh_result result = wh_on_event(&event);
  WH_EXPECT_STR(result.reason, NULL);
  WH_EXPECT_INT(result.webhook_count, 1);
  if (result.webhooks) WH_EXPECT_STR(result.webhooks->body, expected);
}

static void rejected(wh_event event, const char *reason) {
  wh_result result = wh_on_event(&event);
  WH_EXPECT_INT(result.outcome, WH_REJECT);
  WH_EXPECT_STR(result.reason, reason);
}

static void the_body_is_the_pages(void) {
  check(created("{\"id\":\"550e8400\",\"customer_email\":\"ada@example.com\",\"total\":129.5,\"status\":\"pending\"}"),
        "{\"event\":\"order.created\",\"order_id\":\"550e8400\",\"customer_email\":\"ada@example.com\",\"total\":129.5}");
}

static void what_the_order_lacks_is_null(void) {
  const char *expected =
      "{\"event\":\"order.created\",\"order_id\":\"550e8400\",\"customer_email\":null,\"total\":null}";
  check(created("{}"), expected);
  check(created("{\"customer_email\":null}"), expected);
}

static void an_amount_keeps_its_digits(void) {
  check(created("{\"total\":12345678901234567890.10}"),
        "{\"event\":\"order.created\",\"order_id\":\"550e8400\",\"customer_email\":null,"
        "\"total\":12345678901234567890.10}");
}

static void every_format_gives_the_same_webhook(void) {
  static const char *const messages[] = {
      "{\"event\": \"fraiseql.order.created\", \"entity_type\": \"order\", \"operation\": \"created\","
      " \"entity_id\": \"3333\", \"entity\": {\"customer_email\": \"a@b.c\", \"total\": 100},"
      " \"timestamp\": \"2026-03-02T14:00:00Z\"}",
      "{\"id\": \"2222\", \"event_type\": \"INSERT\", \"entity_type\": \"Order\", \"entity_id\": \"3333\","
      " \"data\": {\"customer_email\": \"a@b.c\", \"total\": 100}, \"changes\": null, \"user_id\": null,"
      " \"timestamp\": \"2026-01-22T10:00:00Z\"}",
      "{\"seq\": 7, \"object_type\": \"Order\", \"op\": \"insert\", \"tenant_id\": null, \"object_id\": \"3333\","
      " \"after\": {\"customer_email\": \"a@b.c\", \"total\": 100}, \"before\": null,"
      " \"commit_time\": \"2026-01-22T10:00:00Z\"}",
  };
  for (size_t i = 0; i < sizeof messages / sizeof *messages; i++) {
    check(wh_test_message(messages[i]),
          "{\"event\":\"order.created\",\"order_id\":\"3333\",\"customer_email\":\"a@b.c\",\"total\":100}");
  }
}

static void other_events_are_filtered_whatever_their_shape(void) {
  static const char *const subjects[] = {"fraiseql.order.updated", "fraiseql.user.created", "shop.orders"};
  for (size_t i = 0; i < sizeof subjects / sizeof *subjects; i++) {
    wh_event event = wh_test_event(subjects[i]);
    event.entity = WH("not json");
    wh_result result = wh_on_event(&event);
    WH_EXPECT_INT(result.outcome, WH_WEBHOOKS);
    WH_EXPECT_INT(result.webhook_count, 0);
  }
}

static void an_order_without_what_makes_it_one_is_rejected(void) {
  wh_event event = created("{}");
  event.entity_id = WH_NONE;
  rejected(event, "the order has no id");
  rejected(created(NULL), "the event has no entity");
  rejected(created("\"text\""), "the event's entity is no JSON object");
  rejected(created("{\"total\":}"), "the event's entity is no JSON object");
}

int main(void) {
  WH_RUN(the_body_is_the_pages);
  WH_RUN(what_the_order_lacks_is_null);
  WH_RUN(an_amount_keeps_its_digits);
  WH_RUN(every_format_gives_the_same_webhook);
  WH_RUN(other_events_are_filtered_whatever_their_shape);
  WH_RUN(an_order_without_what_makes_it_one_is_rejected);
  return wh_test_end();
}
