// Package wirehook is for writing a Wirehook plugin in Go.
//
// A plugin is one function: an [Event] in, [Webhook] values out. Wirehook does the rest: it receives the event, keeps it
// durably, runs the plugin in a sandbox, signs the webhooks, delivers and retries them.
//
//	package main
//
//	import wirehook "github.com/wirehook/wirehook/sdk/go"
//
//	func init() { wirehook.Export(onEvent) }
//	func main() {} // a plugin is called by the host; main never runs
//
//	func onEvent(event wirehook.Event) ([]wirehook.Webhook, error) {
//		if event.Subject != "fraiseql.order.created" {
//			return nil, nil
//		}
//		order, err := wirehook.Entity[Order](event)
//		if err != nil {
//			return nil, err
//		}
//		webhook, err := wirehook.JSON(order)
//		if err != nil {
//			return nil, err
//		}
//		return []wirehook.Webhook{webhook}, nil
//	}
//
// What ends how:
//
//   - webhooks become deliveries, all of them or none;
//   - no webhooks and no error: the event is filtered;
//   - an error of [Retry]: the event is run again, by the sidecar's [retry];
//   - any other error, of [Reject] or not: the event is a dead letter plugin_rejected;
//   - a panic is a trap: the event is a dead letter plugin_trap; what was said and where is in the log.
//
// [log/slog] and [log] write to the host's log; what is printed is swallowed. In a component [time.Now] is when the event
// happened ([time.Sleep] moves it on at once), and [math/rand], [math/rand/v2] and [crypto/rand] are seeded by the event's
// key: the same event gives the same result. None of them is fit for secrets. The order of a map's iteration is not fixed.
//
// The contract itself, with its bounds, is wit/subscriber.wit in Wirehook's repository.
package wirehook

// OnEvent is a plugin's function.
type OnEvent = func(Event) ([]Webhook, error)

// Export makes onEvent what the host calls for each event. Call it once, in an init function: main never runs. Natively
// it does nothing; tests call onEvent themselves.
func Export(onEvent OnEvent) {
	if onEvent == nil {
		panic("wirehook.Export: the function is nil")
	}
	export(onEvent)
}
