// Builds sdk/ts/verifier.html, the verifier as one file: node verifier/build.mjs [--check]. With --check it only compares.
import { readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const here = new URL(".", import.meta.url).pathname;
const target = `${here}../verifier.html`;
const { outputFiles } = await build({
  entryPoints: [`${here}page.ts`], bundle: true, minify: true, write: false, format: "esm", target: "es2022", charset: "utf8", legalComments: "none",
});
const script = outputFiles[0].text.trim().replaceAll("</script", "<\\/script");
const page = readFileSync(`${here}page.html`, "utf8").replace("/*SCRIPT*/", () => script);
if (!process.argv.includes("--check")) {
  writeFileSync(target, page);
} else if (readFileSync(target, "utf8") !== page) {
  console.error("sdk/ts/verifier.html is not what its sources give: npm --prefix sdk/ts run verifier");
  process.exit(1);
}
