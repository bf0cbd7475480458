package wirehook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"
)

// Webhook is one request for the host to sign, deliver and retry: [JSON] or [Bytes], then what the methods add.
type Webhook struct {
	// Endpoint is a name in the host's settings, never a URL; empty means the plugin's first.
	Endpoint string
	// Key tells it from the event's other webhooks for the same endpoint; empty means its position in the result.
	Key string
	// ContentType is the body's; empty means application/json.
	ContentType string
	// Headers are further ones, in order.
	Headers []Header
	// Body is sent byte for byte.
	Body []byte
}

// Header is a header of a webhook.
type Header struct{ Name, Value string }

// JSON is a webhook whose body is value as compact JSON, its <, > and & as they are. The error is [json.Marshal]'s;
// returned by the plugin, it rejects the event.
func JSON(value any) (Webhook, error) {
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return Webhook{}, fmt.Errorf("the webhook's body does not become JSON: %w", err)
	}
	return Bytes(bytes.TrimSuffix(body.Bytes(), []byte("\n"))), nil
}

// Bytes is a webhook with this body, as application/json unless [Webhook.WithContentType] says otherwise.
func Bytes[T ~[]byte | ~string](body T) Webhook {
	return Webhook{Body: []byte(body)}
}

// To sends it to the endpoint of this name, instead of the plugin's first. A name that the plugin was not given is a dead
// letter endpoint_unknown.
func (w Webhook) To(endpoint string) Webhook {
	w.Endpoint = endpoint
	return w
}

// WithKey tells it from the event's other webhooks for the same endpoint, instead of its position: for results whose
// order may change from try to try. At most 256 bytes, and unique for its endpoint.
func (w Webhook) WithKey(key string) Webhook {
	w.Key = key
	return w
}

// WithHeader adds a header. Those of the connection, of identity and of the signature belong to the host: a webhook that
// names one is a dead letter header_reserved. A value is visible ASCII, spaces and tabs, as the content type is: anything else is a
// dead letter plugin_output.
func (w Webhook) WithHeader(name, value string) Webhook {
	// Never into an array that another webhook shares.
	w.Headers = append(slices.Clip(w.Headers), Header{Name: name, Value: value})
	return w
}

// WithContentType sets the content type, instead of application/json.
func (w Webhook) WithContentType(value string) Webhook {
	w.ContentType = value
	return w
}

var errNotUTF8 = errors.New("the endpoint, the key, the content type and the headers must be UTF-8")

// check refuses what would trap at the boundary, where only the body may be any bytes.
func (w Webhook) check() error {
	valid := utf8.ValidString(w.Endpoint) && utf8.ValidString(w.Key) && utf8.ValidString(w.ContentType)
	for _, header := range w.Headers {
		valid = valid && utf8.ValidString(header.Name) && utf8.ValidString(header.Value)
	}
	if !valid {
		return errNotUTF8
	}
	return nil
}
