// What a client of npm's `ws` sees of a server: run by scripts/test-clients.

import assert from 'node:assert';
import { once } from 'node:events';
import { createRequire } from 'node:module';

const require = createRequire(`${process.cwd()}/`);
const WebSocket = require('ws');
const url = process.argv[2];

const socket = new WebSocket(url);
await once(socket, 'open');
const receive = async () => {
  const [data, isBinary] = await once(socket, 'message');
  return isBinary ? data : data.toString();
};
socket.send('ping');
assert.equal(await receive(), 'pong');
socket.ping('payload');
assert.equal((await once(socket, 'pong'))[0].toString(), 'payload');
for (const message of ['', 'é'.repeat(1000), Buffer.alloc(50_000, 7)]) {
  socket.send(message);
  assert.deepEqual(await receive(), message);
}
socket.send('frag', { fin: false });
socket.send('mented', { fin: true });
assert.equal(await receive(), 'fragmented');
const begun = Date.now();
socket.send('ping');
assert.equal(await receive(), 'pong');
const [code] = await once(socket, 'close');
const silence = (Date.now() - begun) / 1000;
assert.equal(code, 1001);
assert.ok(silence >= 0.95 && silence <= 3, `${silence}`);
const version = require('ws/package.json').version;
console.log(`ws ${version}: closed with 1001 after ${silence.toFixed(2)} s of silence`);
