package lab

// QuietPort returns the port without pinning it, which Port does.
func QuietPort(l *Lab) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.port
}
