/* Of the SDK itself: JSON, memory, results, and the test harness. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wirehook_test.h"

wh_result wh_on_event(const wh_event *event) {
  (void)event;
  return wh_none();
}

static void kind(const char *json, wh_json_kind expected) {
  wh_json_kind found = wh_json_kind_of(wh_str_of(json));
  if (found != expected) printf("%s\n", json);
  WH_EXPECT_INT(found, expected);
}

static void what_is_json_and_what_is_not(void) {
  kind(" {\"a\":[1,{}],\"b\":null}\n", WH_JSON_OBJECT);
  kind("[]", WH_JSON_ARRAY);
  kind("\"\\u00e9\\\"\"", WH_JSON_TEXT);
  kind("true", WH_JSON_BOOL);
  kind("null", WH_JSON_NULL);
  static const char *const numbers[] = {"0", "-0.5", "12345678901234567890.10", "1e9", "1E-7", "2.0e+1"};
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) kind(numbers[i], WH_JSON_NUMBER);
  static const char *const others[] = {
      "",      " ",      "{",         "[1,]",  "{\"a\"}", "{\"a\":1,}", "{a:1}",    "01",  "1.",   ".5", "-", "+1",
      "1e",    "\"a",    "\"\\x\"",   "\"\n\"", "nul",     "nullx",      "[1 2]",    "1 2", "[1}",  "{]", "\"\\u12g4\"",
      "'a'",   "tru",    "{\"a\":}",  ",",     "[,1]",    "\"\\",       "\"\\u12",  "{\"a\" 1}",
  };
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) kind(others[i], WH_JSON_NONE);
  WH_EXPECT_INT(wh_json_kind_of(WH_NONE), WH_JSON_NONE);
  WH_EXPECT_INT(wh_json_kind_of(WH("\"a\0b\"")), WH_JSON_NONE);
}

static void depth_is_bounded(void) {
  char nested[2 * (WH_JSON_DEPTH_MAX + 1)];
  for (size_t depth = WH_JSON_DEPTH_MAX; depth <= WH_JSON_DEPTH_MAX + 1; depth++) {
    memset(nested, '[', depth);
    memset(nested + depth, ']', depth);
    bool fits = depth == WH_JSON_DEPTH_MAX;
    WH_EXPECT_INT(wh_json_kind_of((wh_str){nested, 2 * depth}), fits ? WH_JSON_ARRAY : WH_JSON_NONE);
  }
}

/* Whatever is cut off or changed, nothing outside the text is read: the address sanitizer watches. */
static void no_text_leads_outside(void) {
  wh_str json = WH("{\"a\\u00e9\\ud83d\\ude00\":[1.5e3,-2,true,null,\"x\\n\"],\"b\":{\"c\":false}}");
  for (size_t size = 0; size <= json.size; size++) {
    for (size_t at = 0; at <= size; at++) {
      char *cut = malloc(size + 1);
      memcpy(cut, json.data, size);
      if (at < size) cut[at] = "\"\\u{]0,"[(at + size) % 8];
      wh_str text = {cut, size};
      wh_json_kind_of(text);
      wh_json_get(text, "/b/c");
      for (wh_json_each each = {.json = text}; wh_json_next(&each);) wh_json_text(each.value);
      wh_arena_reset();
      free(cut);
    }
  }
}

static void a_pointer_finds_what_was_written(void) {
  wh_str json = WH(" {\"a\": 1.50, \"b\":{\"c/d~e\":[true,\"x\",{\"\":2}]}, \"\\u0061b\":3, \"a\":12345678901234567890}");
  WH_EXPECT_STR(wh_json_get(json, "/a"), "12345678901234567890");
  WH_EXPECT_STR(wh_json_get(json, "/b/c~1d~0e/1"), "\"x\"");
  WH_EXPECT_STR(wh_json_get(json, "/b/c~1d~0e/2/"), "2");
  WH_EXPECT_STR(wh_json_get(json, "/ab"), "3");
  WH_EXPECT_STR(wh_json_get(WH(" 7 "), ""), "7");
  static const char *const nowhere[] = {"/x", "/b/x", "/a/0", "/b/c~1d~0e/3", "/b/c~1d~0e/01", "/b/c~1d~0e/-", "a"};
  for (size_t i = 0; i < sizeof nowhere / sizeof *nowhere; i++) WH_EXPECT_STR(wh_json_get(json, nowhere[i]), NULL);
  WH_EXPECT_STR(wh_json_get(WH_NONE, "/a"), NULL);
}

