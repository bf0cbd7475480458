/* The component's entry: the ABI of wit/abi.md. The records are C's own layout on wasm32, which the assertions hold. */
#include <stdalign.h>
#include <string.h>

#include "wirehook.h"
#include "wirehook_host.h"

#ifdef __wasm__

#define HANDLER "wirehook:plugin/handler@0.1.0#on-event"
#define LOG "wirehook:plugin/log@0.1.0"
#define CONFIG "wirehook:plugin/config@0.1.0"
#define IMPORT(module, name) __attribute__((import_module(module), import_name(name)))
#define EXPORT(name) __attribute__((export_name(name)))

typedef struct {
  uint8_t is_there;
  wh_str value;
} abi_option;

typedef struct {
  const void *items;
  size_t count;
} abi_list;

typedef struct {
  wh_str key, subject, entity_type, operation;
  abi_option entity_id, tenant_id, timestamp, entity, previous;
  abi_list attributes;
  uint32_t attempt;
} abi_event;

typedef struct {
  abi_option endpoint, key, content_type;
  abi_list headers;
  wh_str body;
} abi_webhook;

typedef struct {
  uint8_t is_failure;
  union {
    abi_list webhooks;
    struct {
      uint8_t is_reject;
      wh_str reason;
    } failure;
  };
} abi_result;

_Static_assert(sizeof(abi_event) == 104 && offsetof(abi_event, entity_id) == 32 && offsetof(abi_event, attempt) == 100,
               "an event is laid out otherwise");
_Static_assert(sizeof(abi_webhook) == 52 && offsetof(abi_webhook, body) == 44, "a webhook is laid out otherwise");
_Static_assert(sizeof(abi_result) == 16 && offsetof(abi_result, failure.reason) == 8,
               "a result is laid out otherwise");

IMPORT(LOG, "log") void abi_log(int32_t level, const char *message, size_t size);
IMPORT(CONFIG, "get") void abi_config_get(const char *name, size_t size, abi_option *value);
IMPORT(CONFIG, "all") void abi_config_all(abi_list *pairs);

void wh_host_log(wh_level level, wh_str message) { abi_log((int32_t)level, message.data, message.size); }

static wh_str option(abi_option option) { return option.is_there ? option.value : WH_NONE; }

static abi_option to_option(wh_str str) { return (abi_option){str.data != NULL, str}; }

wh_str wh_host_config_get(wh_str name) {
  abi_option value;
  abi_config_get(name.data, name.size, &value);
  return option(value);
}

const wh_pair *wh_host_config_all(size_t *count) {
  abi_list pairs;
  abi_config_all(&pairs);
  *count = pairs.count;
  return pairs.items;
}

/* Every piece of memory that the host asks for belongs to the event. */
EXPORT("cabi_realloc")
void *abi_realloc(void *before, size_t bytes_before, size_t alignment, size_t bytes) {
  (void)alignment; /* at most 8, and everything is aligned to 16 */
  if (bytes <= bytes_before && before) return before;
  void *after = wh_alloc(bytes);
  if (before) memcpy(after, before, bytes_before);
  return after;
}

static abi_list lower_webhooks(const wh_result *result) {
  abi_webhook *lowered = wh_alloc(result->webhook_count * sizeof *lowered), *to = lowered;
  for (const wh_webhook *webhook = result->webhooks; webhook; webhook = webhook->next) {
    *to++ = (abi_webhook){
        .endpoint = to_option(webhook->endpoint),
        .key = to_option(webhook->key),
        .content_type = to_option(webhook->content_type),
        .headers = {webhook->headers, webhook->header_count},
        .body = webhook->body,
    };
  }
  return (abi_list){lowered, (size_t)(to - lowered)};
}

EXPORT(HANDLER) abi_result *abi_on_event(const abi_event *event) {
  wh_event lifted = {
      .key = event->key,
      .subject = event->subject,
      .entity_type = event->entity_type,
      .operation = event->operation,
      .entity_id = option(event->entity_id),
      .tenant_id = option(event->tenant_id),
      .timestamp = option(event->timestamp),
      .entity = option(event->entity),
      .previous = option(event->previous),
      .attributes = event->attributes.items,
      .attribute_count = event->attributes.count,
      .attempt = event->attempt,
  };
  wh_result result = wh_on_event(&lifted);
  abi_result *lowered = wh_alloc(sizeof *lowered);
  lowered->is_failure = result.outcome != WH_WEBHOOKS;
  if (lowered->is_failure) {
    lowered->failure.is_reject = result.outcome == WH_REJECT;
    lowered->failure.reason = result.reason;
  } else {
    lowered->webhooks = lower_webhooks(&result);
  }
  return lowered;
}

/* Called when the host has read the result. */
EXPORT("cabi_post_" HANDLER) void abi_post_on_event(abi_result *result) {
  (void)result;
  wh_arena_reset();
}

#endif
