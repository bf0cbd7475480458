#include "wirehook_test.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wirehook_host.h"

/* The largest file that wh_test_file reads. */
#define FILE_BYTES_MAX ((size_t)4 << 20)

/* ---- The host's part ---- */

static wh_pair config[WH_TEST_CONFIG_MAX];
static size_t config_count;
static wh_test_line lines[WH_TEST_LINES_MAX];
static size_t line_count;

/* What a test keeps belongs to its event, as in a component. */
static wh_str copy(wh_str str) {
  char *text = wh_alloc(str.size + 1);
  if (str.size) memcpy(text, str.data, str.size);
  text[str.size] = 0;
  return (wh_str){text, str.size};
}

void wh_host_log(wh_level level, wh_str message) {
  if (line_count < WH_TEST_LINES_MAX) lines[line_count++] = (wh_test_line){level, copy(message)};
}

wh_str wh_host_config_get(wh_str name) {
  for (size_t i = 0; i < config_count; i++) {
    if (wh_same(config[i].name, name)) return config[i].value;
  }
  return WH_NONE;
}

const wh_pair *wh_host_config_all(size_t *count) {
  *count = config_count;
  return config;
}

static void fail_hard(const char *what, const char *detail) {
  fprintf(stderr, "%s: %s\n", what, detail);
  exit(1);
}

void wh_test_config(const char *name, const char *value) {
  size_t at = 0;
  while (at < config_count && strcmp(config[at].name.data, name) < 0) at++;
  if (at == config_count || strcmp(config[at].name.data, name) != 0) {
    if (config_count == WH_TEST_CONFIG_MAX) fail_hard("the test's config has too many values", name);
    memmove(config + at + 1, config + at, (config_count++ - at) * sizeof *config);
  }
  config[at] = (wh_pair){copy(wh_str_of(name)), copy(wh_str_of(value))};
}

const wh_test_line *wh_test_lines(size_t *count) {
  *count = line_count;
  return lines;
}

/* ---- Running ---- */

static unsigned tests, failed_tests;
static bool failed;

void wh_test_run(const char *name, void (*test)(void)) {
  wh_arena_reset();
  config_count = line_count = 0;
  failed = false;
  test();
  tests++;
  failed_tests += failed;
  printf("%s %s\n", failed ? "FAILED" : "ok    ", name);
}

int wh_test_end(void) {
  wh_arena_reset();
  printf("%u tests, %u failed\n", tests, failed_tests);
  return failed_tests || !tests ? 1 : 0;
}

void wh_test_expect(bool holds, const char *what, const char *file, int line) {
  if (holds) return;
  failed = true;
  printf("%s:%d: does not hold: %s\n", file, line, what);
}

void wh_test_expect_str(wh_str actual, const char *expected, const char *what, const char *file, int line) {
  if (expected ? wh_is(actual, expected) : !actual.data) return;
  failed = true;
  printf("%s:%d: %s\n", file, line, what);
  printf("  expected: %s\n", expected ? expected : "(none)");
  printf("  got:      %.*s\n", actual.data ? (int)actual.size : 6, actual.data ? actual.data : "(none)");
}

void wh_test_expect_int(long long actual, long long expected, const char *what, const char *file, int line) {
  if (actual == expected) return;
  failed = true;
  printf("%s:%d: %s\n  expected: %lld\n  got:      %lld\n", file, line, what, expected, actual);
}

const char *wh_test_file(const char *path) {
  FILE *file = fopen(path, "rb");
  if (!file) fail_hard("this file can't be read; tests run in the project's folder", path);
  char *text = wh_alloc(FILE_BYTES_MAX + 1);
  size_t size = fread(text, 1, FILE_BYTES_MAX, file);
  fclose(file);
  text[size] = 0;
  return text;
}

/* ---- Events ---- */

#define ATTRIBUTES_MAX 6

static void add_attribute(wh_event *event, wh_str name, wh_str value) {
  /* The array is this module's own: see wh_test_event. */
  wh_pair *attributes = (wh_pair *)event->attributes;
  if (value.data) attributes[event->attribute_count++] = (wh_pair){name, value};
}

wh_event wh_test_event(const char *text) {
  wh_str subject = copy(wh_str_of(text)), type = WH(""), operation = WH("custom");
  const char *prefix = "fraiseql.", *end = subject.data + subject.size;
  const char *begin = strncmp(subject.data, prefix, strlen(prefix)) == 0 ? subject.data + strlen(prefix) : NULL;
  const char *dot = begin ? strchr(begin, '.') : NULL;
  bool is_known = dot && !strchr(dot + 1, '.');
  if (is_known) {
    type = (wh_str){begin, (size_t)(dot - begin)};
    operation = (wh_str){dot + 1, (size_t)(end - dot - 1)};
  }
  wh_event event = {
      .key = WH("test/once/1"),
      .subject = subject,
      .entity_type = type,
      .operation = operation,
      .attributes = wh_alloc(ATTRIBUTES_MAX * sizeof(wh_pair)),
      .attempt = 1,
  };
  add_attribute(&event, WH("source"), WH("test"));
  add_attribute(&event, WH("format"), is_known ? WH("page") : WH("json"));
  add_attribute(&event, WH("raw_subject"), subject);
  return event;
}

