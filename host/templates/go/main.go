// An order that was created becomes a webhook.
package main

import (
	"encoding/json"
	"errors"

	wirehook "github.com/wirehook/wirehook/sdk/go"
)

// order is what is passed on, as the publisher wrote it: an amount never goes through a float.
type order struct {
	CustomerEmail json.RawMessage `json:"customer_email"`
	Total         json.RawMessage `json:"total"`
}

type orderCreated struct {
	Event   string `json:"event"`
	OrderID string `json:"order_id"`
	order
}

func init() { wirehook.Export(onEvent) }

// A plugin is called by the host; main never runs.
func main() {}

// onEvent is called once for each event. No webhooks and no error: the event is not for this plugin.
func onEvent(event wirehook.Event) ([]wirehook.Webhook, error) {
	if event.Subject != "fraiseql.order.created" {
		return nil, nil
	}
	if event.EntityID == "" {
		return nil, wirehook.Reject(errors.New("the order has no id"))
	}
	order, err := wirehook.Entity[order](event)
	if err != nil {
		return nil, err
	}
	webhook, err := wirehook.JSON(orderCreated{Event: "order.created", OrderID: event.EntityID, order: order})
	if err != nil {
		return nil, err
	}
	return []wirehook.Webhook{webhook}, nil
}
