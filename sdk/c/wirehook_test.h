/* Native tests of a plugin, or of anything else: events to call wh_on_event with, its config, and the lines it logged.
 *
 *   static void an_order_becomes_a_webhook(void) {
 *     wh_event event = wh_test_event("fraiseql.order.created");
 *     event.entity = WH("{\"total\":129.50}");
 *     wh_result result = wh_on_event(&event);
 *     WH_EXPECT_INT(result.webhook_count, 1);
 *     WH_EXPECT_STR(result.webhooks->body, "{\"total\":129.50}");
 *   }
 *
 *   int main(void) {
 *     WH_RUN(an_order_becomes_a_webhook);
 *     return wh_test_end();
 *   }
 *
 * Memory, config and log begin anew with every test. */
#ifndef WIREHOOK_TEST_H
#define WIREHOOK_TEST_H

#include "wirehook.h"

/* Values that a test's config may have, and lines of its log that are kept. */
#define WH_TEST_CONFIG_MAX 64
#define WH_TEST_LINES_MAX 1000

/* Runs a test: a function without parameters. */
#define WH_RUN(test) wh_test_run(#test, test)
/* The program's exit code; says how many tests failed. */
int wh_test_end(void);

/* What does not hold is told of with its line; the test goes on. */
#define WH_EXPECT(condition) wh_test_expect((condition), #condition, __FILE__, __LINE__)
/* The text must be this one; NULL: there must be none. */
#define WH_EXPECT_STR(actual, expected) wh_test_expect_str((actual), (expected), #actual, __FILE__, __LINE__)
#define WH_EXPECT_INT(actual, expected) \
  wh_test_expect_int((long long)(actual), (long long)(expected), #actual, __FILE__, __LINE__)

/* An event of this subject; fraiseql.{entity_type}.{operation} sets those two as well. The rest is there to be set. */
wh_event wh_test_event(const char *subject);
/* The event that the host makes of a message: FraiseQL's page format, EntityEvent, ChangeEvent and outbox rows by their
 * members, other JSON as the whole message under the subject "test". It is meant for fixtures: where a message is odd,
 * the host is stricter. */
wh_event wh_test_message(const char *json);
/* A file, such as events/order_created.json, for wh_test_message; the program ends where it can't be read. */
const char *wh_test_file(const char *path);

/* Sets what wh_config answers. */
void wh_test_config(const char *name, const char *value);

typedef struct {
  wh_level level;
  wh_str text;
} wh_test_line;

/* The lines that were logged in this test. */
const wh_test_line *wh_test_lines(size_t *count);

void wh_test_run(const char *name, void (*test)(void));
void wh_test_expect(bool holds, const char *what, const char *file, int line);
void wh_test_expect_str(wh_str actual, const char *expected, const char *what, const char *file, int line);
void wh_test_expect_int(long long actual, long long expected, const char *what, const char *file, int line);

#endif
