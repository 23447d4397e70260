// A server on npm's `ws` with the pattern of its README that finds the dead: every interval, whoever
// has not answered the last PING is terminated. Started by scripts/test-servers and
// scripts/eviction-table.
//
// node ws.mjs INTERVAL_MS ANSWER     ANSWER `pong`: text `ping` is answered by text `pong`;
//                                    `fragments`: by two fragments with a PING in between;
//                                    `none`: no message is answered

import { createRequire } from 'node:module';

const require = createRequire(`${process.cwd()}/`);
const { WebSocketServer } = require('ws');
const [interval, answer] = [Number(process.argv[2]), process.argv[3]];

const seen = { paths: {}, hosts: {}, extensions: {}, pongs: 0, terminated: 0, errors: {} };
const count = (table, name) => { table[name] = (table[name] ?? 0) + 1; };

const server = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate: true });
server.on('connection', (socket, request) => {
  count(seen.paths, request.url);
  count(seen.hosts, request.headers.host);
  count(seen.extensions, request.headers['sec-websocket-extensions'] ?? 'none');
  socket.isAlive = true;
  socket.on('error', (error) => count(seen.errors, error.message));
  socket.on('pong', () => {
    socket.isAlive = true;
    seen.pongs += 1;
  });
  socket.on('message', (data) => {
    if (data.toString() !== 'ping' || answer === 'none') return;
    if (answer === 'pong') return socket.send('pong');
    socket.send('po', { fin: false });
    socket.ping('between');
    socket.send('ng', { fin: true });
  });
});

const timer = setInterval(() => {
  for (const socket of server.clients) {
    if (socket.isAlive === false) {
      seen.terminated += 1;
      socket.terminate();
      continue;
    }
    socket.isAlive = false;
    socket.ping();
  }
}, interval);

server.on('listening', () => console.log(JSON.stringify({ port: server.address().port })));
process.on('SIGTERM', () => {
  clearInterval(timer);
  console.log(JSON.stringify(seen));
  process.exit(0);
});
