package wirehook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Event is one message from a bus, normalised.
type Event struct {
	// Key is what makes two messages the same event: the same at every redelivery, retry and redrive. Opaque.
	Key string
	// Subject is fraiseql.{entity_type}.{operation} for FraiseQL's formats, else the bus's own subject.
	Subject string
	// EntityType is in snake_case; empty where the format was not recognised.
	EntityType string
	// Operation is created, updated, deleted or custom; custom too where the format was not recognised. Pass by other
	// words.
	Operation string
	// EntityID is empty where the message has none.
	EntityID string
	// TenantID is empty where the message has none.
	TenantID string
	// Timestamp is when the change was made or published, as the publisher wrote it; RFC 3339 in FraiseQL's formats.
	// Empty where the message has none. See [Event.Time].
	Timestamp string
	// Entity is the JSON of the entity after the change, nil where there is none, as after a deletion; the whole message
	// where the format was not recognised. See [Entity].
	Entity json.RawMessage
	// Previous is the JSON of the entity before the change, nil where the publisher did not send it. See [Previous].
	Previous json.RawMessage
	// Attributes are everything else: see [Event.Attribute].
	Attributes []Attribute
	// Attempt is which try of this run this is, from 1.
	Attempt int
}

// Attribute is a name and its value; of those with header., a name may be there several times.
type Attribute struct{ Name, Value string }

// ErrNoEntity is returned by [Entity] for an event that has none.
var ErrNoEntity = errors.New("the event has no entity")

// Entity reads the entity after the change as a T. The JSON is parsed here and not before: an event that is passed by
// costs no parsing and may have any shape. It may be nested 127 levels deep. A float64 keeps 16 digits: a number that must keep its digits belongs in a [json.Number] or a
// [json.RawMessage].
//
// The error is [ErrNoEntity], or says where the JSON is not a T, is nested too deep, or has half a character (a lone
// surrogate), which a string of Go can't hold. Returned by the plugin, either rejects the event.
func Entity[T any](event Event) (T, error) {
	if event.Entity == nil {
		var none T
		return none, ErrNoEntity
	}
	return parse[T]("entity", event.Entity)
}

// Previous reads the entity before the change as a T; nil where the publisher did not send it.
func Previous[T any](event Event) (*T, error) {
	if event.Previous == nil {
		return nil, nil
	}
	previous, err := parse[T]("previous", event.Previous)
	if err != nil {
		return nil, err
	}
	return &previous, nil
}

// depthMax is how many levels of arrays and objects within each other an entity may have, in every SDK (wit/README.md).
const depthMax = 127

func parse[T any](part string, text json.RawMessage) (T, error) {
	var parsed T
	if depthOver(text, depthMax) {
		return parsed, fmt.Errorf("the event's `%s` is nested deeper than %d levels", part, depthMax)
	}
	// encoding/json leaves a struct as it is for null, which would be an order of zeroes.
	if reflect.TypeFor[T]().Kind() == reflect.Struct && string(bytes.TrimSpace(text)) == "null" {
		return parsed, fmt.Errorf("the event's `%s` is null, not an object", part)
	}
	if at := loneSurrogate(text); at >= 0 {
		return parsed, fmt.Errorf("the event's `%s` is not text that Go can hold: a lone surrogate (%s) at byte %d", part, text[at:at+6], at)
	}
	if err := json.Unmarshal(text, &parsed); err != nil {
		var none T
		return none, fmt.Errorf("the event's %s does not have the shape this plugin reads: %w", part, err)
	}
	return parsed, nil
}

// depthOver says whether JSON is nested deeper than levels. What is no JSON has any answer.
func depthOver(text []byte, levels int) bool {
	if bytes.Count(text, []byte{'['})+bytes.Count(text, []byte{'{'}) <= levels {
		return false
	}
	depth, inString := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '[' || c == '{':
			if depth++; depth > levels {
				return true
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return false
}

// loneSurrogate is where an escape stands for half a character, of which encoding/json would make U+FFFD without a word;
// -1 where none does.
func loneSurrogate(text []byte) int {
	for at := 0; ; {
		next := bytes.IndexByte(text[at:], '\\')
		if next < 0 {
			return -1
		}
		at += next
		unit, ok := escapedUnit(text[at:])
		switch {
		case !ok:
			at += 2
		case unit < 0xD800 || unit > 0xDFFF:
			at += 6
		default:
			low, ok := escapedUnit(text[at+6:])
			if unit > 0xDBFF || !ok || low < 0xDC00 || low > 0xDFFF {
				return at
			}
			at += 12
		}
		if at >= len(text) {
			return -1
		}
	}
}

// escapedUnit is the UTF-16 unit of the escape that text begins with.
func escapedUnit(text []byte) (uint64, bool) {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return 0, false
	}
	unit, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	return unit, err == nil
}

// Time is the event's timestamp; false where it has none, or one that is not RFC 3339.
func (e Event) Time() (time.Time, bool) {
	at, err := time.Parse(time.RFC3339Nano, e.Timestamp)
	return at, err == nil
}

// Attribute is the value of an attribute: source, format, raw_subject, and where the message has them seq, traceparent,
// actor and header.{name}.
func (e Event) Attribute(name string) (string, bool) {
	for _, attribute := range e.Attributes {
		if attribute.Name == name {
			return attribute.Value, true
		}
	}
	return "", false
}

// Header is the value of a header of the bus, whatever its capitals.
func (e Event) Header(name string) (string, bool) {
	for _, attribute := range e.Attributes {
		header, ok := strings.CutPrefix(attribute.Name, "header.")
		if ok && strings.EqualFold(header, name) {
			return attribute.Value, true
		}
	}
	return "", false
}
