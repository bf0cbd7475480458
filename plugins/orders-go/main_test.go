package main

import (
	"strings"
	"testing"

	wirehook "github.com/wirehook/wirehook/sdk/go"
	"github.com/wirehook/wirehook/sdk/go/wirehooktest"
)

func created(entity string) wirehook.Event {
	event := wirehooktest.Event("fraiseql.order.created")
	event.EntityID = "550e8400"
	event.Entity = []byte(entity)
	return event
}

func check(t *testing.T, event wirehook.Event, expected string) {
	t.Helper()
	webhooks, err := onEvent(event)
	if err != nil || len(webhooks) != 1 || string(webhooks[0].Body) != expected {
		t.Errorf("got %v, %v; expected %s", webhooks, err, expected)
	}
}

func TestTheBodyIsThePages(t *testing.T) {
	check(t, created(`{"id":"550e8400","customer_email":"ada@example.com","total":129.5,"status":"pending"}`),
		`{"event":"order.created","order_id":"550e8400","customer_email":"ada@example.com","total":129.5}`)
}

func TestWhatTheOrderLacksIsNull(t *testing.T) {
	for _, entity := range []string{`{}`, `{"customer_email":null}`} {
		check(t, created(entity), `{"event":"order.created","order_id":"550e8400","customer_email":null,"total":null}`)
	}
}

func TestAnAmountKeepsItsDigits(t *testing.T) {
	check(t, created(`{"total":12345678901234567890.10}`),
		`{"event":"order.created","order_id":"550e8400","customer_email":null,"total":12345678901234567890.10}`)
}

func TestEveryFormatGivesTheSameWebhook(t *testing.T) {
	for _, message := range []string{
		`{"event": "fraiseql.order.created", "entity_type": "order", "operation": "created", "entity_id": "3333",
			"entity": {"customer_email": "a@b.c", "total": 100}, "timestamp": "2026-03-02T14:00:00Z"}`,
		`{"id": "2222", "event_type": "INSERT", "entity_type": "Order", "entity_id": "3333",
			"data": {"customer_email": "a@b.c", "total": 100}, "changes": null, "user_id": null,
			"timestamp": "2026-01-22T10:00:00Z"}`,
		`{"seq": 7, "object_type": "Order", "op": "insert", "tenant_id": null, "object_id": "3333",
			"after": {"customer_email": "a@b.c", "total": 100}, "before": null, "commit_time": "2026-01-22T10:00:00Z"}`,
	} {
		check(t, wirehooktest.FromMessage(t, message),
			`{"event":"order.created","order_id":"3333","customer_email":"a@b.c","total":100}`)
	}
}

func TestOtherEventsAreFilteredWhateverTheirShape(t *testing.T) {
	for _, subject := range []string{"fraiseql.order.updated", "fraiseql.user.created", "shop.orders"} {
		event := wirehooktest.Event(subject)
		event.Entity = []byte("not json")
		if webhooks, err := onEvent(event); len(webhooks) != 0 || err != nil {
			t.Errorf("%s: got %v, %v", subject, webhooks, err)
		}
	}
}

func TestAnOrderWithoutWhatMakesItOneIsRejected(t *testing.T) {
	rejected := func(event wirehook.Event, expected string) {
		t.Helper()
		_, err := onEvent(event)
		if err == nil || wirehook.IsRetry(err) || !strings.Contains(err.Error(), expected) {
			t.Errorf("got %v; expected %s", err, expected)
		}
	}
	event := created(`{}`)
	event.EntityID = ""
	rejected(event, "the order has no id")

	event = created(`{}`)
	event.Entity = nil
	rejected(event, "the event has no entity")

	rejected(created(`"text"`), "cannot unmarshal string into Go value of type main.order")
}
