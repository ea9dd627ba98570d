package soak

import (
	"flag"
	"testing"
	"time"

	"go.uber.org/goleak"
)

var (
	soakFor  = flag.Duration("soak", 2*time.Second, "for how long the soak sends requests")
	soakSeed = flag.Uint64("soak.seed", 0, "seed of the soak's decisions; 0: a random one")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
