// Opens a report from disk with the network off and prints what the page does as JSON: node look.mjs FILE CHROMIUM FOLDER
// Screenshots are written to FOLDER.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const [file, executablePath, folder] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const observed = { requests: [], errors: [], dialogs: [], axe: {}, overflow: {}, shown: {}, heights: [] };

async function open(name, options) {
  // axe is injected into the page, which the page's own policy forbids; the page "plain" is observed under its policy.
  const context = await browser.newContext({ offline: true, bypassCSP: name !== "plain", ...options });
  const page = await context.newPage();
  page.on("request", (request) => observed.requests.push(request.url()));
  page.on("console", (message) => message.type() === "error" && observed.errors.push(message.text()));
  page.on("pageerror", (error) => observed.errors.push(String(error)));
  page.on("dialog", (dialog) => { observed.dialogs.push(dialog.message()); dialog.dismiss(); });
  await page.goto(pathToFileURL(file).href);
  await page.waitForTimeout(200);
  observed.overflow[name] = await overflow(page);
  return page;
}

const overflow = (page) => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

const plain = await open("plain", { viewport: { width: 1280, height: 900 } });
observed.pwned = await plain.evaluate(() => window.pwned ?? null);
const count = () => plain.evaluate(() => [...document.querySelectorAll("#list > li")].filter((item) => !item.hidden).length);
observed.shown.all = await count();
await plain.fill("#search", "zebrafish");
observed.shown.search = await count();
observed.shown.status = await plain.textContent("#shown");
await plain.fill("#search", "");
for (const select of await plain.$$(".tools select")) {
  const counts = (observed.shown[await select.getAttribute("id")] = {});
  const values = await select.evaluate((element) => [...element.options].map((option) => option.value).filter(Boolean));
  for (const value of values) {
    await select.selectOption(value);
    counts[value] = await count();
  }
  await select.selectOption("");
}
observed.shown.again = await count();
observed.heights = await plain.evaluate(
  () => [...document.querySelectorAll(".tools label > *")].map((field) => field.getBoundingClientRect().height));
await plain.keyboard.press("Tab");
observed.focus = await plain.evaluate(() => document.activeElement?.tagName);
for (const colorScheme of ["light", "dark"]) {
  for (const [size, width] of [["wide", 1280], ["phone", 360]]) {
    const name = `${colorScheme}-${size}`;
    const page = await open(name, { colorScheme, viewport: { width, height: 900 } });
    await page.evaluate(() => document.querySelectorAll("details").forEach((details) => { details.open = true; }));
    observed.overflow[`${name}, all open`] = await overflow(page);
    await page.evaluate(() => document.querySelectorAll("details").forEach((details, at) => { details.open = at % 5 === 0; }));
    await page.screenshot({ path: `${folder}/${name}.png`, fullPage: true });
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
    observed.axe[name] = violations.filter((violation) => ["serious", "critical"].includes(violation.impact)).map(
      ({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map((node) => node.html.slice(0, 160)).join(" | ")}`);
  }
}
await browser.close();
console.log(JSON.stringify(observed));
