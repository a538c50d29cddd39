// The official `openai` package: `node openai.js URL KEY`, and a JSON object of what it saw.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const [url, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
const messages = [{ role: "user", content: "hello" }];
const weather = {
  type: "function",
  function: {
    name: "get_weather",
    parameters: {
      type: "object",
      properties: { city: { type: "string", enum: ["Paris", "Rome"] } },
      required: ["city"],
    },
  },
};
const seen = { chats: {} };

for (const model of ["tiny", "claude", "openai/text", "anthropic/text", "ollama/text"]) {
  const whole = await client.chat.completions.create({ model, messages, temperature: 0, max_tokens: 20 });
  let text = "";
  const options = { model, messages, temperature: 0, max_tokens: 20, stream: true, stream_options: { include_usage: true } };
  let usage;
  for await (const chunk of await client.chat.completions.create(options)) {
    text += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
  }
  const stream = client.chat.completions.stream({ model, messages, temperature: 0, max_tokens: 20 });
  const final = await stream.finalChatCompletion();
  seen.chats[model] = {
    whole: whole.choices[0].message.content,
    streamed: text,
    accumulated: final.choices[0].message.content,
    tokens: usage.completion_tokens,
  };
}

const called = await client.chat.completions
  .stream({ model: "tools", messages, tools: [weather], tool_choice: "required", max_tokens: 300 })
  .finalChatCompletion();
seen.call = called.choices[0].message.tool_calls[0].function;

const form = z.object({ city: z.enum(["Paris", "Rome"]), sunny: z.boolean() });
const response_format = zodResponseFormat(form, "weather");
const parsed = await client.chat.completions.parse({ model: "tiny", messages, response_format, max_tokens: 400 });
seen.parsed = parsed.choices[0].message.parsed;

seen.embeddings = {};
for (const model of ["embedder", "openai/any"]) {
  const { data } = await client.embeddings.create({ model, input: ["hello", "world"] });
  seen.embeddings[model] = data.map((item) => item.embedding.length);
}

seen.models = [];
for await (const model of client.models.list()) seen.models.push(model.id);

await assert.rejects(client.chat.completions.create({ model: "nobody", messages }), OpenAI.NotFoundError);
await assert.rejects(client.chat.completions.create({ model: "anthropic/error-429", messages }), OpenAI.RateLimitError);
await assert.rejects(async () => {
  const stream = await client.chat.completions.create({ model: "anthropic/cut", messages, stream: true });
  for await (const _ of stream);
}, OpenAI.APIError);

console.log(JSON.stringify(seen));
