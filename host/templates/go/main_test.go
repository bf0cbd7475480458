package main

import (
	_ "embed"
	"testing"

	wirehook "github.com/wirehook/wirehook/sdk/go"
	"github.com/wirehook/wirehook/sdk/go/wirehooktest"
)

//go:embed events/order_created.json
var created string

func TestACreatedOrderBecomesAWebhook(t *testing.T) {
	webhooks, err := wirehooktest.Call(t, onEvent, created)
	if err != nil || len(webhooks) != 1 {
		t.Fatalf("got %v, %v", webhooks, err)
	}
	expected := `{"event":"order.created","order_id":"550e8400-e29b-41d4-a716-446655440000","customer_email":"ada@example.com","total":129.5}`
	if got := string(webhooks[0].Body); got != expected {
		t.Errorf("got %s", got)
	}
}

func TestOtherEventsAreNotForThisPlugin(t *testing.T) {
	webhooks, err := onEvent(wirehooktest.Event("fraiseql.order.deleted"))
	if err != nil || len(webhooks) != 0 {
		t.Errorf("got %v, %v", webhooks, err)
	}
}

func TestAnOrderWithoutAnIDIsADeadLetter(t *testing.T) {
	_, err := onEvent(wirehooktest.Event("fraiseql.order.created"))
	if err == nil || wirehook.IsRetry(err) {
		t.Errorf("got %v", err)
	}
}
