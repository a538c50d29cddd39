// Vercel's `ai` with its provider of OpenAI: `node ai.js URL KEY`, and a JSON object of what it saw.
import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { embedMany, generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const [url, apiKey] = process.argv.slice(2);
const openai = createOpenAI({ baseURL: `${url}/v1`, apiKey });
const common = { maxRetries: 0, maxOutputTokens: 20, temperature: 0 };
const seen = { chats: {}, called: {}, embeddings: {} };

for (const model of ["tiny", "claude", "openai/text", "anthropic/text", "ollama/text"]) {
  const whole = await generateText({ ...common, model: openai.chat(model), system: "be kind", prompt: "hello" });
  const stream = streamText({ ...common, model: openai.chat(model), prompt: "hello" });
  let text = "";
  for await (const part of stream.textStream) text += part;
  seen.chats[model] = { whole: whole.text, streamed: text, tokens: (await stream.usage).outputTokens };
  assert.equal((await stream.finishReason) === "stop" || (await stream.finishReason) === "length", true);
}

const city = z.object({ city: z.enum(["Paris", "Rome"]) });
const get_weather = tool({ description: "The weather of a city", inputSchema: city, execute: async () => "21 degrees" });
for (const [model, prompt] of [["tools", "what is the weather like"], ["claude", process.env.CALL_PROMPT]]) {
  const options = { ...common, maxOutputTokens: 300, model: openai.chat(model), prompt, tools: { get_weather } };
  // A second step takes the result; a model that must call has none.
  const result = await generateText({ ...options, toolChoice: "required", stopWhen: stepCountIs(1) });
  seen.called[model] = result.toolResults.map((item) => [item.toolName, item.input, item.output]);
}

const schema = z.object({ city: z.enum(["Paris", "Rome"]), sunny: z.boolean() });
const form = { ...common, maxOutputTokens: 400, schema, prompt: "hello" };
seen.object = (await generateObject({ ...form, model: openai.chat("tiny") })).object;

for (const model of ["embedder", "openai/any"]) {
  const { embeddings } = await embedMany({ model: openai.embedding(model), values: ["hello", "world"], maxRetries: 0 });
  seen.embeddings[model] = embeddings.map((vector) => vector.length);
}

await assert.rejects(generateText({ ...common, model: openai.chat("nobody"), prompt: "hello" }), { statusCode: 404 });
await assert.rejects(generateText({ ...common, model: openai.chat("anthropic/error-429"), prompt: "hello" }), {
  statusCode: 429,
});

const failures = [];
const broken = streamText({
  ...common,
  model: openai.chat("anthropic/cut"),
  prompt: "hello",
  onError: ({ error }) => failures.push(String(error?.message ?? error)),
});
for await (const part of broken.fullStream) if (part.type === "error") seen.broken = true;
assert.ok(failures.length > 0, "a stream that breaks off has a clean end");

console.log(JSON.stringify(seen));
