// What a page in headless Chromium sees of a server: run by scripts/test-clients.
// Usage: node browser.mjs ws://… ADMIN PAGE CHROMIUM, where `playwright-core` is installed.

import assert from 'node:assert';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const require = createRequire(`${process.cwd()}/`);
const { chromium } = require('playwright-core');
const [url, admin, page, executablePath] = process.argv.slice(2);

// A profile of its own, in a temporary directory that goes with it.
const browser = await chromium.launch({
  executablePath,
  headless: true,
  args: [
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
  ],
});
try {
  const tab = await browser.newPage();
  await tab.goto(`${pathToFileURL(page)}#${url}`);
  await tab.waitForFunction(() => window.live, null, { timeout: 20_000 });
  for (const body of ['grüß', new Uint8Array([0xff, 0xfe])]) {
    const answer = await fetch(`http://${admin}/broadcast`, { method: 'POST', body });
    assert.equal(answer.status, 202);
    assert.equal((await answer.json()).requested, 1);
  }
  await tab.waitForFunction(() => window.result, null, { timeout: 20_000 });
  const result = await tab.evaluate(() => window.result);
  assert.ok(result.opened);
  assert.equal(result.pongs, 16);
  assert.deepEqual(result.messages, ['grüß', '2 bytes']);
  assert.equal(result.code, 1001);
  assert.ok(result.silenceMs >= 950 && result.silenceMs <= 3000, `${result.silenceMs}`);
  const silence = (result.silenceMs / 1000).toFixed(2);
  console.log(`Chromium ${browser.version()}: pushed to, closed with 1001 after ${silence} s of silence`);
} finally {
  await browser.close();
}
