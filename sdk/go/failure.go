package wirehook

import (
	"errors"
	"strings"
)

// failure says what is to become of an event whose plugin returned err.
type failure struct {
	retry bool
	err   error
}

func (f *failure) Error() string { return f.err.Error() }

func (f *failure) Unwrap() error { return f.err }

// Retry wraps err to say that it may work later: the event is run again by the sidecar's [retry]. The message is for the
// operator; the host keeps its first 2 KiB. Retry(nil) is nil.
func Retry(err error) error { return wrap(true, err) }

// Reject wraps err to say that it will never work: the event is a dead letter at once. That is also what becomes of an
// error that nothing was said of; Reject is for one that would otherwise be retried. Reject(nil) is nil.
func Reject(err error) error { return wrap(false, err) }

func wrap(retry bool, err error) error {
	if err == nil {
		return nil
	}
	return &failure{retry: retry, err: err}
}

// IsRetry tells whether err makes the host run the event again: the outermost of [Retry] and [Reject] around it decides.
func IsRetry(err error) bool {
	var outermost *failure
	return errors.As(err, &outermost) && outermost.retry
}

// reason is the message as the boundary takes it: UTF-8.
func reason(err error) string { return strings.ToValidUTF8(err.Error(), "\uFFFD") }
