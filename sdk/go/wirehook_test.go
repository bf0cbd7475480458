package wirehook

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

type order struct {
	Total json.Number `json:"total"`
}

func TestEntitiesAreReadAsThePluginsType(t *testing.T) {
	event := Event{Entity: json.RawMessage(`{"total": 12345678901234567890.10}`), Previous: json.RawMessage(`{"total": 1}`)}
	if got, err := Entity[order](event); err != nil || got.Total != "12345678901234567890.10" {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := Previous[order](event); err != nil || got == nil || got.Total != "1" {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestAnAbsentEntityIsToldFromOneOfAnotherShape(t *testing.T) {
	if _, err := Entity[order](Event{}); !errors.Is(err, ErrNoEntity) {
		t.Errorf("got %v", err)
	}
	if previous, err := Previous[order](Event{}); previous != nil || err != nil {
		t.Errorf("got %v, %v", previous, err)
	}
	_, err := Entity[order](Event{Entity: json.RawMessage(`"text"`)})
	if err == nil || !strings.HasPrefix(err.Error(), "the event's entity does not have the shape this plugin reads: json") {
		t.Errorf("got %v", err)
	}
	if _, err := Previous[order](Event{Previous: json.RawMessage(`{`)}); err == nil || !strings.Contains(err.Error(), "previous") {
		t.Errorf("got %v", err)
	}
}

func TestAnEntityThatGoWouldReadWrongIsRefused(t *testing.T) {
	nested := func(levels int) string { return strings.Repeat("[", levels) + strings.Repeat("]", levels) }
	check := func(text, expected string) {
		t.Helper()
		_, err := Entity[any](Event{Entity: json.RawMessage(text)})
		if expected == "" && err != nil || expected != "" && (err == nil || !strings.Contains(err.Error(), expected)) {
			t.Errorf("%.40s: got %v, expected %q", text, err, expected)
		}
	}
	check(nested(127), "")
	check(nested(128), "the event's `entity` is nested deeper than 127 levels")
	check(`{"a":`+nested(127)+`}`, "nested deeper")
	check(nested(100_000), "nested deeper")
	check(`["`+strings.Repeat("[", 200)+`\"",[]]`, "")
	check("["+strings.Repeat("{},", 200)+"{}]", "")

	check(`"\ud83d\ude00 \\ud800 \u00e9"`, "")
	for _, lone := range []string{`"\ud83d"`, `"\uDE00"`, `"\ud83d\ud83d"`, `"\ud83dx"`, `{"\udfff":1}`, `"\\\ud800"`} {
		check(lone, "lone surrogate")
	}

	for _, null := range []string{"null", " null\n"} {
		if _, err := Entity[order](Event{Entity: json.RawMessage(null)}); err == nil || !strings.Contains(err.Error(), "is null") {
			t.Errorf("got %v", err)
		}
	}
	if got, err := Entity[*order](Event{Entity: json.RawMessage("null")}); got != nil || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := Entity[order](Event{Entity: json.RawMessage(`["1"]`)}); err == nil {
		t.Error("an array filled a struct")
	}
}

func TestAttributesAndHeadersAreFoundByName(t *testing.T) {
	event := Event{Attributes: []Attribute{{"seq", "7"}, {"header.x-trace", "t"}}}
	check := func(value string, ok bool, expected string, there bool) {
		t.Helper()
		if value != expected || ok != there {
			t.Errorf("got %q, %v", value, ok)
		}
	}
	value, ok := event.Attribute("seq")
	check(value, ok, "7", true)
	value, ok = event.Attribute("nothing")
	check(value, ok, "", false)
	value, ok = event.Header("X-Trace")
	check(value, ok, "t", true)
	value, ok = event.Header("seq")
	check(value, ok, "", false)
}

func TestTheTimestampIsATime(t *testing.T) {
	at, ok := Event{Timestamp: "2026-03-02T14:00:00.25Z"}.Time()
	if !ok || !at.Equal(time.Date(2026, 3, 2, 14, 0, 0, 250_000_000, time.UTC)) {
		t.Errorf("got %v, %v", at, ok)
	}
	for _, timestamp := range []string{"", "yesterday"} {
		if at, ok := (Event{Timestamp: timestamp}).Time(); ok {
			t.Errorf("%q: got %v", timestamp, at)
		}
	}
}

func TestTheOutermostOfRetryAndRejectDecides(t *testing.T) {
	cause := errors.New("no tracking number yet")
	for _, test := range []struct {
		err   error
		retry bool
	}{
		{cause, false},
		{Retry(cause), true},
		{Reject(cause), false},
		{fmt.Errorf("order 7: %w", Retry(cause)), true},
		{Reject(Retry(cause)), false},
		{Retry(Reject(cause)), true},
		{errors.Join(errors.New("first"), Retry(cause)), true},
	} {
		if IsRetry(test.err) != test.retry || !errors.Is(test.err, cause) {
			t.Errorf("%v: expected %v", test.err, test.retry)
		}
	}
	if Retry(nil) != nil || Reject(nil) != nil || IsRetry(nil) {
		t.Error("no error became one")
	}
	if got := Retry(cause).Error(); got != cause.Error() {
		t.Errorf("got %s", got)
	}
	if got := reason(errors.New("a\xffb")); got != "a\uFFFDb" {
		t.Errorf("got %q", got)
	}
}

func TestAWebhooksBodyIsCompactAndUnescaped(t *testing.T) {
	webhook, err := JSON(map[string]any{"a": "<1 & 2>", "b": json.RawMessage(`{ "c" : 1.50 }`)})
	if err != nil || string(webhook.Body) != `{"a":"<1 & 2>","b":{"c":1.50}}` {
		t.Errorf("got %s, %v", webhook.Body, err)
	}
	if _, err := JSON(make(chan int)); err == nil || !strings.Contains(err.Error(), "does not become JSON") {
		t.Errorf("got %v", err)
	}
}

func TestAWebhookIsBuiltWithoutTouchingAnother(t *testing.T) {
	base := Bytes("text").WithContentType("text/plain").WithHeader("A", "1")
	one, other := base.To("crm").WithHeader("B", "2"), base.WithKey("k").WithHeader("C", "3")
	if len(base.Headers) != 1 || base.Endpoint != "" || base.Key != "" {
		t.Errorf("got %+v", base)
	}
	if one.Endpoint != "crm" || one.ContentType != "text/plain" || one.Headers[1] != (Header{"B", "2"}) {
		t.Errorf("got %+v", one)
	}
	if other.Key != "k" || other.Headers[1] != (Header{"C", "3"}) {
		t.Errorf("got %+v", other)
	}
}

func TestWhatWouldTrapAtTheBoundaryIsRefused(t *testing.T) {
	if err := Bytes("\xff").WithHeader("A", "é").check(); err != nil {
		t.Errorf("got %v", err)
	}
	for _, webhook := range []Webhook{
		Bytes("").To("\xff"), Bytes("").WithKey("\xff"), Bytes("").WithContentType("\xff"), Bytes("").WithHeader("A", "\xff"),
	} {
		if webhook.check() == nil {
			t.Errorf("%+v passes", webhook)
		}
	}
}
