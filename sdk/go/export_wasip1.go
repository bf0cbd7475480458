package wirehook

import (
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"time"

	_ "github.com/wirehook/wirehook/sdk/go/internal/bindings"
	handler "github.com/wirehook/wirehook/sdk/go/internal/bindings/export_wirehook_plugin_handler"
	types "github.com/wirehook/wirehook/sdk/go/internal/bindings/wirehook_plugin_types"
	wit "github.com/wirehook/wirehook/sdk/go/internal/bindings/wit/types"
	"github.com/wirehook/wirehook/sdk/go/internal/host"
)

// framesMax bounds the lines that say where a panic began.
const framesMax = 12

type result = wit.Result[[]types.Webhook, types.Failure]

func export(onEvent OnEvent) {
	slog.SetDefault(slog.New(NewLogHandler()))
	handler.OnEvent = func(event types.Event) result {
		defer reportPanic()
		return call(onEvent, fromContract(event))
	}
}

func call(onEvent OnEvent, event Event) result {
	beginEvent(event)
	webhooks, err := onEvent(event)
	if err != nil {
		if IsRetry(err) {
			return wit.Err[[]types.Webhook](types.MakeFailureRetry(reason(err)))
		}
		return wit.Err[[]types.Webhook](types.MakeFailureReject(reason(err)))
	}
	converted := make([]types.Webhook, len(webhooks))
	for i, webhook := range webhooks {
		if err := webhook.check(); err != nil {
			return wit.Err[[]types.Webhook](types.MakeFailureReject(fmt.Sprintf("webhook %d: %s", i, err)))
		}
		converted[i] = toContract(webhook)
	}
	return wit.Ok[[]types.Webhook, types.Failure](converted)
}

// beginEvent sets the clock and the randomness of this instance; see hostBeginEvent.
func beginEvent(event Event) {
	var nanoseconds int64
	if at, ok := event.Time(); ok && at.Year() >= 1970 && at.Before(time.Unix(0, math.MaxInt64)) {
		nanoseconds = at.UnixNano()
	}
	seed := seedOf(event.Key)
	hostBeginEvent(nanoseconds, seed)
	seedRandom(uint64(seed))
}

// hostBeginEvent is served by what the host puts into the component in place of WASI.
//
//go:wasmimport wasi_snapshot_preview1 wirehook_event_begin
func hostBeginEvent(nanoseconds int64, seed int64)

// seedOf is FNV-1a.
func seedOf(key string) int64 {
	hash := uint64(14695981039346656037)
	for i := range len(key) {
		hash = (hash ^ uint64(key[i])) * 1099511628211
	}
	return int64(hash)
}

// reportPanic logs what the trap that follows can't say.
func reportPanic() {
	value := recover()
	if value == nil {
		return
	}
	host.Log(host.Error, fmt.Sprintf("panic: %v", value))
	var counters [framesMax]uintptr
	// What called recover, and what that was called by, is the runtime's.
	frames := runtime.CallersFrames(counters[:runtime.Callers(3, counters[:])])
	for {
		frame, more := frames.Next()
		if frame.Function != "" {
			host.Log(host.Error, fmt.Sprintf("  at %s (%s:%d)", frame.Function, frame.File, frame.Line))
		}
		if !more {
			break
		}
	}
	panic(value)
}

func fromContract(event types.Event) Event {
	attributes := make([]Attribute, len(event.Attributes))
	for i, attribute := range event.Attributes {
		attributes[i] = Attribute{Name: attribute.F0, Value: attribute.F1}
	}
	return Event{
		Key:        event.Key,
		Subject:    event.Subject,
		EntityType: event.EntityType,
		Operation:  event.Operation,
		EntityID:   event.EntityId.SomeOr(""),
		TenantID:   event.TenantId.SomeOr(""),
		Timestamp:  event.Timestamp.SomeOr(""),
		Entity:     event.Entity.SomeOr(nil),
		Previous:   event.Previous.SomeOr(nil),
		Attributes: attributes,
		Attempt:    int(event.Attempt),
	}
}

func toContract(webhook Webhook) types.Webhook {
	headers := make([]wit.Tuple2[string, string], len(webhook.Headers))
	for i, header := range webhook.Headers {
		headers[i] = wit.Tuple2[string, string]{F0: header.Name, F1: header.Value}
	}
	return types.Webhook{
		Endpoint:    optional(webhook.Endpoint),
		Key:         optional(webhook.Key),
		ContentType: optional(webhook.ContentType),
		Headers:     headers,
		Body:        webhook.Body,
	}
}

func optional(text string) wit.Option[string] {
	if text == "" {
		return wit.None[string]()
	}
	return wit.Some(text)
}
