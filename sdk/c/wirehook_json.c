/* A reader that looks for what is asked in the text itself and gives slices of it, so that a number keeps its digits, and
 * a writer. The grammar is RFC 8259's; depth is bounded by WH_JSON_DEPTH_MAX. */
#include <stdlib.h>
#include <string.h>

#include "wirehook.h"

/* ---- The grammar: each function takes the place where something begins and returns where it ends, NULL where it is
 * none. ---- */

static const char *skip_space(const char *at, const char *end) {
  while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r')) at++;
  return at;
}

static bool is_digit(const char *at, const char *end) { return at < end && *at >= '0' && *at <= '9'; }

static const char *skip_digits(const char *at, const char *end) {
  if (!is_digit(at, end)) return NULL;
  while (is_digit(at, end)) at++;
  return at;
}

static const char *skip_number(const char *at, const char *end) {
  if (at < end && *at == '-') at++;
  if (at < end && *at == '0') {
    at++;
  } else if (!(at = skip_digits(at, end))) {
    return NULL;
  }
  if (at < end && *at == '.' && !(at = skip_digits(at + 1, end))) return NULL;
  if (at < end && (*at == 'e' || *at == 'E')) {
    at++;
    if (at < end && (*at == '+' || *at == '-')) at++;
    at = skip_digits(at, end);
  }
  return at;
}

/* The number in four hexadecimal digits, or -1. */
static int hex4(const char *at, const char *end) {
  if (end - at < 4) return -1;
  int value = 0;
  for (int i = 0; i < 4; i++) {
    char digit = at[i];
    int part = digit >= '0' && digit <= '9'   ? digit - '0'
               : digit >= 'a' && digit <= 'f' ? digit - 'a' + 10
               : digit >= 'A' && digit <= 'F' ? digit - 'A' + 10
                                              : -1;
    if (part < 0) return -1;
    value = value * 16 + part;
  }
  return value;
}

static const char *skip_text(const char *at, const char *end) {
  for (at++; at < end && *at != '"'; at++) {
    if ((unsigned char)*at < 0x20) return NULL;
    if (*at != '\\') continue;
    if (++at == end || !strchr("\"\\/bfnrtu", *at) || !*at) return NULL;
    if (*at == 'u') {
      if (hex4(at + 1, end) < 0) return NULL;
      at += 4;
    }
  }
  return at < end ? at + 1 : NULL;
}

static const char *skip_word(const char *at, const char *end, const char *word) {
  size_t size = strlen(word);
  return (size_t)(end - at) >= size && memcmp(at, word, size) == 0 ? at + size : NULL;
}

static const char *skip_value(const char *at, const char *end, unsigned depth);

/* A member's name and its colon; `at` is at the name. */
static const char *skip_name(const char *at, const char *end) {
  if (at == end || *at != '"' || !(at = skip_text(at, end))) return NULL;
  at = skip_space(at, end);
  return at < end && *at == ':' ? skip_space(at + 1, end) : NULL;
}

static const char *skip_items(const char *at, const char *end, unsigned depth) {
  char closing = *at == '{' ? '}' : ']';
  if (depth == WH_JSON_DEPTH_MAX) return NULL;
  at = skip_space(at + 1, end);
  if (at < end && *at == closing) return at + 1;
  for (;;) {
    if (closing == '}' && !(at = skip_name(at, end))) return NULL;
    if (!(at = skip_value(at, end, depth + 1))) return NULL;
    at = skip_space(at, end);
    if (at == end) return NULL;
    if (*at == closing) return at + 1;
    if (*at != ',') return NULL;
    at = skip_space(at + 1, end);
  }
}

static const char *skip_value(const char *at, const char *end, unsigned depth) {
  if (at == end) return NULL;
  switch (*at) {
  case '{':
  case '[': return skip_items(at, end, depth);
  case '"': return skip_text(at, end);
  case 't': return skip_word(at, end, "true");
  case 'f': return skip_word(at, end, "false");
  case 'n': return skip_word(at, end, "null");
  default: return skip_number(at, end);
  }
}

/* ---- Reading ---- */

/* The text without the space around it. */
static wh_str trimmed(wh_str json) {
  if (!json.data) return json;
  const char *end = json.data + json.size, *at = skip_space(json.data, end);
  while (end > at && skip_space(end - 1, end) == end) end--;
  return (wh_str){at, (size_t)(end - at)};
}

wh_json_kind wh_json_kind_of(wh_str json) {
  json = trimmed(json);
  if (!json.data) return WH_JSON_NONE;
  const char *end = json.data + json.size;
  if (skip_value(json.data, end, 0) != end) return WH_JSON_NONE;
  switch (*json.data) {
  case '{': return WH_JSON_OBJECT;
  case '[': return WH_JSON_ARRAY;
  case '"': return WH_JSON_TEXT;
  case 't':
  case 'f': return WH_JSON_BOOL;
  case 'n': return WH_JSON_NULL;
  default: return WH_JSON_NUMBER;
  }
}

