package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

// style colours text, or leaves it as it is.
type style struct{ on bool }

// styleOf returns the style for what is written to w: colour only on a
// terminal, and not against the wishes of NO_COLOR (no-color.org) and TERM.
func styleOf(w io.Writer) style {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return style{}
	}
	info, err := f.Stat()
	return style{err == nil && info.Mode()&os.ModeCharDevice != 0}
}

func (s style) paint(code, text string) string {
	if !s.on {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s style) bold(text string) string   { return s.paint("1", text) }
func (s style) dim(text string) string    { return s.paint("2", text) }
func (s style) red(text string) string    { return s.paint("31", text) }
func (s style) green(text string) string  { return s.paint("32", text) }
func (s style) yellow(text string) string { return s.paint("33", text) }
func (s style) cyan(text string) string   { return s.paint("36", text) }

// status colours text, which is padded, by what a status means.
func (s style) status(code int, text string) string {
	switch {
	case code < 200:
		return s.red(text)
	case code < 400:
		return s.green(text)
	}
	return s.yellow(text)
}

// reason colours the words that tell what carries a request.
func (s style) reason(word, text string) string {
	switch word {
	case "shared", "joined":
		return s.green(text)
	case "dialed", "own":
		return s.cyan(text)
	}
	return s.yellow(text)
}

// durationText is d at a precision that a reader has a use for.
func durationText(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%.1f ms", millis(d))
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

// bytesText is n with a decimal unit.
func bytesText(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	size := float64(n) / 1000
	for _, unit := range []string{"kB", "MB", "GB"} {
		if size < 999.95 {
			return fmt.Sprintf("%.1f %s", size, unit)
		}
		size /= 1000
	}
	return fmt.Sprintf("%.1f TB", size)
}

// millis is d in milliseconds, the unit of the JSON outputs, in whole
// microseconds.
func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// counted is "1 thing" or "2 things".
func counted[N int | uint64 | int64](n N, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}