/* Which members hold what. */
typedef struct {
  const char *name, *entity_type, *operation, *entity_id, *entity, *previous, *timestamp;
} format;

static const format formats[] = {
    {"page", "/entity_type", "/operation", "/entity_id", "/entity", "/previous", "/timestamp"},
    {"entity_event", "/entity_type", "/event_type", "/entity_id", "/data", "/before", "/timestamp"},
    {"change_event", "/object_type", "/op", "/object_id", "/after", "/before", "/commit_time"},
    {"outbox", "/object_type", "/modification_type", "/object_id", "/object_data", "/object_data_before",
     "/commit_time"},
};

/* The text of a string, a number as it is written, and none of anything else. */
static wh_str scalar(wh_str message, const char *pointer) {
  wh_str value = wh_json_get(message, pointer);
  return wh_json_kind_of(value) == WH_JSON_NUMBER ? value : wh_json_text(value);
}

static wh_str present(wh_str message, const char *pointer) {
  wh_str value = wh_json_get(message, pointer);
  return wh_is(value, "null") ? WH_NONE : value;
}

/* order_line of OrderLine, orderLine and order_line; http_route of HTTPRoute. */
static wh_str snake_case(wh_str name) {
  char *snake = wh_alloc(2 * name.size + 1);
  size_t size = 0;
  for (size_t i = 0; i < name.size; i++) {
    unsigned char letter = (unsigned char)name.data[i];
    unsigned char before = i ? (unsigned char)name.data[i - 1] : '_';
    bool ends_abbreviation = isupper(before) && i + 1 < name.size && islower((unsigned char)name.data[i + 1]);
    if (isupper(letter) && (islower(before) || isdigit(before) || ends_abbreviation)) snake[size++] = '_';
    snake[size++] = (char)tolower(letter);
  }
  return (wh_str){snake, size};
}

/* The contract's word for a publisher's verb; other verbs as they are, in lower case. */
static wh_str operation(wh_str verb) {
  static const char *const words[][2] = {{"insert", "created"}, {"update", "updated"}, {"delete", "deleted"}};
  char *lower = wh_alloc(verb.size + 1);
  for (size_t i = 0; i < verb.size; i++) lower[i] = (char)tolower((unsigned char)verb.data[i]);
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
    if (wh_is((wh_str){lower, verb.size}, words[i][0])) return wh_str_of(words[i][1]);
  }
  return (wh_str){lower, verb.size};
}

static wh_event read(const format *format, wh_str message) {
  wh_str type = snake_case(scalar(message, format->entity_type));
  wh_str verb = operation(scalar(message, format->operation));
  wh_event event = wh_test_event(wh_format("fraiseql.%.*s.%.*s", WH_ARG(type), WH_ARG(verb)).data);
  ((wh_pair *)event.attributes)[1].value = wh_str_of(format->name);
  wh_str seq = scalar(message, "/seq"), id = scalar(message, "/id");
  if (seq.data) {
    event.key = wh_format("test/seq/%.*s:%.*s", WH_ARG(type), WH_ARG(seq));
  } else if (id.data) {
    event.key = wh_format("test/id/%.*s", WH_ARG(id));
  }
  event.entity_id = scalar(message, format->entity_id);
  event.tenant_id = scalar(message, "/tenant_id");
  event.timestamp = scalar(message, format->timestamp);
  event.entity = present(message, format->entity);
  event.previous = present(message, format->previous);
  add_attribute(&event, WH("seq"), seq);
  add_attribute(&event, WH("traceparent"), scalar(message, "/trace_context"));
  add_attribute(&event, WH("actor"), scalar(message, "/actor_type"));
  return event;
}

wh_event wh_test_message(const char *text) {
  wh_str message = copy(wh_str_of(text));
  if (wh_json_kind_of(message) == WH_JSON_NONE) fail_hard("the message is not JSON", text);
  for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
    bool fits = wh_json_kind_of(wh_json_get(message, formats[i].entity_type)) == WH_JSON_TEXT &&
                wh_json_kind_of(wh_json_get(message, formats[i].operation)) == WH_JSON_TEXT;
    if (fits) return read(&formats[i], message);
  }
  wh_event event = wh_test_event("test");
  event.entity = message;
  return event;
}
