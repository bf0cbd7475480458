//go:build !wasip1

package host

import (
	"fmt"
	"os"
)

// Log takes one line.
var Log = func(_ Level, line string) { fmt.Fprintln(os.Stderr, line) }

// ConfigValues are ordered by name.
var ConfigValues []Value

// ConfigGet is the value of name.
func ConfigGet(name string) (string, bool) {
	for _, value := range ConfigValues {
		if value.Name == name {
			return value.Value, true
		}
	}
	return "", false
}

// ConfigAll is every value, ordered by name.
func ConfigAll() []Value { return ConfigValues }
