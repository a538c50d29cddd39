"""What the models say that the fake AWS serves, in the shape of each API: `echo: ` and the last user's message.

A test may have them say something else (`say`, of aws_server.py). Results of tools are echoed as `results: ID=…`, with a `!`
where they failed. A request to think puts `I think about: …` in front, with a signature that a later turn must repeat.
Tokens are words. What a cache mark covers is written the first time and read from then on.
"""

import base64
import dataclasses
import hashlib
import hmac
import json
import re

from aws_model import dump, invalid, load, malformed, only


@dataclasses.dataclass
class Ask:
    """A request, whatever its shape was."""

    prompt: str
    words: int
    tools: list = dataclasses.field(default_factory=list)
    # None: the model may choose; "": it must call some tool; else this one.
    forced: str | None = None
    thinks: bool = False
    most: int | None = None
    stops: list = dataclasses.field(default_factory=list)
    json: bool = False
    # What the cache marks cover, if there are any, and whether the cache has it.
    cached: int = 0
    known: bool = False


@dataclasses.dataclass
class Reply:
    thought: str | None
    text: str
    calls: list
    # stop, length, tools or sequence; of Converse also AWS's own name of another.
    finish: str
    stopped_by: str | None
    usage: dict


def count(text):
    return len(text.split())


def pieces(text, most=None):
    """A text in words, with the space in front of each."""
    found = re.findall(r"\s*\S+", text)
    rest = text[sum(map(len, found)) :]
    if rest:
        found = [*found[:-1], found[-1] + rest] if found else [rest]
    return found[:most]


def fragments(text, size=5):
    return [text[at : at + size] for at in range(0, len(text), size)]


def signature(thought):
    return base64.b64encode(hmac.new(b"fake-aws", thought.encode(), hashlib.sha256).digest()).decode()


def check_thought(thought, given, at):
    if given != signature(thought):
        raise invalid(f"{at}: Invalid `signature` in `thinking` block")


def reply(ask, say=None):
    """What the model says. `say`: a `text` in place of the echo, `calls` of tools as (name, arguments), where the name `#0` is
    that of the request's first tool."""
    say = say or {}
    calls = []
    for number, (name, given) in enumerate(say.get("calls", ())):
        calls.append((call_id(ask, number), ask.tools[int(name[1:])] if name.startswith("#") else name, given))
    if not calls and ask.forced is not None:
        calls = [(call_id(ask, 0), ask.forced or ask.tools[0], {})]
    text = say.get("text", "" if calls else f"echo: {ask.prompt}")
    if ask.json and "text" not in say:
        text = json.dumps({"echo": ask.prompt})
    thought = f"I think about: {ask.prompt}" if ask.thinks else None
    finish, stopped_by = "tools" if calls else "stop", None
    for stop in ask.stops:
        if stop in text:
            text, finish, stopped_by = text.partition(stop)[0], "sequence", stop
    if ask.most is not None and len(pieces(text)) > ask.most:
        text, finish, stopped_by, calls = "".join(pieces(text, ask.most)), "length", None, []
    out = count(text) + count(thought or "") + sum(1 + count(json.dumps(given)) for _, _, given in calls)
    usage = {"in": ask.words - ask.cached, "out": out, "read": 0, "write": 0}
    if ask.cached:
        usage["read" if ask.known else "write"] = ask.cached
    return Reply(thought, text, calls, say.get("finish", finish), stopped_by, usage)


def call_id(ask, number):
    return f"tooluse_{hashlib.sha256(f'{number}{ask.prompt}'.encode()).hexdigest()[:22]}"


# --- Converse ----------------------------------------------------------------------------------------------------


def block_words(block):
    return count(json.dumps({k: v for k, v in block.items() if k not in ("image", "document", "video", "audio")}, default=str))


