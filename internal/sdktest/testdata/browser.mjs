// Opens a page in Chromium and writes window.outcome, as JSON: browser.mjs PLAYWRIGHT CHROMIUM ADDRESS
const [playwright, executablePath, address] = process.argv.slice(2);
const { chromium } = (await import(playwright)).default;
const browser = await chromium.launch({
  executablePath,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
try {
  const page = await browser.newPage();
  page.on("console", (message) => console.error(message.text()));
  page.on("pageerror", (error) => console.error(String(error)));
  await page.goto(address);
  await page.waitForFunction(() => window.outcome !== undefined);
  console.log(JSON.stringify(await page.evaluate(() => window.outcome)));
} finally {
  await browser.close();
}
