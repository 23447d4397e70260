// What headless Chromium shows of loadgen's report, with scripts off: run by scripts/test-clients.
// Usage: node report.mjs CHROMIUM PAGE…, where `playwright-core` is installed.

import assert from 'node:assert';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const require = createRequire(`${process.cwd()}/`);
const { chromium } = require('playwright-core');
const [executablePath, ...pages] = process.argv.slice(2);

const PLOTS = 7;
const browser = await chromium.launch({
  executablePath,
  headless: true,
  args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking'],
});
try {
  for (const page of pages) {
    const context = await browser.newContext({
      javaScriptEnabled: false,
      viewport: { width: 1100, height: 900 },
    });
    const tab = await context.newPage();
    const [asked, complaints] = [[], []];
    tab.on('request', (request) => asked.push(request.url()));
    tab.on('console', (message) => complaints.push(message.text()));
    tab.on('pageerror', (error) => complaints.push(`${error}`));
    const url = `${pathToFileURL(page)}`;
    await tab.goto(url);
    assert.deepEqual(asked, [url], 'one file, and nothing that it has to fetch');
    assert.deepEqual(complaints, []);
    const inside = (box) => box && box.x >= 0 && box.x + box.width <= 1100;
    const badge = await tab.locator('h1 .badge').boundingBox();
    assert.ok(inside(badge) && badge.y + badge.height <= 900, 'the verdict is seen first');
    const plots = await tab.locator('svg').all();
    assert.equal(plots.length, PLOTS);
    for (const plot of plots) {
      const box = await plot.boundingBox();
      assert.ok(inside(box) && box.width > 200 && box.height > 80, JSON.stringify(box));
      // A line of no height is one, too: nothing failed. So it has to have a width.
      const widths = (await Promise.all(
        (await plot.locator('polyline').all()).map((line) => line.boundingBox()),
      )).map((line) => line?.width ?? 0);
      assert.ok(Math.max(...widths) > 50, `a plot shows a line: ${widths}`);
    }
    for (const table of await tab.locator('table').all()) {
      assert.ok(inside(await table.boundingBox()), 'no table is wider than the page');
    }
    await context.close();
  }
  console.log(`Chromium ${browser.version()}: ${pages.length} report, ${PLOTS} plots, without scripts`);
} finally {
  await browser.close();
}
