package transport

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/h2coalesce/h2coalesce/pool"
)

// What becomes of a request that the pool has no connection for. That a new one
// has ended is worth another, at once at first; that its server has turned the
// client away, once.
func TestP6_WhichFailuresToConnectAreRepeated(t *testing.T) {
	const pauses = (1 + 2 + 4 + 8 + 16 + 32) * time.Second
	for _, test := range []struct {
		err      error
		times    int
		min, max time.Duration
	}{
		{pool.ErrUnusable, maxMoved + maxUnsent, pauses, pauses * 11 / 10},
		{pool.ErrTurnedAway, 1, 0, 0},
		{pool.ErrClosed, 0, 0, 0},
		{errors.New("connection refused"), 0, 0, 0},
	} {
		t.Run(test.err.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				req, _ := http.NewRequest(http.MethodPost, "https://a.example.com/", nil)
				x := exchange{core: new(core), req: req}
				err, times, began := fmt.Errorf("dial: %w", test.err), 0, time.Now()
				for times < 100 && x.mayConnectAgain(err) == nil {
					times++
				}
				if took := time.Since(began); times != test.times || took < test.min || took > test.max {
					t.Errorf("%d times in %v, want %d in %v", times, took, test.times, test.min)
				}
				if got := x.mayConnectAgain(err); got != err {
					t.Errorf("the error is %v at last", got)
				}
			})
		})
	}
}
