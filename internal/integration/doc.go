// Package integration holds tests that drive the module against servers which
// the module did not write: each test starts one on loopback addresses, with
// certificates from internal/lab, and ends it.
//
// A test whose server is not installed is skipped, but fails where the
// environment variable CI is set. The package contains no code of its own.
package integration
