package main

const (
	usageLine        = "usage: h2coalesce [-json | get [flags] URL... | explain [flags] URL... | help]"
	getUsageLine     = "usage: h2coalesce get [flags] URL... [explain URL...]   (flags: h2coalesce get -h)"
	explainUsageLine = "usage: h2coalesce explain [flags] URL... [get URL...]   (flags: h2coalesce explain -h)"
)

// manual returns the usage line and the help text of a command that has some.
func manual(command string) (usage, text string) {
	switch command {
	case commandGet:
		return getUsageLine, getHelpText
	case commandExplain:
		return explainUsageLine, explainHelpText
	}
	return "", ""
}

const helpText = `h2coalesce lets one HTTP/2 connection carry the requests for every host that
its certificate covers, and recovers when a server answers 421.

usage:
  h2coalesce [-json]                 a demonstration on servers of its own
  h2coalesce get [flags] URL...      fetch URLs and tell which connection
                                     carries each, and why
  h2coalesce explain [flags] URL...  tell which connection would carry each URL,
                                     and why no other; fetch nothing
  h2coalesce help [get | explain]    this text, or the flags of a command

A command line can do both, in its order and with the same connections:
  h2coalesce get https://a.example https://b.example explain https://c.example

The demonstration needs no network beyond loopback and takes about a second.
With -json it prints the same facts as one JSON document.

exit codes:
  0    all is well
  1    a fetch, an explanation or the demonstration fails
  2    the command line is wrong
  130  interrupted
`

const getHelpText = `usage: h2coalesce get [flags] URL... [explain URL...] [get URL...]...

Fetches http and https URLs in order through one Transport. For each it prints
the status, the bytes of the body (which is discarded) and the time, then what
carries the request: the connection's number, whether it is the host's own or
another's and why, the protocol and the address. A 421 (Misdirected Request)
and what is done about it has a line of its own. Redirects are not followed.

The URLs behind the word explain are explained when those before it have been
fetched (see h2coalesce help explain); those behind a further get are fetched
when that is done. Connections stay open until the end.

` + flagsHelp + `
the words that say why:
  dialed    a connection made for this host just now
  own       a connection made for this host before
  shared    another host's connection
  joined    another host's connection, whose handshake the request waited for
  disabled  net/http's connection: HTTP/1.1, plain http, or a proxy
Below "dialed", "not" tells what kept the request from the open connections.

` + exitsHelp

const explainHelpText = `usage: h2coalesce explain [flags] URL... [get URL...] [explain URL...]...

Tells for each URL which connection would carry a request for it now, and of
every other open connection, oldest first, why it would not. Nothing is opened
and nothing is sent; hosts are looked up where the answer depends on it.

With nothing fetched before, no connection is open. The URLs behind the word
get are fetched (see h2coalesce help get); those behind a further explain are
explained when that is done, by the connections that are open then:
  h2coalesce get https://a.example https://b.example explain https://c.example

` + flagsHelp + `
the words that say what would carry the request:
  own       an open connection that was made for this host
  shared    another host's open connection
  joined    another host's connection, whose handshake is under way
  dialed    a connection that is not open yet
  disabled  net/http's connection: plain http, a proxy, or a host that is known
            to speak HTTP/1.1
Below, "not" tells what keeps the request from an open connection; "also" is one
that would do, but comes second.

With -json, an explanation is an object with these fields:
  explain            the URL, without credentials
  host               its host, as certificates spell it
  conn, conn_host    the connection's number, and the host it was made for;
                     absent if it is not open yet or is net/http's, except that
                     "joined" has the conn_host
  shared, reused     whether it was made for another host; whether it is open
  reason             one of the words above
  considered         the other open connections, oldest first: objects with
                     conn, conn_host and reason; absent if there are none
  error              why there is no explanation; absent if there is one
The summary is left out if nothing was fetched and nothing has failed.

` + exitsHelp

const flagsHelp = `  -match RULE   what sharing requires beside a certificate that covers the host:
                  address      the host resolves to the connection's address
                               (the default)
                  origin       that, or the server's ORIGIN frame lists it
                  certificate  nothing more
                  never        no sharing
  -resolve HOST:PORT:ADDR[,ADDR]...
                use these addresses for an https host instead of looking it up;
                HOST * stands for every host without an entry; repeatable
  -cacert FILE  trust the certificates in this PEM file, and no others
  -H HEADER     send 'Name: value'; 'Name;' sends an empty value, 'Name:' leaves
                a header out, and 'Host: name' names another host to the server;
                repeatable; in explanations, only Host counts
  -parallel N   fetch up to N URLs at once (default 1); the output stays in
                order
  -timeout D    the longest time for one URL, such as 5s (default 30s)
  -json         print one JSON object a line: each URL's, then a summary
Flags hold for all URLs, wherever they stand.
`

const exitsHelp = `exit codes:
  0    every URL was answered, be it with a status of 400 or more, or explained
  1    a URL was not, or not in full; the others are fetched or explained still
  2    the command line is wrong
  130  interrupted
`
