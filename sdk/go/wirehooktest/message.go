package wirehooktest

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"

	wirehook "github.com/wirehook/wirehook/sdk/go"
)

// FromMessage is the event that the host makes of a message: FraiseQL's page format, EntityEvent, ChangeEvent and outbox
// rows by their members, other JSON as the whole message under the subject "test".
//
// It is meant for fixtures. Where a message is odd (half of a format, a member of the wrong type), the host is stricter:
// it makes a dead letter of it.
func FromMessage(t testing.TB, message string) wirehook.Event {
	t.Helper()
	if !json.Valid([]byte(message)) {
		t.Fatalf("the message is not JSON: %s", message)
	}
	var members map[string]json.RawMessage
	if json.Unmarshal([]byte(message), &members) == nil {
		for _, format := range formats {
			if format.fits(members) {
				return format.read(members)
			}
		}
	}
	event := Event("test")
	event.Entity = json.RawMessage(message)
	return event
}

// format says which members hold what.
type format struct {
	name, entityType, operation, entityID, entity, previous, timestamp string
}

var formats = []format{
	{"page", "entity_type", "operation", "entity_id", "entity", "previous", "timestamp"},
	{"entity_event", "entity_type", "event_type", "entity_id", "data", "before", "timestamp"},
	{"change_event", "object_type", "op", "object_id", "after", "before", "commit_time"},
	{"outbox", "object_type", "modification_type", "object_id", "object_data", "object_data_before", "commit_time"},
}

func (f format) fits(members map[string]json.RawMessage) bool {
	isText := func(name string) bool { return strings.HasPrefix(string(members[name]), `"`) }
	return isText(f.entityType) && isText(f.operation)
}

func (f format) read(members map[string]json.RawMessage) wirehook.Event {
	entityType := snakeCase(scalar(members[f.entityType]))
	event := Event("fraiseql." + entityType + "." + operation(scalar(members[f.operation])))
	event.Attributes[1].Value = f.name
	if seq := scalar(members["seq"]); seq != "" {
		event.Key = "test/seq/" + entityType + ":" + seq
	} else if id := scalar(members["id"]); id != "" {
		event.Key = "test/id/" + id
	}
	event.EntityID = scalar(members[f.entityID])
	event.TenantID = scalar(members["tenant_id"])
	event.Timestamp = scalar(members[f.timestamp])
	event.Entity = present(members[f.entity])
	event.Previous = present(members[f.previous])
	for _, attribute := range [][2]string{{"seq", "seq"}, {"traceparent", "trace_context"}, {"actor", "actor_type"}} {
		if value := scalar(members[attribute[1]]); value != "" {
			event.Attributes = append(event.Attributes, wirehook.Attribute{Name: attribute[0], Value: value})
		}
	}
	return event
}

func present(text json.RawMessage) json.RawMessage {
	if string(text) == "null" {
		return nil
	}
	return text
}

// scalar is the text of a string, a number as it is written, and empty of anything else.
func scalar(text json.RawMessage) string {
	var asText string
	if json.Unmarshal(text, &asText) == nil {
		return asText
	}
	var asNumber json.Number
	if json.Unmarshal(text, &asNumber) == nil {
		return asNumber.String()
	}
	return ""
}

// operation is the contract's word for a publisher's verb; other verbs are as they are, in lower case.
func operation(verb string) string {
	switch verb = strings.ToLower(verb); verb {
	case "insert":
		return "created"
	case "update":
		return "updated"
	case "delete":
		return "deleted"
	default:
		return verb
	}
}

// snakeCase makes order_line of OrderLine, orderLine and order_line, and http_route of HTTPRoute.
func snakeCase(name string) string {
	letters := []rune(name)
	var snake strings.Builder
	for i, letter := range letters {
		if unicode.IsUpper(letter) && i > 0 {
			before := letters[i-1]
			endsAbbreviation := unicode.IsUpper(before) && i+1 < len(letters) && unicode.IsLower(letters[i+1])
			if unicode.IsLower(before) || unicode.IsDigit(before) || endsAbbreviation {
				snake.WriteByte('_')
			}
		}
		snake.WriteRune(unicode.ToLower(letter))
	}
	return snake.String()
}
