package wirehook

import (
	randv1 "math/rand"
	randv2 "math/rand/v2"
	"sync/atomic"
	_ "unsafe" // for go:linkname
)

// The generators behind the functions of both packages. Their seeds are taken when the instance starts, before there is
// an event; nothing but their names leads to them. `go build` would say so if they were gone.

//go:linkname globalV1 math/rand.globalRandGenerator
var globalV1 atomic.Pointer[randv1.Rand]

//go:linkname globalV2 math/rand/v2.globalRand
var globalV2 *randv2.Rand

// source serves both packages; a plugin is single-threaded, so it needs no lock.
type source struct{ *randv2.PCG }

func (s source) Int63() int64 { return int64(s.Uint64() >> 1) }

func (s source) Seed(seed int64) { s.PCG.Seed(uint64(seed), 0) }

func seedRandom(seed uint64) {
	globalV1.Store(randv1.New(source{randv2.NewPCG(seed, 1)}))
	*globalV2 = *randv2.New(randv2.NewPCG(seed, 2))
}