static char *put_utf8(char *to, unsigned long code) {
  if (code < 0x80) {
    *to++ = (char)code;
  } else if (code < 0x800) {
    *to++ = (char)(0xc0 | code >> 6);
    *to++ = (char)(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    *to++ = (char)(0xe0 | code >> 12);
    *to++ = (char)(0x80 | (code >> 6 & 0x3f));
    *to++ = (char)(0x80 | (code & 0x3f));
  } else {
    *to++ = (char)(0xf0 | code >> 18);
    *to++ = (char)(0x80 | (code >> 12 & 0x3f));
    *to++ = (char)(0x80 | (code >> 6 & 0x3f));
    *to++ = (char)(0x80 | (code & 0x3f));
  }
  return to;
}

/* The character of an escape that begins with a `u` at `*at`; half a pair is U+FFFD. */
static unsigned long escaped_code(const char **at, const char *end) {
  unsigned long code = (unsigned long)hex4(*at + 1, end);
  *at += 4;
  if (code < 0xd800 || code > 0xdfff) return code;
  if (code < 0xdc00 && end - *at > 6 && (*at)[1] == '\\' && (*at)[2] == 'u') {
    int low = hex4(*at + 3, end);
    if (low >= 0xdc00 && low <= 0xdfff) {
      *at += 6;
      return 0x10000 + ((code - 0xd800) << 10) + ((unsigned long)low - 0xdc00);
    }
  }
  return 0xfffd;
}

/* What a valid string says, given with its quotes. No escape grows when it is decoded. */
static wh_str decoded(wh_str quoted) {
  const char *at = quoted.data + 1, *end = quoted.data + quoted.size - 1;
  size_t size = (size_t)(end - at);
  if (!memchr(at, '\\', size)) return (wh_str){at, size};
  static const char letters[] = "bfnrt", meant[] = "\b\f\n\r\t";
  char *text = wh_alloc(size), *to = text;
  for (; at < end; at++) {
    if (*at != '\\') {
      *to++ = *at;
      continue;
    }
    const char *letter = strchr(letters, *++at);
    if (*at == 'u') {
      to = put_utf8(to, escaped_code(&at, end));
    } else {
      *to++ = letter ? meant[letter - letters] : *at;
    }
  }
  return (wh_str){text, (size_t)(to - text)};
}

wh_str wh_json_text(wh_str json) {
  return wh_json_kind_of(json) == WH_JSON_TEXT ? decoded(trimmed(json)) : WH_NONE;
}

bool wh_json_next(wh_json_each *each) {
  wh_str json = trimmed(each->json);
  if (!json.data || !json.size || (*json.data != '{' && *json.data != '[')) return false;
  const char *end = json.data + json.size, *at = json.data + (each->at ? each->at : 1);
  at = skip_space(at, end);
  if (each->at && at < end && *at == ',') at = skip_space(at + 1, end);
  if (at == end || *at == '}' || *at == ']') return false;
  each->name = WH_NONE;
  if (*json.data == '{') {
    const char *name = at;
    const char *name_end = *at == '"' ? skip_text(at, end) : NULL;
    if (!name_end || !(at = skip_name(name, end))) return false;
    each->name = decoded((wh_str){name, (size_t)(name_end - name)});
  }
  const char *value_end = skip_value(at, end, 1);
  if (!value_end) return false;
  each->value = (wh_str){at, (size_t)(value_end - at)};
  each->at = (size_t)(value_end - json.data);
  return true;
}

/* Whether a part of a pointer, in which ~1 is a slash and ~0 a tilde, is this name. */
static bool part_is(wh_str part, wh_str name) {
  size_t at = 0;
  for (size_t i = 0; i < part.size; i++, at++) {
    char letter = part.data[i];
    if (letter == '~' && i + 1 < part.size) letter = part.data[++i] == '1' ? '/' : '~';
    if (at == name.size || name.data[at] != letter) return false;
  }
  return at == name.size;
}

/* The index that a part of a pointer is: digits without a zero before them. */
static bool part_index(wh_str part, size_t *index) {
  if (!part.size || part.size > 9 || (part.size > 1 && *part.data == '0')) return false;
  for (*index = 0; part.size; part.data++, part.size--) {
    if (*part.data < '0' || *part.data > '9') return false;
    *index = *index * 10 + (size_t)(*part.data - '0');
  }
  return true;
}

static wh_str child(wh_str json, wh_str part) {
  wh_str found = WH_NONE;
  size_t index = 0, wanted = 0;
  bool is_index = part_index(part, &wanted);
  for (wh_json_each each = {.json = json}; wh_json_next(&each); index++) {
    if (each.name.data ? part_is(part, each.name) : is_index && index == wanted) found = each.value;
  }
  return found;
}

wh_str wh_json_get(wh_str json, const char *pointer) {
  while (*pointer == '/' && json.data) {
    const char *part = ++pointer;
    while (*pointer && *pointer != '/') pointer++;
    json = child(json, (wh_str){part, (size_t)(pointer - part)});
  }
  return *pointer ? WH_NONE : trimmed(json);
}

/* A number as a C string, on the event's memory. */
static const char *number(wh_str json) {
  if (wh_json_kind_of(json) != WH_JSON_NUMBER) return NULL;
  json = trimmed(json);
  char *text = wh_alloc(json.size + 1);
  memcpy(text, json.data, json.size);
  text[json.size] = 0;
  return text;
}

bool wh_json_int(wh_str json, int64_t *value) {
  if (wh_json_kind_of(json) != WH_JSON_NUMBER) return false;
  json = trimmed(json);
  bool negative = *json.data == '-';
  /* Below zero there is one number more. */
  int64_t sum = 0;
  for (size_t i = negative; i < json.size; i++) {
    if (json.data[i] < '0' || json.data[i] > '9') return false;
    if (__builtin_mul_overflow(sum, 10, &sum) || __builtin_sub_overflow(sum, json.data[i] - '0', &sum)) return false;
  }
  if (!negative && sum == INT64_MIN) return false;
  *value = negative ? sum : -sum;
  return true;
}

bool wh_json_double(wh_str json, double *value) {
  const char *text = number(json);
  if (text) *value = strtod(text, NULL);
  return text != NULL;
}

/* ---- Writing ---- */

static void put_bytes(wh_json *json, const char *bytes, size_t size) {
  if (size > json->capacity - json->size) {
    size_t capacity = json->capacity ? json->capacity : 256;
    while (capacity - json->size < size) {
      if (capacity > SIZE_MAX / 2) abort();
      capacity *= 2;
    }
    char *grown = wh_alloc(capacity);
    if (json->size) memcpy(grown, json->data, json->size);
    json->data = grown;
    json->capacity = capacity;
  }
  if (size) memcpy(json->data + json->size, bytes, size);
  json->size += size;
}

static void put_quoted(wh_json *json, wh_str text) {
  static const char hex[] = "0123456789abcdef";
  put_bytes(json, "\"", 1);
  size_t plain = 0;
  for (size_t i = 0; i < text.size; i++) {
    unsigned char letter = (unsigned char)text.data[i];
    if (letter >= 0x20 && letter != '"' && letter != '\\') continue;
    put_bytes(json, text.data + plain, i - plain);
    plain = i + 1;
    if (letter == '"' || letter == '\\') {
      put_bytes(json, (char[]){'\\', (char)letter}, 2);
    } else if (letter == '\n') {
      put_bytes(json, "\\n", 2);
    } else {
      put_bytes(json, (char[]){'\\', 'u', '0', '0', hex[letter >> 4], hex[letter & 15]}, 6);
    }
  }
  put_bytes(json, text.data + plain, text.size - plain);
  put_bytes(json, "\"", 1);
}

static void put_name(wh_json *json, const char *name) {
  if (json->comma) put_bytes(json, ",", 1);
  json->comma = true;
  if (!name) return;
  put_quoted(json, wh_str_of(name));
  put_bytes(json, ":", 1);
}

static void open(wh_json *json, const char *name, bool is_array) {
  put_name(json, name);
  if (json->depth == WH_JSON_WRITE_DEPTH_MAX) {
    wh_log(WH_ERROR, WH("the JSON that is written has too many levels"));
    abort();
  }
  uint64_t bit = (uint64_t)1 << json->depth++;
  json->arrays = is_array ? json->arrays | bit : json->arrays & ~bit;
  put_bytes(json, is_array ? "[" : "{", 1);
  json->comma = false;
}

void wh_put_object(wh_json *json, const char *name) { open(json, name, false); }

void wh_put_array(wh_json *json, const char *name) { open(json, name, true); }

void wh_put_end(wh_json *json) {
  if (!json->depth) return;
  json->depth--;
  put_bytes(json, json->arrays >> json->depth & 1 ? "]" : "}", 1);
  json->comma = true;
}

void wh_put_raw(wh_json *json, const char *name, wh_str value) {
  put_name(json, name);
  if (!value.data) value = WH("null");
  put_bytes(json, value.data, value.size);
}

void wh_put_text(wh_json *json, const char *name, wh_str text) {
  if (!text.data) {
    wh_put_null(json, name);
    return;
  }
  put_name(json, name);
  put_quoted(json, text);
}

void wh_put_int(wh_json *json, const char *name, int64_t value) {
  char digits[20], *at = digits + sizeof digits;
  /* Digits are taken below zero, where there is one number more. */
  for (int64_t rest = value > 0 ? -value : value;;) {
    *--at = (char)('0' - rest % 10);
    if (!(rest /= 10)) break;
  }
  if (value < 0) *--at = '-';
  wh_put_raw(json, name, (wh_str){at, (size_t)(digits + sizeof digits - at)});
}

void wh_put_bool(wh_json *json, const char *name, bool value) {
  wh_put_raw(json, name, value ? WH("true") : WH("false"));
}

void wh_put_null(wh_json *json, const char *name) { wh_put_raw(json, name, WH("null")); }

wh_str wh_written(wh_json *json) {
  while (json->depth) wh_put_end(json);
  return (wh_str){json->data ? json->data : "", json->size};
}
