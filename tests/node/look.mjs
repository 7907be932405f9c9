// Opens pages from disk with the network off and prints what each does as JSON, by its name:
// node look.mjs CHROMIUM FOLDER NAME=FILE … — screenshots are written to FOLDER as NAME-SCHEME-SIZE.png.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const [executablePath, folder, ...pages] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const overflow = (page) => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

async function open(file, observed, options) {
  const context = await browser.newContext({ offline: true, ...options });
  const page = await context.newPage();
  page.on("request", (request) => observed.requests.push(request.url()));
  page.on("console", (message) => message.type() === "error" && observed.errors.push(message.text()));
  page.on("pageerror", (error) => observed.errors.push(String(error)));
  page.on("dialog", (dialog) => { observed.dialogs.push(dialog.message()); dialog.dismiss(); });
  await page.goto(pathToFileURL(file).href);
  return page;
}

// What the search and the filters do, on a page that has a list.
async function filters(page, observed) {
  const visible = () => page.evaluate(() => [...document.querySelectorAll("#list > li")].filter((item) => !item.hidden).length);
  const matching = async () => Number.parseInt(await page.textContent("#shown"), 10);
  const shown = (observed.shown = { all: await matching(), visible: await visible() });
  await page.fill("#search", "zebrafish");
  shown.search = await visible();
  shown.status = await page.textContent("#shown");
  await page.fill("#search", "");
  for (const select of await page.$$(".tools select")) {
    const counts = (shown[await select.getAttribute("id")] = {});
    const values = await select.evaluate((element) => [...element.options].map((option) => option.value).filter(Boolean));
    for (const value of values) {
      await select.selectOption(value);
      counts[value] = await matching();
    }
    await select.selectOption("");
  }
  shown.again = await matching();
  while (await page.isVisible("#more")) await page.click("#more");
  shown.whole = await visible();
  observed.heights = await page.evaluate(
    () => [...document.querySelectorAll(".tools label > *")].map((field) => field.getBoundingClientRect().height));
}

async function look(name, file) {
  const observed = { requests: [], errors: [], dialogs: [], axe: {}, overflow: {} };
  // This page is observed under its own policy; axe is injected into the others, which the policy forbids.
  const plain = await open(file, observed, { viewport: { width: 1280, height: 900 } });
  observed.pwned = await plain.evaluate(() => window.pwned ?? null);
  if (await plain.$("#list")) await filters(plain, observed);
  await plain.emulateMedia({ media: "print" });
  observed.overflow.print = await overflow(plain);
  await plain.context().close();
  const page = await open(file, observed, { bypassCSP: true });
  await page.evaluate(axe);
  const setDetails = (open) => page.evaluate(
    (open) => document.querySelectorAll("details").forEach((details, at) => { details.open = open === "all" || at % 5 === 0; }), open);
  for (const colorScheme of ["light", "dark"]) {
    for (const [size, width] of [["wide", 1280], ["phone", 390]]) {
      const view = `${colorScheme}-${size}`;
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: 900 });
      await setDetails("all");
      observed.overflow[`${view}, all open`] = await overflow(page);
      await setDetails("some");
      observed.overflow[view] = await overflow(page);
      await page.screenshot({ path: `${folder}/${name}-${view}.png` });
      const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
      observed.axe[view] = violations.map(
        ({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map((node) => node.html.slice(0, 160)).join(" | ")}`);
    }
  }
  await page.context().close();
  return observed;
}

const result = {};
for (const page of pages) {
  const [name, ...file] = page.split("=");
  result[name] = await look(name, file.join("="));
}
await browser.close();
console.log(JSON.stringify(result));
