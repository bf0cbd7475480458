// Package wirehooktest is for a plugin's native tests, under go test: events to call its function with, its config, and
// the lines it logged.
//
//	func TestAnOrderBecomesAWebhook(t *testing.T) {
//		event := wirehooktest.Event("fraiseql.order.created")
//		event.EntityID = "550e8400"
//		event.Entity = wirehooktest.JSON(t, map[string]any{"total": 129.5})
//		webhooks, err := onEvent(event)
//		…
//	}
//
// Config and log lines belong to the process, as they do in a plugin: tests that use them can't be parallel.
package wirehooktest

import (
	"encoding/json"
	"log"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"

	wirehook "github.com/wirehook/wirehook/sdk/go"
	"github.com/wirehook/wirehook/sdk/go/internal/host"
)

// LogLinesMax bounds the lines kept for one test; later ones are dropped. The host's own budget is 100.
const LogLinesMax = 10_000

// Event is an event of this subject; fraiseql.{entity_type}.{operation} sets those two as well. Everything else of it is
// there to be set.
func Event(subject string) wirehook.Event {
	entityType, operation, format := "", "custom", "json"
	if parts := strings.Split(subject, "."); len(parts) == 3 && parts[0] == "fraiseql" {
		entityType, operation, format = parts[1], parts[2], "page"
	}
	return wirehook.Event{
		Key:        "test/once/1",
		Subject:    subject,
		EntityType: entityType,
		Operation:  operation,
		Attributes: []wirehook.Attribute{
			{Name: "source", Value: "test"},
			{Name: "format", Value: format},
			{Name: "raw_subject", Value: subject},
		},
		Attempt: 1,
	}
}

// JSON is value as an event's entity.
func JSON(t testing.TB, value any) json.RawMessage {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatalf("the entity does not become JSON: %v", err)
	}
	return text
}

// Call calls a plugin's function with a message in any of FraiseQL's formats, as the host would; see [FromMessage].
func Call(t testing.TB, onEvent wirehook.OnEvent, message string) ([]wirehook.Webhook, error) {
	t.Helper()
	return onEvent(FromMessage(t, message))
}

// Config sets what [wirehook.Config] answers until the test ends.
func Config(t testing.TB, values map[string]string) {
	before := host.ConfigValues
	t.Cleanup(func() { host.ConfigValues = before })
	host.ConfigValues = nil
	for _, name := range slices.Sorted(maps.Keys(values)) {
		host.ConfigValues = append(host.ConfigValues, host.Value{Name: name, Value: values[name]})
	}
}

// Line is one line that a plugin logged.
type Line struct {
	Level slog.Level
	Text  string
}

// Logs takes what is logged from here until the test ends, with log/slog or log, and formats it as in a component.
func Logs(t testing.TB) *Lines {
	lines := &Lines{}
	handler, write := slog.Default(), host.Log
	flags, output := log.Flags(), log.Writer()
	t.Cleanup(func() {
		host.Log = write
		slog.SetDefault(handler)
		// SetDefault leads log to the handler, and not back.
		log.SetOutput(output)
		log.SetFlags(flags)
	})
	host.Log = lines.add
	slog.SetDefault(slog.New(wirehook.NewLogHandler()))
	return lines
}

// Lines are what one test's plugin logged.
type Lines struct{ lines []Line }

// Take returns the lines since the last call, in order.
func (l *Lines) Take() []Line {
	lines := l.lines
	l.lines = nil
	return lines
}

func (l *Lines) add(level host.Level, text string) {
	if len(l.lines) < LogLinesMax {
		levels := []slog.Level{wirehook.LevelTrace, slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError}
		l.lines = append(l.lines, Line{Level: levels[level], Text: text})
	}
}
