#include "wirehook.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wirehook_host.h"

/* Most events fit into the first block, which costs a fresh sandbox nothing: its pages are zero until they are used. */
#define FIRST_BLOCK_BYTES ((size_t)16 << 10)
#define BLOCK_BYTES_MIN ((size_t)64 << 10)
#define ALIGNMENT ((size_t)16)

typedef struct block {
  struct block *before;
  _Alignas(16) char bytes[];
} block;

static _Alignas(16) char first_block[FIRST_BLOCK_BYTES];
static block *blocks;
static char *next = first_block;
static size_t left = FIRST_BLOCK_BYTES;

static void out_of_memory(void) {
  wh_host_log(WH_ERROR, WH("there is no more memory: the sidecar's `[limits] memory` bounds it"));
  abort();
}

static void add_block(size_t size) {
  size_t bytes = size < BLOCK_BYTES_MIN ? BLOCK_BYTES_MIN : size;
  block *added = bytes > SIZE_MAX - sizeof(block) ? NULL : malloc(sizeof(block) + bytes);
  if (!added) out_of_memory();
  added->before = blocks;
  blocks = added;
  next = added->bytes;
  left = bytes;
}

void *wh_alloc(size_t size) {
  if (size > SIZE_MAX - ALIGNMENT) out_of_memory();
  size = (size + ALIGNMENT - 1) & ~(ALIGNMENT - 1);
  if (size > left) add_block(size);
  char *taken = next;
  next += size;
  left -= size;
  return taken;
}

void wh_arena_reset(void) {
  while (blocks) {
    block *before = blocks->before;
    free(blocks);
    blocks = before;
  }
  next = first_block;
  left = FIRST_BLOCK_BYTES;
}

wh_result wh_none(void) { return (wh_result){.outcome = WH_WEBHOOKS}; }

wh_result wh_retry(wh_str reason) { return (wh_result){.outcome = WH_RETRY, .reason = reason}; }

wh_result wh_reject(wh_str reason) { return (wh_result){.outcome = WH_REJECT, .reason = reason}; }

wh_webhook *wh_add(wh_result *result, wh_str body) {
  wh_webhook *webhook = wh_alloc(sizeof *webhook);
  *webhook = (wh_webhook){.body = body};
  if (result->last) {
    result->last->next = webhook;
  } else {
    result->webhooks = webhook;
  }
  result->last = webhook;
  result->webhook_count++;
  return webhook;
}

void wh_header(wh_webhook *webhook, wh_str name, wh_str value) {
  size_t count = webhook->header_count;
  /* There is room up to the next power of two. */
  if ((count & (count - 1)) == 0) {
    wh_pair *grown = wh_alloc((count ? 2 * count : 1) * sizeof *grown);
    if (count) memcpy(grown, webhook->headers, count * sizeof *grown);
    webhook->headers = grown;
  }
  webhook->headers[count] = (wh_pair){name, value};
  webhook->header_count = count + 1;
}

wh_str wh_attribute(const wh_event *event, const char *name) {
  for (size_t i = 0; i < event->attribute_count; i++) {
    if (wh_is(event->attributes[i].name, name)) return event->attributes[i].value;
  }
  return WH_NONE;
}

wh_str wh_config(const char *name) { return wh_host_config_get(wh_str_of(name)); }

wh_str wh_config_or(const char *name, wh_str otherwise) {
  wh_str value = wh_config(name);
  return value.data ? value : otherwise;
}

const wh_pair *wh_config_all(size_t *count) { return wh_host_config_all(count); }

void wh_log(wh_level level, wh_str message) { wh_host_log(level, message); }

wh_str wh_str_of(const char *text) { return text ? (wh_str){text, strlen(text)} : WH_NONE; }

bool wh_is(wh_str str, const char *text) { return wh_same(str, wh_str_of(text)); }

bool wh_same(wh_str one, wh_str other) {
  return one.data && other.data && one.size == other.size && memcmp(one.data, other.data, one.size) == 0;
}

wh_str wh_format(const char *format, ...) {
  va_list arguments, again;
  va_start(arguments, format);
  va_copy(again, arguments);
  int size = vsnprintf(NULL, 0, format, arguments);
  va_end(arguments);
  char *text = NULL;
  if (size >= 0) {
    text = wh_alloc((size_t)size + 1);
    vsnprintf(text, (size_t)size + 1, format, again);
  }
  va_end(again);
  return text ? (wh_str){text, (size_t)size} : WH("(a text that printf can't make)");
}
