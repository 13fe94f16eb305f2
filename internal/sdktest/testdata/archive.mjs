// Verifies an archive of kapsel export: archive.mjs FILE LOG_KEY
import { openAsBlob } from "node:fs";
import { verifyArchive } from "@kapsel-dev/sdk/verify";

const [file, logKey] = process.argv.slice(2);
const { level, packages, succeeded, refusal } = await verifyArchive(await openAsBlob(file), { trustedKeys: [logKey] });
console.log(`${refusal?.detail ?? level} of ${packages === succeeded ? packages : `${packages} with ${succeeded}`} delivered`);
