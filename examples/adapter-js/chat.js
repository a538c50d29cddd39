// An adapter in JavaScript: text chat with servers that speak OpenAI's API; the answer is given back in capitals. What it
// can't do it refuses.

const ROLES = { system: "system", developer: "system", user: "user", assistant: "assistant" };
const SAMPLING = { temperature: "temperature", topP: "top_p", frequencyPenalty: "frequency_penalty",
  presencePenalty: "presence_penalty", seed: "seed", maxTokens: "max_tokens", maxCompletionTokens: "max_completion_tokens" };
const LACKING = ["topK", "minP", "repetitionPenalty", "n", "logitBias", "logprobs", "topLogprobs"];
const KINDS = { 400: ["invalid-request", "never"], 401: ["unauthenticated", "other-target"],
  403: ["forbidden", "other-target"], 404: ["not-found", "never"], 413: ["too-large", "never"],
  422: ["invalid-request", "never"], 429: ["rate-limited", "same-target"], 503: ["overloaded", "same-target"],
  529: ["overloaded", "same-target"] };
const REASONS = { stop: "stop", length: "length", content_filter: "content-filter" };

const snake = (name) => name.replace(/[A-Z]/g, (c) => "_" + c.toLowerCase());
const fault = (kind, message, retry, more) => ({ kind: { tag: kind }, message, retry: { tag: retry }, ...more });
const refuse = (param) => { throw fault("unsupported", `can't pass on \`${param}\``, "never", { param }); };
const given = (value) => value !== null && value !== undefined;
// Numbers hold 53 bits.
const whole = (value, param) => (Number.isInteger(value) && !Number.isSafeInteger(value) ? refuse(param) : value);
const count = (value) => (Number.isSafeInteger(value) && value >= 0 ? value : undefined);

// QuickJS has neither TextEncoder nor TextDecoder.
function bytesOf(text) {
  const binary = /[^\x00-\x7f]/.test(text) ? unescape(encodeURIComponent(text)) : text;
  const bytes = new Uint8Array(binary.length);
  for (let at = 0; at < binary.length; at += 1) bytes[at] = binary.charCodeAt(at);
  return bytes;
}

function textOf(pieces) {
  let binary = "";
  for (const bytes of pieces) {
    for (let at = 0; at < bytes.length; at += 4096) binary += String.fromCharCode(...bytes.slice(at, at + 4096));
  }
  try { return decodeURIComponent(escape(binary)); } catch { return binary; }
}

// JSON.parse calls itself for each level, and ends the component where the stack ends.
const DEEPEST = 256;

function tooDeep(text) {
  // A look at every character would take an interpreter seconds: these calls are native.
  if (text.split("[").length + text.split("{").length - 2 <= DEEPEST) return false;
  let depth = 0;
  for (const c of text.replace(/"(?:\\.|[^"\\])*"?/gs, "").match(/[[\]{}]/g) ?? []) {
    depth += c === "[" || c === "{" ? 1 : -1;
    if (depth > DEEPEST) return true;
  }
  return false;
}

function http(method, path, body, framing) {
  const auth = { tag: "header", val: { name: "authorization", prefix: "Bearer ", slot: "api_key" } };
  const headers = body ? [["content-type", "application/json"]] : [];
  return { method, path, query: [], headers, body: bytesOf(body), auth, framing: { tag: framing },
    context: undefined, dropped: [] };
}

class Decoder {
  constructor(settings, context, head) {
    this.suffix = (JSON.parse(settings || "{}").suffix || "").toUpperCase();
    Object.assign(this, { head, body: [], started: false, text: false, reason: undefined, ended: false });
  }

  feed(frames) {
    const events = [];
    for (const { tag, val } of frames) {
      if (this.ended) break;
      if (tag === "bytes") this.body.push(val);
      else if (val.data === "[DONE]") this.end(events);
      else this.answer(val.data, "delta", events);
    }
    return events;
  }

  finish() {
    const events = [];
    if (this.body.length) this.answer(textOf(this.body), "message", events);
    if (!this.ended) this.end(events);
    return events;
  }

