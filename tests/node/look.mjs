// Opens a report from disk, with the network off, and tells as JSON what it does: node look.mjs FILE CHROMIUM FOLDER
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const [file, executablePath, folder] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const told = { requests: [], errors: [], dialogs: [], axe: {}, overflow: {}, shown: {}, heights: [] };

async function look(name, options) {
  // bypassCSP is for axe alone, which is put into the page: the page's own policy is looked at without it
  const context = await browser.newContext({ offline: true, bypassCSP: name !== "plain", ...options });
  const page = await context.newPage();
  page.on("request", (request) => told.requests.push(request.url()));
  page.on("console", (message) => message.type() === "error" && told.errors.push(message.text()));
  page.on("pageerror", (error) => told.errors.push(String(error)));
  page.on("dialog", (dialog) => { told.dialogs.push(dialog.message()); dialog.dismiss(); });
  await page.goto(pathToFileURL(file).href);
  await page.waitForTimeout(200);
  told.overflow[name] = await overflow(page);
  return page;
}

const overflow = (page) => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

const plain = await look("plain", { viewport: { width: 1280, height: 900 } });
told.pwned = await plain.evaluate(() => window.pwned ?? null);
const count = () => plain.evaluate(() => [...document.querySelectorAll("#list > li")].filter((one) => !one.hidden).length);
told.shown.all = await count();
await plain.fill("#search", "zebrafish");
told.shown.search = await count();
told.shown.status = await plain.textContent("#shown");
await plain.fill("#search", "");
for (const choice of await plain.$$(".tools select")) {
  const counts = (told.shown[await choice.getAttribute("id")] = {});
  for (const value of await choice.evaluate((one) => [...one.options].map((option) => option.value).filter(Boolean))) {
    await choice.selectOption(value);
    counts[value] = await count();
  }
  await choice.selectOption("");
}
told.shown.again = await count();
told.heights = await plain.evaluate(() => [...document.querySelectorAll(".tools label > *")].map((one) => one.getBoundingClientRect().height));
await plain.keyboard.press("Tab");
told.focus = await plain.evaluate(() => document.activeElement?.tagName);
for (const colorScheme of ["light", "dark"]) {
  for (const [size, width] of [["wide", 1280], ["phone", 360]]) {
    const name = `${colorScheme}-${size}`;
    const page = await look(name, { colorScheme, viewport: { width, height: 900 } });
    await page.evaluate(() => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
    told.overflow[`${name}, all open`] = await overflow(page);
    await page.evaluate(() => document.querySelectorAll("details").forEach((one, at) => { one.open = at % 5 === 0; }));
    await page.screenshot({ path: `${folder}/${name}.png`, fullPage: true });
    await page.evaluate(axe);
    const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
    told.axe[name] = found.violations.filter((one) => ["serious", "critical"].includes(one.impact))
      .map((one) => `${one.id}: ${one.nodes.slice(0, 3).map((node) => node.html.slice(0, 160)).join(" | ")}`);
  }
}
await browser.close();
console.log(JSON.stringify(told));
