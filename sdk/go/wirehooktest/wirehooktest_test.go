package wirehooktest

import (
	"errors"
	"log"
	"log/slog"
	"reflect"
	"testing"

	wirehook "github.com/wirehook/wirehook/sdk/go"
)

func TestMessagesBecomeEventsAsInTheHost(t *testing.T) {
	check := func(message, subject, key, format, entity string) wirehook.Event {
		t.Helper()
		event := FromMessage(t, message)
		got, _ := event.Attribute("format")
		if event.Subject != subject || event.Key != key || got != format || string(event.Entity) != entity {
			t.Errorf("%s: got %+v", message, event)
		}
		return event
	}

	event := check(`{"event": "fraiseql.order.created", "entity_type": "order", "operation": "created",
		"entity_id": "550e8400", "entity": {"total":129.50}, "timestamp": "2026-03-02T14:00:00Z"}`,
		"fraiseql.order.created", "test/once/1", "page", `{"total":129.50}`)
	if event.EntityID != "550e8400" || event.Timestamp != "2026-03-02T14:00:00Z" || event.Attempt != 1 {
		t.Errorf("got %+v", event)
	}
	check(`{"id": "2222", "event_type": "INSERT", "entity_type": "OrderLine", "entity_id": "3333", "data": {"total":100},
		"changes": null, "user_id": null, "timestamp": "2026-01-22T10:00:00Z"}`,
		"fraiseql.order_line.created", "test/id/2222", "entity_event", `{"total":100}`)
	event = check(`{"seq": 7, "object_type": "Order", "op": "update", "tenant_id": "t", "object_id": "3333",
		"after": {"v":2}, "before": {"v":1}, "commit_time": null}`,
		"fraiseql.order.updated", "test/seq/order:7", "change_event", `{"v":2}`)
	if seq, _ := event.Attribute("seq"); seq != "7" || event.TenantID != "t" || string(event.Previous) != `{"v":1}` {
		t.Errorf("got %+v", event)
	}
	event = check(`{"id": "4444", "object_type": "Order", "modification_type": "DELETE", "object_id": "3333",
		"object_data": null}`, "fraiseql.order.deleted", "test/id/4444", "outbox", "")
	if event.Entity != nil {
		t.Errorf("got %+v", event)
	}
	check(`[1, 2]`, "test", "test/once/1", "json", `[1, 2]`)
}

func TestNamesBecomeSnakeCase(t *testing.T) {
	for name, expected := range map[string]string{
		"order": "order", "Order": "order", "OrderLine": "order_line", "orderLine": "order_line",
		"order_line": "order_line", "HTTPRoute": "http_route", "V2Order": "v2_order",
	} {
		if got := snakeCase(name); got != expected {
			t.Errorf("%s: got %s", name, got)
		}
	}
}

func TestConfigEndsWithItsTest(t *testing.T) {
	t.Run("inside", func(t *testing.T) {
		Config(t, map[string]string{"currency": "EUR", "area": "north"})
		if value, ok := wirehook.Config("currency"); value != "EUR" || !ok {
			t.Errorf("got %q, %v", value, ok)
		}
		if all := wirehook.ConfigAll(); !reflect.DeepEqual(all, map[string]string{"area": "north", "currency": "EUR"}) {
			t.Errorf("got %v", all)
		}
	})
	if value := wirehook.ConfigOr("currency", "none"); value != "none" {
		t.Errorf("got %q", value)
	}
}

func TestLinesAreFormattedAsInTheHost(t *testing.T) {
	writer := log.Writer()
	t.Run("inside", func(t *testing.T) {
		logs := Logs(t)
		slog.Info("an order", "id", 7, slog.Group("by", "name", "Ada L"))
		slog.Default().With("shop", "berlin").WithGroup("order").Error("failed", "err", errors.New("no"))
		slog.Log(t.Context(), wirehook.LevelTrace, "step")
		log.Printf("attempt %d", 2)
		expected := []Line{
			{slog.LevelInfo, `an order id=7 by.name="Ada L"`},
			{slog.LevelError, `failed shop=berlin order.err=no`},
			{wirehook.LevelTrace, "step"},
			{slog.LevelInfo, "attempt 2"},
		}
		if got := logs.Take(); !reflect.DeepEqual(got, expected) {
			t.Errorf("got %q", got)
		}
		if got := logs.Take(); got != nil {
			t.Errorf("taken twice: %q", got)
		}
	})
	if log.Writer() != writer {
		t.Error("log still leads to the test that ended")
	}
}

func TestAPluginsFunctionIsCalledWithTheEvent(t *testing.T) {
	onEvent := func(event wirehook.Event) ([]wirehook.Webhook, error) {
		return []wirehook.Webhook{wirehook.Bytes(event.Entity)}, nil
	}
	webhooks, err := Call(t, onEvent, `{"a": 1}`)
	if err != nil || len(webhooks) != 1 || string(webhooks[0].Body) != `{"a": 1}` {
		t.Errorf("got %v, %v", webhooks, err)
	}
}
