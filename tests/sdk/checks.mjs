// What the Node scripts share: named checks, the sandbox's tag, and its statistics.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

export const { OpenAI, toFile } = createRequire(`${process.env.TIDEMILL_NODE}/`)("openai");
const sandbox = process.env.SANDBOX_URL;
const options = { maxRetries: 0, timeout: 30_000 };

/** A client of the server under test, in the name of a key. */
export const clientOf = (apiKey) => new OpenAI({ baseURL: `${process.env.TIDEMILL_URL}/v1`, apiKey, ...options });
export const backend = new OpenAI({ baseURL: `${sandbox}/v1`, apiKey: "unused", ...options });

export const prompt = (text) => `xylocanary ${text}`; // Found in a log, it fails the test.
export const user = (text) => [{ role: "user", content: text }];
export const stats = async () => (await fetch(`${sandbox}/stats`)).json();

/** The sandbox's tag for a prompt: FNV-1a-64 over the key, a zero byte and the prompt. */
export function tag(text, key = "tidemill") {
  let hash = 0xcbf29ce484222325n;
  for (const byte of Buffer.from(`${key}\0${text}`)) hash = ((hash ^ BigInt(byte)) * 0x100000001b3n) & 0xffffffffffffffffn;
  return `sandbox:${hash.toString(16).padStart(16, "0")}`;
}

export async function waitUntil(what, holds, seconds) {
  const end = performance.now() + seconds * 1000;
  while (!(await holds())) {
    assert(performance.now() < end, `not within ${seconds} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** The call must fail with this status, this code, and a sentence. */
export async function refused(status, code, call) {
  const error = await call().then(() => assert.fail(`accepted, though it should be refused with ${code}`), (error) => error);
  assert.deepEqual([error.status, error.code], [status, code], error.message);
  assert.match(error.error.message, / /);
}

/** Runs all checks, prints a line for each, and exits with 1 if any failed. */
export async function runChecks(checks) {
  let failed = 0;
  for (const [name, check] of Object.entries(checks)) {
    try {
      await check();
      console.log("ok", name);
    } catch (error) {
      failed += 1;
      console.log("FAILED", name);
      console.error(error);
    }
  }
  process.exit(failed ? 1 : 0);
}