static void text_is_decoded(void) {
  WH_EXPECT_STR(wh_json_text(WH("\"plain\"")), "plain");
  WH_EXPECT_STR(wh_json_text(WH("\"\"")), "");
  WH_EXPECT_STR(wh_json_text(WH("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"")), "\"\\/\b\f\n\r\t");
  WH_EXPECT_STR(wh_json_text(WH("\"\\u00e9\\u20ac\\ud83d\\ude00\\ud83d\"")), "é€😀\xef\xbf\xbd");
  WH_EXPECT_STR(wh_json_text(WH("12")), NULL);
  WH_EXPECT_INT(wh_json_text(WH("\"a\\u0000b\"")).size, 3);
}

static void numbers_are_read_where_they_fit(void) {
  int64_t whole = 7;
  WH_EXPECT(wh_json_int(WH("-9223372036854775808"), &whole) && whole == INT64_MIN);
  WH_EXPECT(wh_json_int(WH(" 9223372036854775807 "), &whole) && whole == INT64_MAX);
  WH_EXPECT(wh_json_int(WH("-0"), &whole) && whole == 0);
  static const char *const others[] = {"9223372036854775808", "-9223372036854775809", "1.0", "1e3", "\"1\"", "", "null"};
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) WH_EXPECT(!wh_json_int(wh_str_of(others[i]), &whole));
  double real = 0;
  WH_EXPECT(wh_json_double(WH("-12.5e1"), &real) && real == -125);
  WH_EXPECT(!wh_json_double(WH("\"1\""), &real));
}

static void members_and_elements_are_gone_through(void) {
  wh_json_each each = {.json = WH(" { \"a\" : 1 , \"\\u0062\" : [2] } ")};
  WH_EXPECT(wh_json_next(&each));
  WH_EXPECT_STR(each.name, "a");
  WH_EXPECT_STR(each.value, "1");
  WH_EXPECT(wh_json_next(&each));
  WH_EXPECT_STR(each.name, "b");
  WH_EXPECT_STR(each.value, "[2]");
  WH_EXPECT(!wh_json_next(&each));
  int64_t sum = 0, value = 0;
  for (wh_json_each item = {.json = WH("[1, 2,3]")}; wh_json_next(&item); sum += value) {
    WH_EXPECT_STR(item.name, NULL);
    WH_EXPECT(wh_json_int(item.value, &value));
  }
  WH_EXPECT_INT(sum, 6);
  static const char *const others[] = {"", "1", "[]", "{}", "{", "[", "{1", "{\"a\"", "[x"};
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
    wh_json_each none = {.json = wh_str_of(others[i])};
    WH_EXPECT(!wh_json_next(&none));
  }
}

static void what_is_written_is_json(void) {
  wh_json json = {0};
  wh_put_object(&json, NULL);
  wh_put_text(&json, "te\"xt", WH("a\"b\\c\n\x01 é"));
  wh_put_text(&json, "none", WH_NONE);
  wh_put_array(&json, "list");
  wh_put_int(&json, NULL, INT64_MIN);
  wh_put_int(&json, NULL, 0);
  wh_put_int(&json, NULL, 120);
  wh_put_array(&json, NULL);
  wh_put_end(&json);
  wh_put_bool(&json, NULL, true);
  wh_put_end(&json);
  wh_put_raw(&json, "raw", WH("1.50"));
  wh_put_raw(&json, "absent", WH_NONE);
  wh_put_object(&json, "open");
  wh_put_bool(&json, "b", false);
  wh_str text = wh_written(&json);
  WH_EXPECT_STR(text, "{\"te\\\"xt\":\"a\\\"b\\\\c\\n\\u0001 é\",\"none\":null,"
                      "\"list\":[-9223372036854775808,0,120,[],true],\"raw\":1.50,\"absent\":null,\"open\":{\"b\":false}}");
  WH_EXPECT_INT(wh_json_kind_of(text), WH_JSON_OBJECT);
  WH_EXPECT_STR(wh_json_text(wh_json_get(text, "/te\"xt")), "a\"b\\c\n\x01 é");
}

static void memory_grows_with_what_is_asked(void) {
  wh_json json = {0};
  wh_put_array(&json, NULL);
  for (int i = 0; i < 100000; i++) wh_put_int(&json, NULL, i);
  wh_str text = wh_written(&json);
  WH_EXPECT_INT(text.size, 588891);
  WH_EXPECT_STR(wh_json_get(text, "/99999"), "99999");
  for (size_t size = 0; size < 100; size++) {
    char *memory = wh_alloc(size);
    WH_EXPECT((uintptr_t)memory % 16 == 0);
    memset(memory, 1, size);
  }
}

/* An instance that is reused takes the same memory for every event. */
static void memory_begins_anew_with_every_event(void) {
  wh_arena_reset();
  void *first = wh_alloc(1);
  wh_alloc(1000000);
  wh_arena_reset();
  WH_EXPECT(wh_alloc(1) == first);
  WH_EXPECT(wh_alloc(0) != NULL);
}

