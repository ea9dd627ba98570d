// Command h2coalesce shows what sharing HTTP/2 connections among hosts does.
//
// Without arguments it is a demonstration on servers of its own: 20 hosts
// fetched by net/http and by package transport side by side, then one 421
// (Misdirected Request) as it happens. "h2coalesce get URL..." fetches real
// URLs through one transport.Transport and tells for each of them which
// connection carried it, and why. "h2coalesce explain URL..." tells which
// connection would carry each, and why no other, and opens none. Both can be
// had in one go: in "h2coalesce get URL... explain URL..." the connections of
// the first URLs are those that the others are explained by. "h2coalesce help"
// lists the flags.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
)

// Exit codes. They are documented in the help texts.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130 // 128 + SIGINT, as shells have it
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	// A second interrupt ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// errFailed makes the exit code 1 when what failed has been told already.
var errFailed = errors.New("failed")

// usageError is a command line that cannot be followed. It makes the exit code
// 2.
type usageError struct {
	usage string // the line that shows how it is done
	text  string // what is wrong
}

func (e *usageError) Error() string { return e.text }

// run executes the command and returns its exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	err := dispatch(ctx, args, stdout)
	usage, wrong := errors.AsType[*usageError](err)
	switch {
	case err == nil:
		return exitOK
	case wrong:
		fmt.Fprintf(stderr, "h2coalesce: %s\n%s\n", usage.text, usage.usage)
		return exitUsage
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "h2coalesce: interrupted")
		return exitInterrupted
	case err != errFailed:
		fmt.Fprintf(stderr, "h2coalesce: %v\n", err)
	}
	return exitFailed
}

func dispatch(ctx context.Context, args []string, stdout io.Writer) error {
	command := ""
	if len(args) > 0 {
		command = args[0]
	}
	switch {
	case command == commandGet, command == commandExplain:
		return runURLs(ctx, command, args[1:], stdout)
	case command == "help":
		return runHelp(args[1:], stdout)
	case command == "" && len(args) == 0, len(command) > 1 && command[0] == '-':
		return runDemo(ctx, args, stdout)
	}
	return &usageError{usageLine, fmt.Sprintf("unknown command %q", command)}
}

func runHelp(args []string, stdout io.Writer) error {
	text := helpText
	if len(args) == 1 {
		_, text = manual(args[0])
	}
	if len(args) > 1 || text == "" {
		return &usageError{usageLine, fmt.Sprintf("no help on %q", args)}
	}
	_, err := io.WriteString(stdout, text)
	return err
}
