package main

const (
	usageLine    = "usage: h2coalesce [-json] | h2coalesce get [flags] URL... | h2coalesce help"
	getUsageLine = "usage: h2coalesce get [flags] URL...   (h2coalesce get -h lists the flags)"
)

const helpText = `h2coalesce lets one HTTP/2 connection carry the requests for every host that
its certificate covers, and recovers when a server answers 421.

usage:
  h2coalesce [-json]             a demonstration on servers of its own
  h2coalesce get [flags] URL...  fetch URLs and tell which connection carries
                                 each, and why
  h2coalesce help [get]          this text, or the flags of get

The demonstration needs no network beyond loopback and takes about a second.
With -json it prints the same facts as one JSON document.

exit codes:
  0    all is well
  1    a fetch, or the demonstration, fails
  2    the command line is wrong
  130  interrupted
`

const getHelpText = `usage: h2coalesce get [flags] URL...

Fetches http and https URLs in order through one Transport. For each it prints
the status, the bytes of the body (which is discarded) and the time, then what
carries the request: the connection's number, whether it is the host's own or
another's and why, the protocol and the address. A 421 (Misdirected Request)
and what is done about it has a line of its own. Redirects are not followed.

  -match RULE   what sharing requires beside a certificate that covers the host:
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
                repeatable
  -parallel N   fetch up to N URLs at once (default 1); the output stays in
                order
  -timeout D    the longest time for one URL, such as 5s (default 30s)
  -json         print one JSON object a line: each URL's, then a summary

the words that say why:
  dialed    a connection made for this host just now
  own       a connection made for this host before
  shared    another host's connection
  joined    another host's connection, whose handshake the request waited for
  disabled  net/http's connection: HTTP/1.1, plain http, or a proxy
Below "dialed", "not" tells what kept the request from the open connections.

exit codes:
  0    every URL was answered, be it with a status of 400 or more
  1    a URL was not answered in full; the others are fetched still
  2    the command line is wrong
  130  interrupted
`
