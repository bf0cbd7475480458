package wirehook

import (
	"encoding/json"
	"errors"
	"fmt"
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
// costs no parsing and may have any shape. A number that must keep its digits belongs in a [json.Number] or a
// [json.RawMessage].
//
// The error is [ErrNoEntity], or says where the JSON is not a T. Returned by the plugin, either rejects the event.
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

func parse[T any](part string, text json.RawMessage) (T, error) {
	var parsed T
	if err := json.Unmarshal(text, &parsed); err != nil {
		var none T
		return none, fmt.Errorf("the event's %s does not have the shape this plugin reads: %w", part, err)
	}
	return parsed, nil
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