static void a_result_keeps_its_order(void) {
  wh_result result = wh_none();
  wh_webhook *first = wh_add(&result, WH("1"));
  wh_add(&result, WH("2"))->endpoint = WH("chat");
  char name[] = "X-0";
  for (int i = 0; i < 9; i++, name[2]++) wh_header(first, wh_format("%s", name), WH("v"));
  WH_EXPECT_INT(result.webhook_count, 2);
  WH_EXPECT_STR(result.webhooks->body, "1");
  WH_EXPECT_STR(result.webhooks->next->endpoint, "chat");
  WH_EXPECT(!result.webhooks->next->next);
  WH_EXPECT_INT(first->header_count, 9);
  WH_EXPECT_STR(first->headers[0].name, "X-0");
  WH_EXPECT_STR(first->headers[8].name, "X-8");
  WH_EXPECT_INT(wh_retry(WH("later")).outcome, WH_RETRY);
}

static void config_and_log_belong_to_a_test(void) {
  WH_EXPECT_STR(wh_config("currency"), NULL);
  wh_test_config("shop", "berlin");
  wh_test_config("currency", "CHF");
  wh_test_config("currency", "EUR");
  WH_EXPECT_STR(wh_config_or("currency", WH("USD")), "EUR");
  WH_EXPECT_STR(wh_config_or("language", WH("de")), "de");
  size_t count = 0;
  const wh_pair *all = wh_config_all(&count);
  WH_EXPECT_INT(count, 2);
  WH_EXPECT_STR(all[0].name, "currency");
  wh_log(WH_WARN, wh_format("%d of %.*s", 2, WH_ARG(WH("three"))));
  const wh_test_line *lines = wh_test_lines(&count);
  WH_EXPECT_INT(count, 1);
  WH_EXPECT_INT(lines[0].level, WH_WARN);
  WH_EXPECT_STR(lines[0].text, "2 of three");
}

static void config_and_log_are_empty_again(void) {
  size_t count = 1;
  wh_config_all(&count);
  WH_EXPECT_INT(count, 0);
  wh_test_lines(&count);
  WH_EXPECT_INT(count, 0);
}

static void a_message_becomes_an_event(void) {
  wh_event event = wh_test_message("{\"seq\":7,\"object_type\":\"HTTPRouteV2Line\",\"op\":\"update\",\"tenant_id\":\"t\","
                                   "\"object_id\":3333,\"after\":{\"v\":2},\"before\":null,\"actor_type\":\"user\"}");
  WH_EXPECT_STR(event.subject, "fraiseql.http_route_v2_line.updated");
  WH_EXPECT_STR(event.entity_type, "http_route_v2_line");
  WH_EXPECT_STR(event.operation, "updated");
  WH_EXPECT_STR(event.key, "test/seq/http_route_v2_line:7");
  WH_EXPECT_STR(event.entity_id, "3333");
  WH_EXPECT_STR(event.tenant_id, "t");
  WH_EXPECT_STR(event.timestamp, NULL);
  WH_EXPECT_STR(event.entity, "{\"v\":2}");
  WH_EXPECT_STR(event.previous, NULL);
  WH_EXPECT_STR(wh_attribute(&event, "format"), "change_event");
  WH_EXPECT_STR(wh_attribute(&event, "seq"), "7");
  WH_EXPECT_STR(wh_attribute(&event, "actor"), "user");
  WH_EXPECT_STR(wh_attribute(&event, "traceparent"), NULL);

  event = wh_test_message("[1,2]");
  WH_EXPECT_STR(event.subject, "test");
  WH_EXPECT_STR(event.operation, "custom");
  WH_EXPECT_STR(event.entity, "[1,2]");
  event = wh_test_message("{\"id\":\"4444\",\"object_type\":\"Order\",\"modification_type\":\"DELETE\",\"object_data\":null}");
  WH_EXPECT_STR(event.subject, "fraiseql.order.deleted");
  WH_EXPECT_STR(event.key, "test/id/4444");
  WH_EXPECT_STR(event.entity, NULL);
}

int main(void) {
  WH_RUN(what_is_json_and_what_is_not);
  WH_RUN(depth_is_bounded);
  WH_RUN(no_text_leads_outside);
  WH_RUN(a_pointer_finds_what_was_written);
  WH_RUN(text_is_decoded);
  WH_RUN(numbers_are_read_where_they_fit);
  WH_RUN(members_and_elements_are_gone_through);
  WH_RUN(what_is_written_is_json);
  WH_RUN(memory_grows_with_what_is_asked);
  WH_RUN(memory_begins_anew_with_every_event);
  WH_RUN(a_result_keeps_its_order);
  WH_RUN(config_and_log_belong_to_a_test);
  WH_RUN(config_and_log_are_empty_again);
  WH_RUN(a_message_becomes_an_event);
  return wh_test_end();
}
