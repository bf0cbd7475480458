// The example of FraiseQL's webhooks page: an order that was created becomes a webhook for the shop's notifications.
package main

import (
	"encoding/json"
	"errors"

	wirehook "github.com/wirehook/wirehook/sdk/go"
)

const orderCreated = "fraiseql.order.created"

// order has the members that are passed on, as the publisher wrote them: an amount never goes through a float here.
type order struct {
	CustomerEmail json.RawMessage `json:"customer_email"`
	Total         json.RawMessage `json:"total"`
}

// body is in the page's order. What the order lacks is null, as with Python's dict.get.
type body struct {
	Event   string `json:"event"`
	OrderID string `json:"order_id"`
	order
}

func init() { wirehook.Export(onEvent) }

// A plugin is called by the host; main never runs.
func main() {}

// onEvent turns fraiseql.order.created into one webhook for the default endpoint; anything else is not for this plugin.
func onEvent(event wirehook.Event) ([]wirehook.Webhook, error) {
	if event.Subject != orderCreated {
		return nil, nil
	}
	if event.EntityID == "" {
		return nil, wirehook.Reject(errors.New("the order has no id"))
	}
	order, err := wirehook.Entity[order](event)
	if err != nil {
		return nil, err
	}
	webhook, err := wirehook.JSON(body{Event: "order.created", OrderID: event.EntityID, order: order})
	if err != nil {
		return nil, err
	}
	return []wirehook.Webhook{webhook}, nil
}
