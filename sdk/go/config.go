package wirehook

import "github.com/wirehook/wirehook/sdk/go/internal/host"

// Config is the value of name in the sidecar's [config]; false where it is not there. Strings are as they are, other
// values as TOML writes them.
func Config(name string) (string, bool) { return host.ConfigGet(name) }

// ConfigOr is the value of name in the sidecar's [config], or fallback.
func ConfigOr(name, fallback string) string {
	if value, ok := host.ConfigGet(name); ok {
		return value
	}
	return fallback
}

// ConfigAll is all of the sidecar's [config].
func ConfigAll() map[string]string {
	values := make(map[string]string)
	for _, value := range host.ConfigAll() {
		values[value.Name] = value.Value
	}
	return values
}
