package wirehook

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"

	"github.com/wirehook/wirehook/sdk/go/internal/host"
)

// LevelTrace is below [slog.LevelDebug], for every step.
const LevelTrace = slog.Level(-8)

// NewLogHandler is a handler whose lines go to the host's log, as the message and then name=value. [Export] makes it the
// default, so that [slog.Info] and log.Printf need nothing more. The host adds the time, the plugin and the event; it
// drops what is below its own level, and keeps 100 lines and 16 KiB of one event.
func NewLogHandler() slog.Handler {
	line := &line{}
	// The message, the level and the time have places of their own.
	replace := func(groups []string, attr slog.Attr) slog.Attr {
		if len(groups) == 0 && (attr.Key == slog.TimeKey || attr.Key == slog.LevelKey || attr.Key == slog.MessageKey) {
			return slog.Attr{}
		}
		return attr
	}
	options := &slog.HandlerOptions{Level: LevelTrace, ReplaceAttr: replace}
	return logHandler{attrs: slog.NewTextHandler(&line.buffer, options), line: line}
}

// line is where a text handler writes, shared by the handlers made of one another.
type line struct {
	mutex  sync.Mutex
	buffer bytes.Buffer
}

type logHandler struct {
	attrs slog.Handler
	line  *line
}

func (h logHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= LevelTrace }

func (h logHandler) Handle(ctx context.Context, record slog.Record) error {
	h.line.mutex.Lock()
	defer h.line.mutex.Unlock()
	h.line.buffer.Reset()
	if err := h.attrs.Handle(ctx, record); err != nil {
		return err
	}
	text := strings.TrimSpace(record.Message + " " + strings.TrimSpace(h.line.buffer.String()))
	host.Log(hostLevel(record.Level), strings.ToValidUTF8(text, "\uFFFD"))
	return nil
}

func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return logHandler{attrs: h.attrs.WithAttrs(attrs), line: h.line}
}

func (h logHandler) WithGroup(name string) slog.Handler {
	return logHandler{attrs: h.attrs.WithGroup(name), line: h.line}
}

func hostLevel(level slog.Level) host.Level {
	switch {
	case level < slog.LevelDebug:
		return host.Trace
	case level < slog.LevelInfo:
		return host.Debug
	case level < slog.LevelWarn:
		return host.Info
	case level < slog.LevelError:
		return host.Warn
	default:
		return host.Error
	}
}
