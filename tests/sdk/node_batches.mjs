// Files, batches and background responses with the official Node SDK: each entry is a promise. Prints `ok NAME` for each; exits with 1 if
// any is broken.
import assert from "node:assert/strict";
import { clientOf, prompt, refused, runChecks, stats, tag, toFile, user, waitUntil } from "./checks.mjs";

const client = clientOf(process.env.TIDEMILL_KEY);
const other = clientOf(process.env.TIDEMILL_KEY_OTHER);
const pause = () => new Promise((resolve) => setTimeout(resolve, 20));

const upload = async (name, content, purpose) => client.files.create({ file: await toFile(Buffer.from(content), name), purpose });
async function rows(file) {
  const text = file ? await (await client.files.content(file)).text() : "";
  return text.split("\n").filter(Boolean).map((row) => JSON.parse(row));
}
async function ended(retrieve, running) {
  let found;
  await waitUntil("it ends", async () => {
    found = await retrieve();
    return !running.includes(found.status);
  }, 30);
  return found;
}
const answered = (id) => ended(() => client.responses.retrieve(id), ["queued", "in_progress"]);
const respond = (input, more) => client.responses.create({ model: "chat", input, background: true, max_output_tokens: 8, ...more });

const checks = {
  async a_file_comes_back_as_it_was_sent_until_it_is_deleted() {
    const content = Buffer.from(Array.from({ length: 100_000 }, (_, n) => n % 251));
    const file = await upload("some bytes.bin", content, "user_data");
    assert.deepEqual([file.bytes, file.filename], [content.length, "some bytes.bin"]);
    assert(content.equals(Buffer.from(await (await client.files.content(file.id)).arrayBuffer())));
    const names = [];
    for await (const one of client.files.list()) names.push(one.id);
    assert(names.includes(file.id));
    await refused(404, "not_found", () => other.files.retrieve(file.id));
    assert((await client.files.delete(file.id)).deleted);
    await refused(404, "not_found", () => client.files.retrieve(file.id));
  },
  async a_batch_answers_every_line_once() {
    const line = (n) => {
      const body = { model: "chat", messages: user(prompt(`node row ${n}`)), max_tokens: 4 };
      return JSON.stringify({ custom_id: `row-${n}`, method: "POST", url: "/v1/chat/completions", body });
    };
    const lines = Array.from({ length: 40 }, (_, n) => line(n));
    lines[7] = "no JSON";
    const file = await upload("rows.jsonl", lines.join("\n"), "batch");
    const asked = { input_file_id: file.id, endpoint: "/v1/chat/completions", completion_window: "24h", metadata: { night: "node" } };
    const { id } = await client.batches.create(asked);
    const batch = await ended(() => client.batches.retrieve(id), ["validating", "in_progress", "finalizing"]);
    assert.deepEqual([batch.status, batch.request_counts, batch.metadata], ["completed", { total: 40, completed: 39, failed: 1 }, { night: "node" }]);
    const output = await rows(batch.output_file_id);
    assert.deepEqual(output.map((row) => row.custom_id), Array.from({ length: 40 }, (_, n) => `row-${n}`).filter((_, n) => n !== 7));
    assert(output[20].response.body.choices[0].message.content.includes(tag(prompt("node row 21"))));
    const errors = await rows(batch.error_file_id);
    assert.deepEqual(errors.map((row) => [row.error.line, row.error.code]), [[8, "invalid_json"]]);
    const names = [];
    for await (const one of client.batches.list()) names.push(one.id);
    assert(names.includes(id));
    assert.equal((await client.batches.cancel(id)).status, "completed");
  },
  async a_background_response_is_polled_until_it_is_answered() {
    const text = prompt("node background");
    const response = await respond(text, { metadata: { order: "7" } });
    assert(["queued", "in_progress"].includes(response.status) && response.background, response.status);
    const done = await answered(response.id);
    assert.deepEqual([done.id, done.status, done.metadata, done.usage.output_tokens], [response.id, "completed", { order: "7" }, 8]);
    assert(done.output_text.includes(tag(text)));
    await refused(404, "not_found", () => other.responses.retrieve(response.id));
    await client.responses.delete(response.id);
    await refused(404, "not_found", () => client.responses.retrieve(response.id));
    await refused(400, "invalid_value", () => respond(text, { store: false }));
  },
  async a_background_response_can_be_cancelled() {
    const { id } = await respond(prompt("node long"), { max_output_tokens: 4000 });
    await waitUntil("it runs", async () => (await client.responses.retrieve(id)).status === "in_progress", 10);
    assert.equal((await client.responses.cancel(id)).status, "cancelled");
    await waitUntil("the backend's call stops", async () => (await stats()).running === 0, 2);
  },
  async a_streamed_background_response_is_read_on_where_it_was_left() {
    const text = prompt("node streamed background");
    const seen = [];
    const stream = await respond(text, { stream: true, max_output_tokens: 40 });
    for await (const event of stream) {
      seen.push(event);
      if (event.type === "response.output_text.delta") break; // which closes the connection
    }
    await pause();
    const { id } = seen[0].response;
    for await (const event of await client.responses.retrieve(id, { stream: true, starting_after: seen.at(-1).sequence_number })) seen.push(event);
    const words = seen.map((event) => (event.type === "response.output_text.delta" ? event.delta : "")).join("");
    assert.deepEqual([seen.at(-1).type, seen.at(-1).response.id], ["response.completed", id]);
    assert.equal(words, seen.at(-1).response.output[0].content[0].text);
    assert.equal(words.split(tag(text)).length, 2, words);
  },
};

await runChecks(checks);
