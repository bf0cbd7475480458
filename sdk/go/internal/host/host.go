// Package host is what a plugin may ask the host for. In a component the functions lead there; natively the test harness
// sets them.
package host

// Level is how much a log line matters.
type Level uint8

// The levels, in the contract's order.
const (
	Trace Level = iota
	Debug
	Info
	Warn
	Error
)

// Value is a name of the sidecar's [config] and its value.
type Value struct{ Name, Value string }
