// What a plugin in Go sees of time, randomness and its surroundings; and what becomes of one that fails.
package main

import (
	"context"
	crypto "crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log"
	"log/slog"
	randv1 "math/rand"
	randv2 "math/rand/v2"
	"os"
	"sync"
	"time"

	wirehook "github.com/wirehook/wirehook/sdk/go"
)

// answer is what the probe found.
type answer struct {
	Now        time.Time `json:"now"`
	AfterSleep time.Time `json:"after_sleep"`
	TimedOut   bool      `json:"timed_out"`
	RandV1     uint64    `json:"rand_v1"`
	RandV2     uint64    `json:"rand_v2"`
	Crypto     string    `json:"crypto"`
	Sum        int       `json:"sum"`
	Calls      int       `json:"calls"`
	Arguments  int       `json:"arguments"`
	Variables  int       `json:"variables"`
	File       string    `json:"file"`
	Config     string    `json:"config"`
}

// calls is how many events this instance has seen.
var calls int

func init() { wirehook.Export(onEvent) }

func main() {}

func onEvent(event wirehook.Event) ([]wirehook.Webhook, error) {
	calls++
	switch event.Operation {
	case "created":
		return probe(event)
	case "updated":
		var line map[string]string
		line["written"] = "to a nil map" // panics
		return nil, nil
	case "deleted":
		return nil, fmt.Errorf("probing: %w", wirehook.Retry(errors.New("not yet")))
	default:
		return nil, errors.New("no such probe")
	}
}

func probe(event wirehook.Event) ([]wirehook.Webhook, error) {
	fmt.Println("swallowed")
	log.Printf("probe %d", event.Attempt)
	slog.Warn("probing", "subject", event.Subject)
	found := answer{
		Now: time.Now().UTC(), RandV1: randv1.Uint64(), RandV2: randv2.Uint64(), Sum: sum(100), Calls: calls,
		Arguments: len(os.Args), Variables: len(os.Environ()), Config: wirehook.ConfigOr("currency", "none"),
	}
	key := make([]byte, 16)
	if _, err := crypto.Read(key); err != nil {
		return nil, err
	}
	found.Crypto = hex.EncodeToString(key)
	time.Sleep(time.Minute)
	found.AfterSleep = time.Now().UTC()
	found.TimedOut = timesOut()
	if _, err := os.ReadFile("/etc/passwd"); err != nil {
		found.File = err.Error()
	}
	webhook, err := wirehook.JSON(found)
	return []wirehook.Webhook{webhook}, err
}

// sum adds the numbers up to n, each in a goroutine of its own.
func sum(n int) int {
	numbers := make(chan int)
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() { numbers <- i + 1 })
	}
	go func() {
		group.Wait()
		close(numbers)
	}()
	total := 0
	for number := range numbers {
		total += number
	}
	return total
}

func timesOut() bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	<-ctx.Done()
	return errors.Is(ctx.Err(), context.DeadlineExceeded)
}
