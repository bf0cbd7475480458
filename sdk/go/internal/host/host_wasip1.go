package host

import (
	"github.com/wirehook/wirehook/sdk/go/internal/bindings/wirehook_plugin_config"
	"github.com/wirehook/wirehook/sdk/go/internal/bindings/wirehook_plugin_log"
)

// Log takes one line.
func Log(level Level, line string) { wirehook_plugin_log.Log(uint8(level), line) }

// ConfigGet is the value of name.
func ConfigGet(name string) (string, bool) {
	value := wirehook_plugin_config.Get(name)
	if value.IsNone() {
		return "", false
	}
	return value.Some(), true
}

// ConfigAll is every value, ordered by name.
func ConfigAll() []Value {
	all := wirehook_plugin_config.All()
	values := make([]Value, len(all))
	for i, value := range all {
		values[i] = Value{Name: value.F0, Value: value.F1}
	}
	return values
}
