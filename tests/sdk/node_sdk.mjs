// The official Node SDK against Tidemill: each entry is a promise. Prints `ok NAME` for each; exits with 1 if any is broken.
import assert from "node:assert/strict";
import { backend, clientOf, prompt, refused, runChecks, stats, tag, user, waitUntil } from "./checks.mjs";

const client = clientOf(process.env.TIDEMILL_KEY);
const floats = (vector) => Array.from(Float32Array.from(vector));
async function ownVectors(input, more = {}) {
  const answer = await backend.embeddings.create({ model: "sandbox-embedding", input, ...more });
  return answer.data.map((item) => floats(item.embedding));
}
async function vectors(input, more = {}) {
  const answer = await client.embeddings.create({ model: "embed", input, ...more });
  return answer.data.map((item) => floats(item.embedding));
}
const chat = (body, more) => client.chat.completions.create({ model: "chat", ...body }, more);
const respond = (body) => client.responses.create({ model: "chat", ...body });

const checks = {
  async a_chat_answers_its_own_prompt() {
    const text = prompt("node chat");
    const answer = await chat({ messages: user(text), max_tokens: 8 });
    assert(answer.choices[0].message.content.includes(tag(text)));
  },
  async a_completion_answers_its_own_prompt() {
    const text = prompt("node completion");
    const answer = await client.completions.create({ model: "chat", prompt: text, max_tokens: 8 });
    assert(answer.choices[0].text.includes(tag(text)));
  },
  async a_stream_runs_to_its_end() {
    const text = prompt("node stream");
    let words = "";
    let finished = false;
    for await (const event of await chat({ messages: user(text), max_tokens: 8, stream: true })) {
      words += event.choices[0]?.delta?.content ?? "";
      finished ||= Boolean(event.choices[0]?.finish_reason);
    }
    assert.equal(words.split(tag(text)).length, 2, words);
    assert(finished);
  },
  async a_response_answers_its_own_prompt() {
    const text = prompt("node response");
    const answer = await respond({ input: text, max_output_tokens: 8 });
    assert(answer.output_text.includes(tag(text)));
    assert.deepEqual([answer.status, answer.usage.output_tokens], ["completed", 8]);
  },
  async a_streamed_response_runs_to_its_end() {
    const text = prompt("node streamed response");
    const events = [];
    for await (const event of await respond({ input: user(text), max_output_tokens: 8, stream: true })) events.push(event);
    assert.deepEqual(events.map((event) => event.sequence_number), [...events.keys()]);
    assert.deepEqual([events[0].type, events.at(-1).type], ["response.created", "response.completed"]);
    const words = events.map((event) => (event.type === "response.output_text.delta" ? event.delta : "")).join("");
    assert.equal(words, events.at(-1).response.output[0].content[0].text);
    assert(words.includes(tag(text)));
  },
  async a_streamed_response_that_breaks_off_is_thrown() {
    const stream = await respond({ input: prompt("[[fault:partial_stream]] node"), stream: true });
    const drained = async () => {
      for await (const _ of stream);
    };
    await assert.rejects(drained, (error) => error.code === "stream_interrupted");
  },
  async a_stream_broken_off_stops_the_backend_within_a_second() {
    const stream = await chat({ messages: user(prompt("node break")), max_tokens: 2000, stream: true });
    await stream[Symbol.asyncIterator]().next();
    assert.equal((await stats()).running, 1);
    stream.controller.abort();
    await waitUntil("the backend's call stops", async () => (await stats()).running === 0, 1);
  },
  async embeddings_in_base64_are_the_backends_own() {
    const text = prompt("node base64");
    assert.deepEqual(await vectors(text), await ownVectors([text])); // the SDK asks for base64 by itself
  },
  async embeddings_in_float_are_the_backends_own() {
    const text = prompt("node float");
    assert.deepEqual(await vectors(text, { encoding_format: "float" }), await ownVectors([text]));
  },
  async a_list_comes_back_in_its_order() {
    const texts = Array.from({ length: 7 }, (_, index) => prompt(`node list ${index}`));
    assert.deepEqual(await vectors(texts), await ownVectors(texts));
  },
  async token_arrays_are_inputs_too() {
    const [one] = await vectors([1, 2, 3]);
    const two = await vectors([[1, 2, 3], [4, 5]]);
    assert.equal(two.length, 2);
    assert.deepEqual(one, two[0]);
  },
  async dimensions_are_passed_on() {
    const text = prompt("node dimensions");
    const [vector] = await vectors(text, { dimensions: 16 });
    assert.equal(vector.length, 16);
    assert.deepEqual([vector], await ownVectors([text], { dimensions: 16 }));
  },
  async models_are_listed() {
    const names = (await client.models.list()).data.map((model) => model.id);
    for (const name of ["chat", "narrow", "embed"]) assert(names.includes(name), names.join());
    assert.equal((await client.models.retrieve("chat")).id, "chat");
  },
  async an_unknown_key_is_a_401() {
    const stranger = client.withOptions({ apiKey: "sk-of-nobody" });
    await refused(401, "invalid_api_key", () => stranger.chat.completions.create({ model: "chat", messages: user("x") }));
  },
  async an_unknown_model_is_a_404() {
    await refused(404, "model_not_found", () => chat({ model: "nobody", messages: user("x") }));
  },
  async each_malformed_body_is_a_400_with_its_code() {
    const cases = [
      ["/chat/completions", {}, "missing_required_parameter"],
      ["/chat/completions", { model: "chat", messages: "x" }, "invalid_value"],
      ["/chat/completions", { model: "embed", messages: user("x") }, "operation_not_supported"],
      ["/responses", { model: "chat" }, "missing_required_parameter"],
      ["/responses", { model: "chat", input: "x", background: true, store: false }, "invalid_value"],
      ["/embeddings", { model: "embed", input: [] }, "missing_required_parameter"],
      ["/embeddings", { model: "embed", input: Array(2049).fill("x") }, "too_many_inputs"],
    ];
    for (const [path, body, code] of cases) await refused(400, code, () => client.post(path, { body }));
  },
  async a_body_above_the_limit_is_a_413() {
    await refused(413, "body_too_large", () => chat({ messages: user("x".repeat(1_200_000)) }));
  },
  async a_deadline_that_passes_in_the_queue_is_a_504_and_never_reaches_the_backend() {
    const [first, second, third] = ["[[delay:1500]] node first", "node too late", "node in time"].map(prompt);
    const narrow = (text, more) => chat({ model: "narrow", messages: user(text) }, more);
    const occupied = narrow(first);
    await waitUntil("the one slot is taken", async () => (await stats()).running === 1, 10);
    await refused(504, "deadline_exceeded", () => narrow(second, { headers: { "x-request-timeout-ms": "300" } }));
    await occupied;
    await narrow(third); // whatever had been queued before it would have reached the backend by now
    const seen = JSON.stringify((await stats()).seen);
    const hash = (text) => tag(text).slice("sandbox:".length);
    assert(seen.includes(hash(third)), "the backend tells what it has seen");
    assert(!seen.includes(hash(second)), "the late prompt reached the backend");
  },
};

await runChecks(checks);
