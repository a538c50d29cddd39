// The Responses API of the official `openai` package: `node responses.js URL KEY`, and a JSON object of what it saw.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const [url, apiKey] = process.argv.slice(2);
const keeps = process.env.KEEPS === "1";
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
const input = "hello";
const seen = { responses: {} };

for (const model of ["tiny", "claude", "openai/text", "responses/text", "anthropic/text"]) {
  const options = { model, input, max_output_tokens: 20, store: false };
  const whole = await client.responses.create(options);
  let streamed = "";
  let last;
  for await (const event of await client.responses.create({ ...options, stream: true })) {
    if (event.type === "response.output_text.delta") streamed += event.delta;
    last = event;
  }
  const final = await client.responses.stream(options).finalResponse();
  assert.ok(["response.completed", "response.incomplete"].includes(last.type), last.type);
  seen.responses[model] = {
    whole: whole.output_text,
    streamed,
    accumulated: final.output_text,
    tokens: last.response.usage.output_tokens,
  };
}

const weather = {
  type: "function",
  name: "get_weather",
  parameters: {
    type: "object",
    properties: { city: { type: "string", enum: ["Paris", "Rome"] } },
    required: ["city"],
    additionalProperties: false,
  },
  strict: true,
};
const options = { model: "tools", input, tools: [weather], tool_choice: "required", max_output_tokens: 300, store: false };
const called = await client.responses.create(options);
seen.call = called.output.find((item) => item.type === "function_call");

const form = z.object({ city: z.enum(["Paris", "Rome"]), sunny: z.boolean() });
const text = { format: zodTextFormat(form, "weather") };
const parsed = await client.responses.parse({ model: "tiny", input, text, max_output_tokens: 400, store: false });
seen.parsed = parsed.output_parsed;

if (keeps) {
  const made = await client.responses.create({ model: "tiny", input, max_output_tokens: 20 });
  const again = await client.responses.retrieve(made.id);
  assert.equal(again.output_text, made.output_text);
  let streamed = "";
  for await (const event of await client.responses.retrieve(made.id, { stream: true })) {
    if (event.type === "response.output_text.delta") streamed += event.delta;
  }
  assert.equal(streamed, made.output_text);
  const on = { model: "tiny", input: "and?", previous_response_id: made.id, max_output_tokens: 20 };
  const second = await client.responses.create(on);
  seen.items = [];
  for await (const item of client.responses.inputItems.list(second.id, { limit: 2, order: "asc" })) seen.items.push(item.role);
  await client.responses.delete(made.id);
  await assert.rejects(client.responses.retrieve(made.id), OpenAI.NotFoundError);
}

await assert.rejects(client.responses.create({ model: "nobody", input }), OpenAI.NotFoundError);
await assert.rejects(client.responses.create({ model: "anthropic/error-429", input }), OpenAI.RateLimitError);
const kinds = [];
for await (const event of await client.responses.create({ model: "anthropic/cut", input, stream: true })) kinds.push(event.type);
assert.deepEqual(kinds.slice(-2), ["error", "response.failed"]);
assert.ok(!kinds.includes("response.completed"));

console.log(JSON.stringify(seen));
