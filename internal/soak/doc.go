// Package soak loads a Transport with requests to many hosts while everything
// around it goes wrong, and checks that each request, connection, goroutine and
// file is accounted for. It contains no code of its own.
//
//	go test ./internal/soak                                  2 s, as a part of go test ./...
//	go test ./internal/soak -run Soak -soak 10m -timeout 15m -v
//	go test ./internal/soak -run Soak -soak.seed 7 -v
//
// The servers are internal/lab's, on sockets, since open files are counted, at
// 127.0.0.2 and up, which Linux has without being told. Their script is honest:
// a request that was acted on is never said to be refused, nor left out by a
// GOAWAY. So whatever is processed twice is the client's doing.
//
// All decisions follow from one seed, which is printed; what they meet is up to
// the scheduler, so a seed makes a failure likely to come back but does not
// promise it.
package soak
