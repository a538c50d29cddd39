// The JavaScript adapter without a component: `node --test`.
import assert from "node:assert/strict";
import { test } from "node:test";
import { chat } from "./chat.js";

const request = (changes) => ({ model: "m", dialect: "openai-chat", tools: [], sampling: { stop: [] }, stream: false,
  input: { tag: "chat", val: [{ role: { tag: "user" }, parts: [{ tag: "text", val: { text: "Hello" } }] }] }, ...changes });

const STREAM = [
  '{"id":"c","model":"m","created":1,"choices":[{"index":0,"delta":{"content":"héllo, "}}]}',
  '{"choices":[{"index":0,"delta":{"content":"world"}}]}',
  '{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}',
  "[DONE]",
];

/** The events of an answer that comes in reads of so many frames. */
function events(datas, { size = 1, settings = "{}", status = 200 } = {}) {
  const decoder = new chat.Decoder(settings, undefined, { status, headers: [], framing: { tag: "sse" }, stream: true });
  const frames = datas.map((data) => ({ tag: "sse", val: { data } }));
  const out = [];
  const ended = () => ["done", "failed"].includes(out.at(-1)?.tag);
  for (let at = 0; at < frames.length && !ended(); at += size) out.push(...decoder.feed(frames.slice(at, at + size)));
  return ended() ? out : [...out, ...decoder.finish()];
}

const text = (all) => all.filter(({ tag }) => tag === "text").map(({ val }) => val.text).join("");

test("an answer is shouted, however its pieces come together", () => {
  const one = events(STREAM);
  assert.equal(text(one), "HÉLLO, WORLD");
  assert.deepEqual(events(STREAM, { size: 2 }), one);
  assert.deepEqual(events(STREAM, { size: 9 }), one);
  assert.equal(text(events(STREAM, { settings: '{"suffix":" hey!"}' })), "HÉLLO, WORLD HEY!");
});

test("an answer that ends early fails", () => {
  const last = events(STREAM.slice(0, 2)).at(-1);
  assert.equal(last.val.kind.tag, "malformed-response");
});

test("a request is encoded, and no number is rounded", () => {
  const made = chat.encode("{}", request({ sampling: { seed: 7, maxTokens: 9, stop: ["x"] }, extra: '{"top_a":1}' }));
  assert.deepEqual(JSON.parse(new TextDecoder().decode(made.body)),
    { top_a: 1, model: "m", messages: [{ role: "user", content: "Hello" }], seed: 7, max_tokens: 9, stop: ["x"] });
});

test("what it cannot do is refused by name", () => {
  for (const [changes, param] of [[{ tools: [{}] }, "tools"], [{ dialect: "x", extra: '{"a":0}' }, "a"],
    [{ sampling: { topK: 1, stop: [] } }, "top_k"], [{ sampling: { seed: 2 ** 60, stop: [] } }, "seed"]]) {
    assert.throws(() => chat.encode("{}", request(changes)),
      (error) => error.kind.tag === "unsupported" && error.param === param);
  }
});

test("JSON that is nested without end is no answer", () => {
  for (const text of ["[".repeat(20000), '{"a":'.repeat(10000)]) {
    assert.equal(events([text]).at(-1).val.kind.tag, "malformed-response");
  }
  const quoted = JSON.stringify({ choices: [{ delta: { content: '\\"' + "[".repeat(1000) } }] });
  assert.equal(text(events([quoted])), '\\"' + "[".repeat(1000));
});