def converse_ask(params, model, cache):
    """What Converse's members ask. Refuses what Bedrock refuses although the model of the API allows it."""
    messages = params.get("messages") or []
    more = params.get("additionalModelRequestFields") or {}
    config = params.get("toolConfig") or {}
    check_turns(messages, config)
    thinking = more.get("thinking") or {}
    inference = params.get("inferenceConfig") or {}
    if thinking:
        check_thinking(thinking, inference.get("maxTokens"), inference.get("temperature"), model)
    tools = [tool["toolSpec"]["name"] for tool in config.get("tools", ()) if "toolSpec" in tool]
    if len(set(tools)) != len(tools):
        raise invalid("The tools in the toolConfig have names that stand twice. Remove them and try again.")
    choice = config.get("toolChoice") or {}
    forced = choice["tool"]["name"] if "tool" in choice else "" if "any" in choice else None
    if forced and forced not in tools:
        raise invalid(f"The tool {forced} of the toolChoice is not defined in the toolConfig.")
    if forced is not None and thinking:
        raise invalid("Thinking may not be enabled when tool_choice forces tool use.")
    words, cached, prefix = 0, 0, hashlib.sha256(model.encode())
    blocks = [
        *config.get("tools", ()),
        *(params.get("system") or ()),
        *(block for turn in messages for block in turn["content"]),
    ]
    for block in blocks:
        if "cachePoint" in block:
            cached = words
            key = prefix.hexdigest()
        else:
            words += block_words(block)
            prefix.update(json.dumps(block, default=str).encode())
    known = cached > 0 and key in cache
    if cached:
        cache.add(key)
    return Ask(
        last_words(messages),
        words,
        tools=tools,
        forced=forced,
        thinks=bool(thinking) and thinking.get("type") != "disabled",
        most=inference.get("maxTokens"),
        stops=inference.get("stopSequences") or [],
        json="textFormat" in (params.get("outputConfig") or {}),
        cached=cached,
        known=known,
    )


def last_words(messages):
    texts, results = [], []
    for block in messages[-1]["content"] if messages else ():
        if "text" in block:
            texts.append(block["text"])
        elif "toolResult" in block:
            result = block["toolResult"]
            text = "".join(part.get("text") or json.dumps(part.get("json"), default=str) for part in result["content"])
            failed = "!" if result.get("status") == "error" else ""
            results.append(f"{result['toolUseId']}={failed}{text}")
        elif "image" in block:
            texts.append(f"[{block['image']['format']} of {len(block['image']['source'].get('bytes', b''))} bytes]")
        elif "document" in block:
            texts.append(f"[document {block['document']['name']}]")
    if results:
        texts.insert(0, "results: " + ", ".join(results))
    return "\n".join(texts)


def check_turns(messages, config):
    wanted = []
    for number, turn in enumerate(messages):
        at = f"messages.{number}"
        if turn["role"] != ("assistant" if number % 2 else "user"):
            if number == 0:
                text = "A conversation must start with a user message."
                raise invalid(f"{text} Try again with a conversation that starts with a user message.")
            raise invalid(
                "A conversation must alternate between user and assistant roles. Make sure the conversation alternates"
                " between user and assistant roles and try again."
            )
        if not turn["content"]:
            field = f"The content field in the Message object at {at} is empty."
            raise invalid(f"{field} Add a ContentBlock object to the content field and try again.")
        wanted = check_blocks(turn, at, wanted, config)
    if wanted:
        raise invalid(
            f"Expected toolResult blocks at messages.{len(messages)}.content for the following Ids: {', '.join(wanted)}"
        )
    if sum("image" in block for turn in messages for block in turn["content"]) > 20:
        raise invalid("too many images and documents: the limit is 20")


def check_blocks(turn, at, wanted, config):
    """One turn's blocks, after the calls `wanted` of the turn before. Gives the calls that this one makes."""
    calls, results = [], []
    for place, block in enumerate(turn["content"]):
        here = f"{at}.content.{place}"
        if "text" in block and not block["text"].strip():
            field = f"The text field in the ContentBlock object at {here} is blank."
            raise invalid(f"{field} Add text to the text field, and try again.")
        if "toolUse" in block or "toolResult" in block:
            if not config:
                raise invalid("The toolConfig field must be defined when using toolUse and toolResult content blocks.")
            user = "toolResult" in block
            if user != (turn["role"] == "user"):
                raise invalid(f"{here}: {next(iter(block))} blocks are not those of the {turn['role']}")
            (results if user else calls).append(next(iter(block.values()))["toolUseId"])
        if "toolResult" in block and block["toolResult"].get("status") == "error" and not block["toolResult"]["content"]:
            raise invalid(f"The content field at {here}.toolResult cannot be empty when status value is error.")
        if "document" in block and not any("text" in other for other in turn["content"]):
            raise invalid(f"{at}: a text block is needed beside a document")
        if text := block.get("reasoningContent", {}).get("reasoningText"):
            check_thought(text["text"], text.get("signature"), here)
    if len(results) > len(wanted):
        raise invalid(f"The number of toolResult blocks at {at}.content exceeds the number of toolUse blocks of previous turn.")
    if lacking := [name for name in wanted if name not in results]:
        raise invalid(f"Expected toolResult blocks at {at}.content for the following Ids: {', '.join(lacking)}")
    return calls


