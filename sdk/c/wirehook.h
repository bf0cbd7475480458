/* Write a Wirehook plugin in C: define wh_on_event, which turns one event into webhooks.
 *
 * Everything that these functions return lives until the event is done with, in memory that is freed at once after it:
 * nothing is ever freed by hand. Where there is no more memory, the plugin traps. */
#ifndef WIREHOOK_H
#define WIREHOOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Text or bytes somewhere else: not terminated by a zero. `data` is NULL where there is none, and never where it is
 * empty. */
typedef struct {
  const char *data;
  size_t size;
} wh_str;

/* A literal as wh_str. */
#define WH(literal) ((wh_str){"" literal, sizeof(literal) - 1})
#define WH_NONE ((wh_str){NULL, 0})

/* For printf's "%.*s". */
#define WH_ARG(str) (int)(str).size, (str).data

/* A name and its value. */
typedef struct {
  wh_str name, value;
} wh_pair;

/* One message from a bus, normalised. What a message does not have is WH_NONE. */
typedef struct {
  wh_str key;         /* what makes two messages the same event; opaque */
  wh_str subject;     /* fraiseql.{entity_type}.{operation}, or the bus's own */
  wh_str entity_type; /* in snake_case; empty where the format was not recognised */
  wh_str operation;   /* created, updated, deleted or custom; pass by other words */
  wh_str entity_id;
  wh_str tenant_id;
  wh_str timestamp; /* as the publisher wrote it; RFC 3339 in FraiseQL's formats */
  wh_str entity;    /* JSON after the change; none after a deletion. The whole message in other formats */
  wh_str previous;  /* JSON before the change */
  const wh_pair *attributes; /* source, format, raw_subject, seq, traceparent, actor, header.{name} */
  size_t attribute_count;
  uint32_t attempt; /* which try of this run this is, from 1 */
} wh_event;

/* One request to be sent. Its members may be set; the defaults are right for JSON. */
typedef struct wh_webhook {
  wh_str endpoint;     /* a name from the host's settings; none: the default */
  wh_str key;          /* tells webhooks of one event for one endpoint apart; none: their order does */
  wh_str content_type; /* none: application/json */
  wh_str body;
  wh_pair *headers; /* see wh_header; values are visible ASCII, spaces and tabs */
  size_t header_count;
  struct wh_webhook *next;
} wh_webhook;

typedef enum { WH_WEBHOOKS, WH_RETRY, WH_REJECT } wh_outcome;

/* What comes of an event. Zeroes are no webhooks: the event is not for this plugin. */
typedef struct {
  wh_outcome outcome;
  wh_str reason;              /* of WH_RETRY and WH_REJECT, for the operator */
  wh_webhook *webhooks, *last; /* a list, in order */
  size_t webhook_count;
} wh_result;

/* The plugin: defined by you, called once for each event. */
wh_result wh_on_event(const wh_event *event);

/* ---- Results ---- */

/* No webhooks yet: returned as it is, the event is not for this plugin. */
wh_result wh_none(void);
/* Adds a webhook with this body, and returns it, for its other members to be set. */
wh_webhook *wh_add(wh_result *result, wh_str body);
/* Adds a header. */
void wh_header(wh_webhook *webhook, wh_str name, wh_str value);
/* It may work later: the event is run again, by the sidecar's [retry]. */
wh_result wh_retry(wh_str reason);
/* It will never work: the event is a dead letter at once. */
wh_result wh_reject(wh_str reason);

/* ---- Events, config, log ---- */

/* The first value of an attribute; none where there is none. */
wh_str wh_attribute(const wh_event *event, const char *name);
/* A value of the sidecar's [config]; none where there is none. */
wh_str wh_config(const char *name);
/* The same with a default. */
wh_str wh_config_or(const char *name, wh_str otherwise);
/* All of [config], ordered by name. */
const wh_pair *wh_config_all(size_t *count);

typedef enum { WH_TRACE, WH_DEBUG, WH_INFO, WH_WARN, WH_ERROR } wh_level;

/* A line in the host's log; 100 lines and 16 KiB for a call. */
void wh_log(wh_level level, wh_str message);

/* ---- Text ---- */

/* A view of a string that ends with a zero; none of NULL. */
wh_str wh_str_of(const char *text);
/* Whether there is a text, and it is this one. */
bool wh_is(wh_str str, const char *text);
bool wh_same(wh_str one, wh_str other);
/* What printf would print. It brings printf into the plugin, some 16 KB. */
wh_str wh_format(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Memory until the event is done with, aligned to 16 bytes. Never NULL. */
void *wh_alloc(size_t size);

/* ---- Reading JSON ---- */

/* Values within one another that are read at most, as in every SDK (wit/README.md): JSON with more is WH_JSON_NONE. */
#define WH_JSON_DEPTH_MAX 127
/* Values within one another that are written at most. */
#define WH_JSON_WRITE_DEPTH_MAX 64

typedef enum {
  WH_JSON_NONE, /* no text, or no JSON */
  WH_JSON_NULL,
  WH_JSON_BOOL,
  WH_JSON_NUMBER,
  WH_JSON_TEXT,
  WH_JSON_ARRAY,
  WH_JSON_OBJECT
} wh_json_kind;

/* What a text is; it must be one whole JSON value. */
wh_json_kind wh_json_kind_of(wh_str json);
/* The value at a JSON pointer, such as "/customer/email" or "/lines/0/sku", as the publisher wrote it: a number keeps its
 * digits. None where there is none. Of members with the same name it is the last. */
wh_str wh_json_get(wh_str json, const char *pointer);
/* What a JSON string says; none of other values. */
wh_str wh_json_text(wh_str json);
/* Whether it is a whole number that fits. */
bool wh_json_int(wh_str json, int64_t *value);
/* Whether it is a number; it loses digits, so amounts are better passed on as they are. */
bool wh_json_double(wh_str json, double *value);

/* Goes through the members of an object or the elements of an array: set `json` and leave the rest zero. */
typedef struct {
  wh_str json;
  wh_str name;  /* of a member, decoded; none of an element */
  wh_str value; /* as the publisher wrote it */
  size_t at;
} wh_json_each;
/* Goes on to the next; false where there is none. */
bool wh_json_next(wh_json_each *each);

/* ---- Writing JSON ---- */

/* Zeroes are an empty one. */
typedef struct {
  char *data;
  size_t size, capacity;
  uint64_t arrays; /* a bit for each level: whether it is an array */
  unsigned depth;
  bool comma;
} wh_json;

/* `name` is NULL for an element and for the value that is the whole. More than WH_JSON_WRITE_DEPTH_MAX levels trap. */
void wh_put_object(wh_json *json, const char *name);
void wh_put_array(wh_json *json, const char *name);
/* Ends the innermost object or array. */
void wh_put_end(wh_json *json);
/* A text, escaped; null where there is none. It must be UTF-8, as everything in an event is. */
void wh_put_text(wh_json *json, const char *name, wh_str text);
/* JSON as it is; null where there is none. */
void wh_put_raw(wh_json *json, const char *name, wh_str value);
void wh_put_int(wh_json *json, const char *name, int64_t value);
void wh_put_bool(wh_json *json, const char *name, bool value);
void wh_put_null(wh_json *json, const char *name);
/* What was written, with all that is open ended. */
wh_str wh_written(wh_json *json);

/* ---- For the test harness and the component's entry ---- */

/* Frees everything that belongs to the event. */
void wh_arena_reset(void);

#endif
