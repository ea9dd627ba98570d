// An HTTP/2 server that sends ORIGIN frames (RFC 8336), for node_server_test.go.
// Its argument is a JSON file, which the test describes.
//
// Stdout has a line for each session and for each request, which is written
// before the answer.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createSecureServer } from 'node:http2';

const { port, listeners } = JSON.parse(readFileSync(process.argv[2], 'utf8'));
let sessions = 0;

// Node makes an origin of a URL, and takes what an object says as it stands,
// which alone can be empty.
const entry = (text) => (text === '' ? { origin: text } : text);

// digest tells answer the length and the hash of a body, once it has all come.
const digest = (body, answer) => {
  const hash = createHash('sha256');
  let length = 0;
  body.on('data', (chunk) => {
    hash.update(chunk);
    length += chunk.length;
  });
  body.on('end', () => answer(`length=${length} sha256=${hash.digest('hex')}`));
};

for (const { addr, cert, key, origins, misdirected } of listeners) {
  const server = createSecureServer({
    cert: readFileSync(cert),
    key: readFileSync(key),
    origins: origins.map(entry), // without any, Node sends no frame
  });
  server.on('session', (session) => {
    const number = ++sessions;
    const sni = session.socket.servername;
    console.log(`session ${number}: ${session.socket.localAddress} ${sni}`);

    session.on('stream', (stream, headers) => {
      const authority = headers[':authority'];
      const url = new URL(headers[':path'], `https://${authority}`);
      const status = misdirected.includes(url.hostname) && url.hostname !== sni ? 421 : 200;
      console.log(`request ${number}: ${authority} ${status}`);

      if (url.pathname === '/origin') {
        session.origin(...url.searchParams.getAll('list').map(entry));
      }
      const answer = (received) => {
        stream.respond({ ':status': status, 'content-type': 'text/plain' });
        stream.end(`host=${url.hostname} sni=${sni} ${received}\n`);
      };
      if (status === 421) {
        answer('unread');
      } else {
        digest(stream, answer);
      }
    });
  });
  server.listen(port, addr);
}