def check_thinking(thinking, most, temperature, model):
    if "anthropic" not in model and "claude" not in model:
        raise malformed("#: extraneous key [thinking] is not permitted")
    if thinking.get("type") == "enabled":
        budget = thinking.get("budget_tokens")
        if not isinstance(budget, int) or budget < 1024:
            raise invalid("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
        if most is not None and most <= budget:
            raise invalid("`max_tokens` must be greater than `thinking.budget_tokens`.")
    if temperature not in (None, 1, 1.0):
        raise invalid("`temperature` may only be set to 1 when thinking is enabled.")


REASONS = {"stop": "end_turn", "length": "max_tokens", "tools": "tool_use", "sequence": "stop_sequence"}


def converse_usage(said):
    usage = said.usage
    found = {"inputTokens": usage["in"], "outputTokens": usage["out"], "totalTokens": sum(usage.values())}
    if usage["read"] or usage["write"]:
        found |= {"cacheReadInputTokens": usage["read"], "cacheWriteInputTokens": usage["write"]}
    return found


def extra_fields(said, params):
    paths = params.get("additionalModelResponseFieldPaths") or ()
    return {"stop_sequence": said.stopped_by} if "/stop_sequence" in paths else None


def echoed(params):
    """What the answer repeats of the request."""
    return {name: params.get(name) for name in ("performanceConfig", "serviceTier")}


def converse_answer(said, params):
    content = []
    if said.thought is not None:
        thought = {"text": said.thought, "signature": signature(said.thought)}
        content.append({"reasoningContent": {"reasoningText": thought}})
    if said.text:
        content.append({"text": said.text})
    content += [{"toolUse": {"toolUseId": id, "name": name, "input": given}} for id, name, given in said.calls]
    return {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": REASONS.get(said.finish, said.finish),
        "usage": converse_usage(said),
        "metrics": {"latencyMs": 41},
        "additionalModelResponseFields": extra_fields(said, params),
    } | echoed(params)


def converse_events(said, params):
    """The same as events, (type, members) each, in the usual order: usage last."""
    events, block = [("messageStart", {"role": "assistant"})], -1

    def delta(**value):
        events.append(("contentBlockDelta", {"contentBlockIndex": block, "delta": value}))

    def end():
        events.append(("contentBlockStop", {"contentBlockIndex": block}))

    if said.thought is not None:
        block += 1
        for piece in pieces(said.thought):
            delta(reasoningContent={"text": piece})
        delta(reasoningContent={"signature": signature(said.thought)})
        end()
    if said.text:
        block += 1
        for piece in pieces(said.text):
            delta(text=piece)
        end()
    for id, name, given in said.calls:
        block += 1
        start = {"toolUse": {"toolUseId": id, "name": name}}
        events.append(("contentBlockStart", {"contentBlockIndex": block, "start": start}))
        # No arguments: not one piece, or an object's two braces; both are known.
        for piece in fragments(json.dumps(given, ensure_ascii=False)) if given else ():
            delta(toolUse={"input": piece})
        end()
    fields = extra_fields(said, params)
    events.append(
        ("messageStop", {"stopReason": REASONS.get(said.finish, said.finish), "additionalModelResponseFields": fields})
    )
    events.append(("metadata", {"usage": converse_usage(said), "metrics": {"latencyMs": 41}} | echoed(params)))
    return events


# --- InvokeModel: Anthropic --------------------------------------------------------------------------------------

# Beside what a model takes itself: how a guardrail looks at a stream.
GUARDRAIL = "amazon-bedrock-guardrailConfig"
ANTHROPIC_MEMBERS = {
    "anthropic_version", "anthropic_beta", "max_tokens", "messages", "system", "temperature", "top_p", "top_k", "tools",
    "tool_choice", "stop_sequences", "thinking", "output_config", "metadata",
}  # fmt: skip


def text_of(content):
    if isinstance(content, str):
        return content
    return "\n".join(block.get("text", "") for block in content if block.get("type") == "text")


def anthropic_ask(body, model):
    value = load(body)
    only(value, {*ANTHROPIC_MEMBERS, GUARDRAIL})
    for name in ("anthropic_version", "max_tokens", "messages"):
        if name not in value:
            raise malformed(f"#: required key [{name}] not found")
    if value["anthropic_version"] != "bedrock-2023-05-31":
        raise malformed(f"#/anthropic_version: {value['anthropic_version']} is not a valid enum value")
    messages = value["messages"]
    if not messages or messages[0].get("role") != "user":
        raise invalid('messages: first message must use the "user" role')
    results = []
    for number, turn in enumerate(messages):
        for block in turn["content"] if isinstance(turn["content"], list) else ():
            kind = block.get("type")
            if kind not in ("text", "image", "document", "tool_use", "tool_result", "thinking", "redacted_thinking"):
                raise invalid(f"messages.{number}.content: Input tag '{kind}' does not match any of the expected tags")
            if kind == "text" and not block["text"]:
                raise invalid("messages: text content blocks must be non-empty")
            if kind == "thinking":
                check_thought(block["thinking"], block.get("signature"), f"messages.{number}.content")
            if kind == "tool_result" and turn is messages[-1]:
                failed = "!" if block.get("is_error") else ""
                results.append(f"{block['tool_use_id']}={failed}{text_of(block.get('content', ''))}")
    prompt = text_of(messages[-1]["content"])
    if results:
        prompt = "\n".join(filter(None, ["results: " + ", ".join(results), prompt]))
    thinking = value.get("thinking") or {}
    if thinking:
        check_thinking(thinking, value["max_tokens"], value.get("temperature"), model)
    choice = value.get("tool_choice") or {}
    tools = [tool["name"] for tool in value.get("tools", ())]
    return Ask(
        prompt,
        count(json.dumps([value.get("system"), messages])),
        tools=[] if choice.get("type") == "none" else tools,
        forced={"tool": choice.get("name"), "any": ""}.get(choice.get("type")),
        thinks=bool(thinking) and thinking.get("type") != "disabled",
        most=value["max_tokens"],
        stops=value.get("stop_sequences") or [],
        json="format" in (value.get("output_config") or {}),
    )


def anthropic_usage(said):
    usage = said.usage
    cache = {"cache_creation_input_tokens": usage["write"], "cache_read_input_tokens": usage["read"]}
    return {"input_tokens": usage["in"]} | cache | {"output_tokens": usage["out"]}


def anthropic_answer(said, model):
    content = []
    if said.thought is not None:
        content.append({"type": "thinking", "thinking": said.thought, "signature": signature(said.thought)})
    if said.text:
        content.append({"type": "text", "text": said.text})
    content += [{"type": "tool_use", "id": id, "name": name, "input": given} for id, name, given in said.calls]
    return {
        "id": "msg_bdrk_01fake", "type": "message", "role": "assistant", "model": model, "content": content,
        "stop_reason": REASONS[said.finish], "stop_sequence": said.stopped_by, "usage": anthropic_usage(said),
    }  # fmt: skip


def anthropic_events(said, model):
    whole = anthropic_answer(said, model)
    opening = whole | {"content": [], "stop_reason": None, "stop_sequence": None}
    opening["usage"] = anthropic_usage(said) | {"output_tokens": 1}
    yield {"type": "message_start", "message": opening}
    for index, block in enumerate(whole["content"]):
        if block["type"] == "thinking":
            empty = {"type": "thinking", "thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(block["thinking"])]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        elif block["type"] == "text":
            empty, deltas = {"type": "text", "text": ""}, [{"type": "text_delta", "text": p} for p in pieces(block["text"])]
        else:
            text = json.dumps(block["input"], ensure_ascii=False) if block["input"] else ""
            empty = block | {"input": {}}
            deltas = [{"type": "input_json_delta", "partial_json": p} for p in ["", *fragments(text)]]
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        if index == 0:
            yield {"type": "ping"}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    finish = {"stop_reason": whole["stop_reason"], "stop_sequence": whole["stop_sequence"]}
    yield {"type": "message_delta", "delta": finish, "usage": {"output_tokens": said.usage["out"]}}
    yield {"type": "message_stop", "amazon-bedrock-invocationMetrics": metrics(said)}


def metrics(said):
    tokens = {"inputTokenCount": said.usage["in"], "outputTokenCount": said.usage["out"]}
    return tokens | {"invocationLatency": 41, "firstByteLatency": 7}


# --- InvokeModel: Llama ------------------------------------------------------------------------------------------

LLAMA_TURN = re.compile(r"<\|start_header_id\|>user<\|end_header_id\|>\n\n(.*?)<\|eot_id\|>", re.DOTALL)
LLAMA_END = "<|start_header_id|>assistant<|end_header_id|>\n\n"


def llama_ask(body):
    value = load(body)
    only(value, {"prompt", "temperature", "top_p", "max_gen_len", "images", GUARDRAIL})
    prompt = value.get("prompt")
    if not isinstance(prompt, str):
        raise malformed("#: required key [prompt] not found")
    turns = LLAMA_TURN.findall(prompt)
    # A prompt that is not in the template is echoed as it came: a template that is wrong is seen.
    templated = turns and prompt.startswith("<|begin_of_text|>") and prompt.endswith(LLAMA_END)
    return Ask(turns[-1] if templated else prompt, count(prompt), most=value.get("max_gen_len", 512))


def llama_answer(said):
    return {
        "generation": said.text, "prompt_token_count": said.usage["in"], "generation_token_count": said.usage["out"],
        "stop_reason": "length" if said.finish == "length" else "stop",
    }  # fmt: skip


def llama_events(said):
    words = [*pieces(said.text), ""]
    for number, word in enumerate(words):
        last = number == len(words) - 1
        value = {
            "generation": word, "prompt_token_count": None if number else said.usage["in"],
            "generation_token_count": min(number + 1, said.usage["out"]),
            "stop_reason": llama_answer(said)["stop_reason"] if last else None,
        }  # fmt: skip
        yield value | ({"amazon-bedrock-invocationMetrics": metrics(said)} if last else {})


# --- OpenAI's shape: Bedrock's own endpoint, gpt-oss, vLLM -------------------------------------------------------


class Wrong(Exception):
    """A request that a server of OpenAI's shape refuses."""

    def __init__(self, message, param=None):
        super().__init__(message)
        self.body = {"error": {"message": message, "type": "BadRequestError", "param": param, "code": 400}}


def openai_ask(value):
    """What a body of chat completions, or of completions, asks."""
    if ("messages" in value) == ("prompt" in value):
        raise Wrong("exactly one of `messages` and `prompt` is needed")
    if "prompt" in value:
        return Ask(value["prompt"], count(value["prompt"]), most=value.get("max_tokens"))
    messages = value["messages"]
    if not messages:
        raise Wrong("list should have at least 1 item", "messages")
    results = [f"{turn['tool_call_id']}={text_of(turn['content'])}" for turn in messages if turn["role"] == "tool"]
    last = messages[-1]
    prompt = "results: " + ", ".join(results) if last["role"] == "tool" else text_of(last["content"])
    choice = value.get("tool_choice")
    tools = [] if choice == "none" else [tool["function"]["name"] for tool in value.get("tools") or ()]
    stops = value.get("stop") or []
    return Ask(
        prompt,
        count(json.dumps(messages)),
        tools=tools,
        forced=choice["function"]["name"] if isinstance(choice, dict) else "" if choice == "required" else None,
        thinks="reasoning_effort" in value,
        most=value.get("max_completion_tokens", value.get("max_tokens")),
        stops=[stops] if isinstance(stops, str) else stops,
        json="response_format" in value and value["response_format"]["type"] != "text",
    )


OPENAI_REASONS = {"stop": "stop", "length": "length", "tools": "tool_calls", "sequence": "stop"}


def openai_usage(said):
    usage = said.usage
    return {"prompt_tokens": usage["in"], "completion_tokens": usage["out"], "total_tokens": usage["in"] + usage["out"]}


def openai_text(said, tags):
    """gpt-oss on Bedrock puts its reasoning into the text."""
    return f"<reasoning>{said.thought}</reasoning>{said.text}" if tags and said.thought is not None else said.text


def openai_call(number, id, name, text):
    return {"index": number, "id": id, "type": "function", "function": {"name": name, "arguments": text}}


def openai_answer(said, value, tags=False):
    base = {"id": "chatcmpl-fake", "created": 1700000000, "model": value.get("model", "")}
    if "prompt" in value:
        choice = {"index": 0, "text": said.text, "logprobs": None, "finish_reason": OPENAI_REASONS[said.finish]}
        return base | {"object": "text_completion", "choices": [choice], "usage": openai_usage(said)}
    message = {"role": "assistant", "content": openai_text(said, tags) or None}
    if said.thought is not None and not tags:
        message["reasoning_content"] = said.thought
    if said.calls:
        calls = [
            openai_call(number, f"call_{number}" if tags else id, name, json.dumps(given))
            for number, (id, name, given) in enumerate(said.calls)
        ]
        message["tool_calls"] = [{k: v for k, v in call.items() if k != "index"} for call in calls]
    choice = {"index": 0, "message": message, "finish_reason": OPENAI_REASONS[said.finish]}
    return base | {"object": "chat.completion", "choices": [choice], "usage": openai_usage(said)}


def openai_events(said, value, tags=False):
    """The chunks, as server-sent events, with their end."""
    chat = "prompt" not in value
    kind = "chat.completion.chunk" if chat else "text_completion"
    base = {"id": "chatcmpl-fake", "object": kind, "created": 1700000000, "model": value.get("model", "")}

    def chunk(delta, finish=None):
        body = {"delta": delta} if chat else {"text": delta.get("content", "")}
        choice = {"index": 0, **body, "finish_reason": finish}
        return b"data: " + dump(base | {"choices": [choice]}) + b"\n\n"

    if chat:
        yield chunk({"role": "assistant", "content": ""})
    if said.thought is not None and not tags:
        for piece in pieces(said.thought):
            yield chunk({"reasoning_content": piece})
    # The tags are cut as the text is: anywhere.
    text = openai_text(said, tags)
    for piece in fragments(text, 7) if tags else pieces(text):
        yield chunk({"content": piece})
    for number, (id, name, given) in enumerate(said.calls):
        yield chunk({"tool_calls": [openai_call(number, f"call_{number}" if tags else id, name, "")]})
        for piece in fragments(json.dumps(given, ensure_ascii=False)):
            yield chunk({"tool_calls": [{"index": number, "function": {"arguments": piece}}]})
    yield chunk({}, OPENAI_REASONS[said.finish])
    if (value.get("stream_options") or {}).get("include_usage"):
        yield b"data: " + dump(base | {"choices": [], "usage": openai_usage(said)}) + b"\n\n"
    yield b"data: [DONE]\n\n"


# --- TGI ---------------------------------------------------------------------------------------------------------


class TgiWrong(Exception):
    def __init__(self, message):
        super().__init__(message)
        self.body = {"error": f"Input validation error: {message}", "error_type": "validation"}


def tgi_ask(value):
    if not isinstance(value.get("inputs"), str):
        raise TgiWrong("`inputs` must be a string")
    if not value["inputs"]:
        raise TgiWrong("`inputs` cannot be empty")
    parameters = value.get("parameters") or {}
    if parameters.get("temperature") is not None and not parameters["temperature"] > 0:
        raise TgiWrong("`temperature` must be strictly positive")
    if parameters.get("top_p") is not None and not 0 < parameters["top_p"] < 1:
        raise TgiWrong("`top_p` must be > 0.0 and < 1.0")
    if parameters.get("top_k") is not None and not parameters["top_k"] > 0:
        raise TgiWrong("`top_k` must be strictly positive")
    stops = parameters.get("stop") or []
    if len(stops) > 4:
        raise TgiWrong(f"`stop` supports up to 4 stop sequences. Given: {len(stops)}")
    turns = LLAMA_TURN.findall(value["inputs"])
    prompt = turns[-1] if turns else value["inputs"]
    return Ask(prompt, count(value["inputs"]), most=parameters.get("max_new_tokens", 100), stops=stops)


TGI_REASONS = {"stop": "eos_token", "length": "length", "sequence": "stop_sequence"}


def tgi_details(said):
    return {"finish_reason": TGI_REASONS[said.finish], "generated_tokens": said.usage["out"], "seed": None}


def tgi_answer(said, value):
    details = (value.get("parameters") or {}).get("details")
    more = {"details": tgi_details(said) | {"prefill": [], "tokens": []}} if details else {}
    return [{"generated_text": said.text} | more]


def tgi_events(said, value):
    words = pieces(said.text) or [""]
    for number, word in enumerate(words):
        last = number == len(words) - 1
        token = {"id": number, "text": word, "logprob": -0.5, "special": False}
        details = tgi_details(said) | {"input_length": said.usage["in"]} if last else None
        yield (
            b"data:"
            + dump({"index": number + 1, "token": token, "generated_text": said.text if last else None, "details": details})
            + b"\n\n"
        )
