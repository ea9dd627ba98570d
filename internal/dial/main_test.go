package dial_test

import (
	"context"
	"net"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// The first look-up of a process starts what serves all later ones, and
	// that must not belong to a bubble of testing/synctest.
	_, _ = net.DefaultResolver.LookupNetIP(context.Background(), "ip", "localhost")
	goleak.VerifyTestMain(m)
}