  answer(text, key, events) {
    let answer;
    if (tooDeep(text)) return this.fail(undefined, text, events);
    try { answer = JSON.parse(text); } catch { return this.fail(undefined, text, events); }
    const { status } = this.head;
    if (status >= 300 || answer?.error) return this.fail(answer?.error ?? {}, text, events);
    if (!Array.isArray(answer?.choices)) return this.fail(undefined, text, events);
    if (!this.started) {
      const { id, model, created } = answer;
      const string = (value) => (typeof value === "string" ? value : undefined);
      events.push({ tag: "started", val: { id: string(id), model: string(model), created: count(created) } });
      this.started = true;
    }
    for (const choice of answer.choices) {
      const piece = choice?.[key]?.content;
      if (typeof piece === "string" && piece) this.say(piece.toUpperCase(), events);
      if (typeof choice?.finish_reason === "string") this.reason = choice.finish_reason;
    }
    if (answer.usage) {
      const { prompt_tokens: input, completion_tokens: output } = answer.usage;
      events.push({ tag: "usage", val: { inputTokens: count(input), outputTokens: count(output), estimated: false } });
    }
  }

  say(text, events) {
    if (!this.text) events.push({ tag: "block-start", val: { index: 0, choice: 0, kind: { tag: "text" } } });
    this.text = true;
    events.push({ tag: "text", val: { index: 0, text } });
  }

  end(events) {
    if (!this.reason || !this.started) return this.fail(undefined, "", events);
    if (this.suffix) this.say(this.suffix, events);
    if (this.text) events.push({ tag: "block-stop", val: 0 });
    const tag = REASONS[this.reason];
    const reason = tag ? { tag } : { tag: "other", val: this.reason };
    events.push({ tag: "finish", val: { choice: 0, reason, raw: this.reason } }, { tag: "done" });
    this.ended = true;
  }

  fail(said, text, events) {
    this.ended = true;
    const { status } = this.head;
    const word = (value) => (value == null ? undefined : String(value));
    let [kind, retry] = KINDS[status] ?? ["upstream-failure", "same-target"];
    let message = word(said?.message) || `status ${status}: ${text.slice(0, 200)}`;
    if (status < 300) {
      if (!said) message = text ? `not an answer of OpenAI's API: ${text.slice(0, 200)}` : "the answer ended early";
      [kind, retry] = said ? (KINDS[said.code] ?? ["upstream-failure", "other-target"]) : ["malformed-response", "other-target"];
    }
    events.push({ tag: "failed", val: fault(kind, message, retry, { code: word(said?.code), status }) });
  }
}

export const chat = {
  Decoder,

  describe() {
    const settings = { suffix: { type: "string", description: "Shouted after every answer." } };
    return { id: "shout-js", version: "0.1.0", summary: "A server that speaks OpenAI's API, whose answers are shouted",
      operations: ["chat"], capabilities: [], dialects: ["openai-chat"],
      secrets: [{ name: "api_key", description: "Sent as a bearer token.", required: false }],
      settingsSchema: JSON.stringify({ type: "object", properties: settings, additionalProperties: false }) };
  },

  probe() {
    return http("GET", ["health"], "", "whole");
  },

  encode(settings, request) {
    if (request.input.tag !== "chat") refuse(request.input.tag === "completion" ? "prompt" : "input");
    const { sampling, stream } = request;
    const extra = JSON.parse(request.extra || "{}");
    if (request.dialect !== "openai-chat") Object.keys(extra).forEach(refuse);
    if (request.tools.length) refuse("tools");
    for (const name of ["toolChoice", "parallelToolCalls", "responseFormat", "reasoning"]) {
      if (given(request[name])) refuse(snake(name));
    }
    for (const name of LACKING) if (given(sampling[name])) refuse(snake(name));
    const messages = request.input.val.map(({ role, name, parts, extra }, at) => {
      const fits = parts.every(({ tag, val }) => tag === "text" && !val.extra);
      if (!ROLES[role.tag] || name || extra || !fits) refuse(`messages[${at}]`);
      return { role: ROLES[role.tag], content: parts.map(({ val }) => val.text).join("") };
    });
    const body = { ...extra, model: request.model, messages };
    for (const [name, as] of Object.entries(SAMPLING)) if (given(sampling[name])) body[as] = whole(sampling[name], as);
    if (sampling.stop.length) body.stop = sampling.stop;
    if (given(request.endUser)) body.user = request.endUser;
    if (stream) Object.assign(body, { stream, stream_options: { ...extra.stream_options, include_usage: true } });
    return http("POST", ["v1", "chat", "completions"], JSON.stringify(body), stream ? "sse" : "whole");
  },
};
