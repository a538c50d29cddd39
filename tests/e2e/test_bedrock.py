"""Bedrock through the gateway, in front of the AWS that the tests play (aws_server.py)."""

import base64
import datetime
import hashlib
import json
import threading
import time

import openai
import pytest

import aws as fake
import kit
from conftest import KEY, start_gateway
from test_cancellation import not_told
from test_chat import WEATHER
from test_streaming import chunks, content

pytestmark = pytest.mark.gateway_only

CLAUDE = "anthropic.claude-3-haiku-20240307-v1:0"
LLAMA = "meta.llama3-1-8b-instruct-v1:0"
GPT_OSS = "openai.gpt-oss-20b-1:0"
TITAN = "amazon.titan-embed-text-v2:0"
OTHER = WEATHER | {"function": WEATHER["function"] | {"name": "weather.of the:world"}}
TOKEN_KEY = {"secret": "temporary/secret", "token": "the/token+of=the/session//"}


def secrets(key=fake.KEY_ID, secret=fake.SECRET, token=None):
    return {"aws_access_key_id": key, "aws_secret_access_key": secret, "aws_session_token": token}


def config(url, **settings):
    """A provider for each way to be authenticated."""

    def provider(secrets, adapter="bedrock", timeouts=None, **more):
        values = {"region": fake.REGION} | settings | more
        return {"adapter": adapter, "endpoint": url, "secrets": secrets, "settings": values, "timeouts": timeouts}

    return {
        "server": {"api_keys": [KEY]},
        "timeouts": {"first_token": "20s", "idle": "20s"},
        # Each answer is looked at by itself: one try, and nobody rests.
        "retry": {"attempts": 1},
        "health": {"rest": "0s"},
        "providers": {
            "bedrock": provider(secrets()),
            "bearer": provider({"api_key": fake.BEARER}, auth="bearer"),
            "wrong": provider(secrets(secret="not/the/secret+of/AWS")),
            "unknown": provider(secrets(key="AKIANOTKNOWNTOANYBODY")),
            "wrong-bearer": provider({"api_key": "not-the-bearer-key"}, auth="bearer"),
            "session": provider(secrets("ASIATEMPORARY", TOKEN_KEY["secret"], TOKEN_KEY["token"])),
            "session-less": provider(secrets("ASIATEMPORARY", TOKEN_KEY["secret"])),
            "elsewhere": provider(secrets(), region="ap-south-1"),
            "lenient": provider(secrets(), drop_unsupported=True),
            "impatient": provider(secrets(), timeouts={"first_token": "400ms"}),
            "restless": provider(secrets(), timeouts={"idle": "400ms"}),
        },
        "models": {
            "claude": {"target": f"bedrock/{CLAUDE}"},
            "second": {"targets": [f"wrong/{CLAUDE}", f"bedrock/{CLAUDE}"]},
        },
    }


@pytest.fixture(scope="session")
def bedrock(shape, folder, aws_server):
    gateway = start_gateway(shape, config(aws_server.url), folder)
    yield gateway
    gateway.process.stop()


@pytest.fixture(scope="session")
def invoke(shape, folder, aws_server):
    """The same by InvokeModel."""
    gateway = start_gateway(shape, config(aws_server.url, api="invoke"), folder)
    yield gateway
    gateway.process.stop()


@pytest.fixture(scope="session")
def openais(shape, folder, aws_server):
    """The same by the endpoint of OpenAI's shape."""
    gateway = start_gateway(shape, config(aws_server.url, api="openai"), folder)
    yield gateway
    gateway.process.stop()


VIA = {
    "converse": ("bedrock", CLAUDE),
    "invoke": ("invoke", CLAUDE),
    "llama": ("invoke", LLAMA),
    "openai": ("openais", GPT_OSS),
}


@pytest.fixture
def via(request, shape):
    """For the name of an API its gateway, and a model to ask for."""

    def find(name):
        gateway, model = VIA[name]
        return request.getfixturevalue(gateway), f"bedrock/{model}"

    return find


@pytest.fixture(params=list(VIA))
def api(request, via):
    """Each API, with its name."""
    return request.param, *via(request.param)


@pytest.fixture(params=["converse", "invoke"])
def framed(request, via):
    """The APIs whose streams are AWS's own frames."""
    return request.param, *via(request.param)


def text_of(answer):
    assert answer.status == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"]


def failed(events):
    """The error that ends a stream; no clean end beside it."""
    assert events, "a stream of nothing"
    assert not any(event.data == "[DONE]" for event in events), "a clean end"
    assert "error" in events[-1].json(), events[-1]
    assert not any(choice["finish_reason"] for chunk in chunks(events)[:-1] for choice in chunk["choices"])
    return events[-1].json()["error"]


# --- chats -------------------------------------------------------------------------------------------------------


def test_text(api, aws, unique):
    name, gateway, model = api
    answer = gateway.chat(model, f"hello {unique}", max_tokens=50)
    assert text_of(answer) == f"echo: hello {unique}"
    value = answer.json()
    assert value["choices"][0]["finish_reason"] == "stop"
    usage = value["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens"] > 0 and usage["completion_tokens"] >= 3
    seen = aws.one(unique)
    assert seen.status == 200 and seen.ended
    operations = {"converse": "Converse", "invoke": "InvokeModel", "llama": "InvokeModel", "openai": "ChatCompletions"}
    assert seen.operation == operations[name]


def test_a_stream_says_what_the_whole_answer_says(api, unique):
    name, gateway, model = api
    prompt = f"grüße 日本 {unique}"
    whole = gateway.chat(model, prompt, max_tokens=50)
    status, events = gateway.stream(model, prompt, max_tokens=50, stream_options={"include_usage": True})
    assert status == 200 and events[-1].data == "[DONE]"
    assert content(events) == text_of(whole) == f"echo: {prompt}"
    found = chunks(events)
    assert found[-1]["usage"] == whole.json()["usage"]
    reasons = [choice["finish_reason"] for chunk in found for choice in chunk["choices"]]
    assert reasons[-1] == "stop" and not any(reasons[:-1])


@pytest.mark.parametrize("size", [1, 2, 3, 7, 11, 64])
def test_a_stream_that_the_network_divides_anywhere_is_the_same(api, aws, unique, size):
    _, gateway, model = api
    prompt = f"grüße 日本 {unique}"
    aws.on(unique, chunk=size)
    status, events = gateway.stream(model, prompt, max_tokens=50)
    assert status == 200 and events[-1].data == "[DONE]" and content(events) == f"echo: {prompt}"


def test_what_ends_a_text(api, aws, unique):
    name, gateway, model = api
    answer = gateway.chat(model, "one two three", max_tokens=2)
    assert answer.json()["choices"][0]["finish_reason"] == "length" and text_of(answer) == "echo: one"
    if name in ("converse", "invoke"):
        answer = gateway.chat(model, "one two", max_tokens=50, stop=["two"])
        assert answer.json()["choices"][0]["finish_reason"] == "stop" and text_of(answer) == "echo: one "


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
        ("model_context_window_exceeded", "length"),
        ("malformed_model_output", None),
        ("malformed_tool_use", None),
    ],
)
def test_the_reasons_of_converse(bedrock, aws, unique, reason, told):
    aws.on(unique, say={"text": "well", "finish": reason})
    answer = bedrock.chat("claude", unique)
    status, events = bedrock.stream("claude", unique)
    if told:
        assert text_of(answer) == content(events) == "well" and status == 200
        assert answer.json()["choices"][0]["finish_reason"] == told
        assert chunks(events)[-1]["choices"][0]["finish_reason"] == told
    else:
        assert answer.status == 502 and failed(events)


def test_a_conversation(bedrock, aws, unique):
    messages = [
        {"role": "system", "content": f"be kind {unique}"},
        {"role": "user", "content": "one"},
        {"role": "user", "content": [{"type": "text", "text": "two"}]},
        {"role": "assistant", "content": "three"},
        {"role": "developer", "content": "be short"},
        {"role": "user", "content": "four"},
    ]
    answer = bedrock.post("/v1/chat/completions", {"model": "claude", "messages": messages})
    assert text_of(answer) == "echo: four"
    body = aws.one(unique).json
    assert [part["text"] for part in body["system"]] == [f"be kind {unique}", "be short"]
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    assert [part["text"] for part in body["messages"][0]["content"]] == ["one", "two"]


def test_parameters(bedrock, aws, unique):
    bedrock.chat("claude", unique, temperature=0.5, top_p=0.9, max_completion_tokens=7, stop="x")
    assert aws.one(unique).json["inferenceConfig"] == {"maxTokens": 7, "temperature": 0.5, "topP": 0.9, "stopSequences": ["x"]}


def test_what_bedrock_has_not_is_refused_by_name_or_left_out_and_told(bedrock, aws, unique):
    for more, param in (({"n": 2}, "n"), ({"logprobs": True}, "logprobs"), ({"seed": 7}, "seed")):
        answer = bedrock.chat("claude", unique, **more)
        assert answer.status == 400 and answer.error["param"] == param and "edrock" in answer.error["message"]
        answer = bedrock.chat(f"lenient/{CLAUDE}", **more)
        assert answer.status == 200 and param in answer.headers["x-witgate-dropped"]
    assert aws.seen(unique) == []


PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")


def picture(url):
    return [{"role": "user", "content": [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": url}}]}]


def test_an_image(framed):
    name, gateway, model = framed
    url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    answer = gateway.post("/v1/chat/completions", {"model": model, "messages": picture(url), "max_tokens": 50})
    assert answer.status == 200, answer.text
    if name == "converse":
        assert f"[png of {len(PNG)} bytes]" in text_of(answer)


def test_an_image_elsewhere_is_refused(bedrock):
    answer = bedrock.post("/v1/chat/completions", {"model": "claude", "messages": picture("https://example.com/a.png")})
    assert answer.status == 400 and answer.error["param"].startswith("messages[0].content[1]"), answer.text


def test_a_schema(bedrock, aws, unique):
    schema = {"type": "object", "properties": {"echo": {"type": "string"}}, "required": ["echo"], "additionalProperties": False}
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    answer = bedrock.chat("claude", unique, response_format=wanted)
    assert json.loads(text_of(answer)) == {"echo": unique}
    assert "textFormat" in aws.one(unique).json["outputConfig"]


# --- tools -------------------------------------------------------------------------------------------------------

CALLS = {"text": "let me see", "calls": [["#0", {"city": "Köln"}], ["#1", {}]]}


def joined(events):
    """The calls of a stream, by index."""
    calls = {}
    for chunk in chunks(events):
        for choice in chunk["choices"]:
            for delta in choice["delta"].get("tool_calls") or ():
                call = calls.setdefault(delta["index"], {"id": None, "name": None, "arguments": ""})
                call["id"] = delta.get("id") or call["id"]
                call["name"] = delta["function"].get("name") or call["name"]
                call["arguments"] += delta["function"].get("arguments") or ""
    return [calls[index] for index in sorted(calls)]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["converse", "invoke", "openai"])
def test_tools_are_called_and_their_results_go_back(via, aws, unique, name, stream):
    """Two calls at once, one without arguments, and a name that Bedrock's alphabet lacks."""
    gateway, model = via(name)
    tools = [WEATHER, OTHER if name != "openai" else WEATHER | {"function": WEATHER["function"] | {"name": "other"}}]
    aws.on(unique, times=1, say=CALLS)
    ask = {"model": model, "tools": tools, "max_tokens": 200, "messages": [{"role": "user", "content": unique}]}
    if stream:
        with kit.Wire(gateway.url) as wire:
            wire.send("POST", "/v1/chat/completions", gateway.headers(), ask | {"stream": True})
            status, _ = wire.head()
            events = list(kit.frames(wire))
        assert status == 200 and events[-1].data == "[DONE]" and content(events) == "let me see"
        reasons = [choice["finish_reason"] for chunk in chunks(events) for choice in chunk["choices"]]
        assert reasons[-1] == "tool_calls"
        calls = joined(events)
    else:
        answer = gateway.post("/v1/chat/completions", ask)
        assert text_of(answer) == "let me see"
        (choice,) = answer.json()["choices"]
        assert choice["finish_reason"] == "tool_calls"
        calls = [{"id": call["id"], **call["function"]} for call in choice["message"]["tool_calls"]]
    assert [call["name"] for call in calls] == [tool["function"]["name"] for tool in tools]
    assert [json.loads(call["arguments"]) for call in calls] == [{"city": "Köln"}, {}]
    assert calls[0]["id"] and calls[0]["id"] != calls[1]["id"]
    ask["messages"] += [
        {
            "role": "assistant",
            "content": "let me see",
            "tool_calls": [
                {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
                for call in calls
            ],
        },
        *({"role": "tool", "tool_call_id": call["id"], "content": f"rain {n}"} for n, call in enumerate(calls)),
    ]
    # The server refuses a history whose calls and results do not belong together.
    text = text_of(gateway.post("/v1/chat/completions", ask))
    assert "=rain 0" in text and "=rain 1" in text


@pytest.mark.parametrize("name", ["converse", "invoke"])
def test_a_tool_that_must_be_called(via, name):
    gateway, model = via(name)
    for choice in ("required", {"type": "function", "function": {"name": "get_weather"}}):
        answer = gateway.chat(model, tools=[WEATHER], tool_choice=choice, max_tokens=50)
        (call,) = answer.json()["choices"][0]["message"]["tool_calls"]
        assert call["function"] == {"name": "get_weather", "arguments": "{}"}


def test_ids_of_calls_that_bedrock_does_not_take_are_replaced(bedrock):
    messages = [
        {"role": "user", "content": "x"},
        {
            "role": "assistant",
            "tool_calls": [
                {"id": f"an id/{'x' * 80}", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": f"an id/{'x' * 80}", "content": "rain"},
    ]
    answer = bedrock.post("/v1/chat/completions", {"model": "claude", "messages": messages, "tools": [WEATHER]})
    assert text_of(answer).endswith("=rain")


@pytest.mark.parametrize("name", ["converse", "invoke", "openai"])
def test_reasoning_stands_apart_from_the_text(via, unique, name):
    gateway, model = via(name)
    more = {"reasoning_effort": "low", "max_completion_tokens": 8000}
    answer = gateway.chat(model, unique, **more)
    assert text_of(answer) == f"echo: {unique}"
    assert answer.json()["choices"][0]["message"]["reasoning_content"] == f"I think about: {unique}"
    status, events = gateway.stream(model, unique, **more)
    assert status == 200 and content(events) == f"echo: {unique}"
    thought = [choice["delta"].get("reasoning_content") or "" for chunk in chunks(events) for choice in chunk["choices"]]
    assert "".join(thought) == f"I think about: {unique}"


# --- models ------------------------------------------------------------------------------------------------------

ARN = "arn:aws:bedrock:us-east-1"
IDS = [
    CLAUDE,
    f"us.{CLAUDE}",
    "global.anthropic.claude-sonnet-4-5-20250929-v1:0",
    f"{ARN}::foundation-model/{CLAUDE}",
    f"{ARN}:123456789012:inference-profile/us.{CLAUDE}",
    f"{ARN}:123456789012:application-inference-profile/a1b2c3d4e5f6",
]


@pytest.mark.parametrize("model", IDS)
def test_a_model_id_is_one_segment_of_the_path_and_signed_as_such(bedrock, aws, unique, model):
    """The server takes `:` and `/` only percent-encoded once, and its signer encodes them once more."""
    assert text_of(bedrock.chat(f"bedrock/{model}", unique)) == f"echo: {unique}"
    status, events = bedrock.stream(f"bedrock/{model}", unique)
    assert status == 200 and content(events) == f"echo: {unique}"
    one, two = aws.seen(unique)
    encoded = model.replace(":", "%3A").replace("/", "%2F")
    assert (one.path, two.path) == (f"/model/{encoded}/converse", f"/model/{encoded}/converse-stream")


def test_an_arn_names_its_region(bedrock, aws, unique):
    model = f"arn:aws:bedrock:eu-central-1::foundation-model/{CLAUDE}"
    assert text_of(bedrock.chat(f"bedrock/{model}", unique)) == f"echo: {unique}"
    assert aws.one(unique).region == "eu-central-1"


@pytest.mark.parametrize(
    ("model", "status", "word"),
    [
        ("no.such-model", 400, "model identifier is invalid"),
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", 400, "inference profile"),
        (f"{ARN}:123456789012:application-inference-profile/000000000000", 404, "not found"),
        (TITAN, 400, "support"),
    ],
)
def test_a_model_that_is_not_there_is_refused_in_aws_words(bedrock, model, status, word):
    for stream in (False, True):
        answer = bedrock.chat(f"bedrock/{model}", stream=stream)
        assert answer.status == status and word in answer.error["message"], answer.text


def test_embeddings(bedrock):
    client = bedrock.client
    made = client.embeddings.create(model=f"bedrock/{TITAN}", input="hello world", dimensions=256, encoding_format="float")
    assert len(made.data) == 1 and len(made.data[0].embedding) == 256 and made.usage.prompt_tokens == 2
    packed = client.embeddings.create(model=f"bedrock/{TITAN}", input="hello world", dimensions=256)
    assert packed.data[0].embedding == pytest.approx(made.data[0].embedding)
    made = client.embeddings.create(model="bedrock/cohere.embed-v4:0", input=["one", "two three"], encoding_format="float")
    assert [found.index for found in made.data] == [0, 1] and made.data[0].embedding != made.data[1].embedding
    assert made.usage.prompt_tokens == 3


# --- signatures --------------------------------------------------------------------------------------------------


def test_what_is_signed_and_what_is_not(bedrock, aws, unique):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert bedrock.chat("claude", unique, headers={"traceparent": trace}).status == 200
    seen = aws.one(unique)
    assert seen.signed_headers == ["content-type", "host", "x-amz-date"]
    assert "0af7651916cd43dd8448eb211c80319c" in seen.headers["traceparent"]
    assert seen.key == fake.KEY_ID and seen.region == fake.REGION
    # The client's key stays here.
    assert KEY not in str(seen.headers)


def test_a_large_and_odd_body_is_signed_as_it_is_sent(bedrock, aws, unique):
    prompt = f"{unique} \u2028 \x7f \\ / \u00e9 e\u0301 😀 " + "lorem ipsum " * 100_000
    assert text_of(bedrock.chat("claude", prompt)) == f"echo: {prompt}"
    assert len(aws.one(unique).body) > 1_000_000


def test_a_session_token_is_sent_and_signed(bedrock, aws, unique):
    aws.set(keys={"ASIATEMPORARY": TOKEN_KEY})
    assert bedrock.chat(f"session/{CLAUDE}", unique).status == 200
    seen = aws.one(unique)
    assert seen.headers["x-amz-security-token"] == TOKEN_KEY["token"] and "x-amz-security-token" in seen.signed_headers
    assert bedrock.chat(f"session-less/{CLAUDE}", unique).status == 502


def test_an_ended_session_is_a_502_that_names_no_secret(bedrock, aws):
    aws.set(keys={"ASIATEMPORARY": TOKEN_KEY | {"expires": 1.0}})
    answer = bedrock.chat(f"session/{CLAUDE}")
    assert answer.status == 502 and "expired" in answer.error["message"]
    assert TOKEN_KEY["token"] not in answer.text and TOKEN_KEY["secret"] not in answer.text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("provider", ["wrong", "unknown", "wrong-bearer", "elsewhere"])
def test_wrong_credentials_are_a_502_that_names_no_secret(bedrock, aws, unique, provider, stream):
    answer = bedrock.chat(f"{provider}/{CLAUDE}", unique, stream=stream)
    assert answer.status == 502 and answer.error["provider"] == provider, answer.text
    assert aws.one(unique).status == 403
    output = answer.text + bedrock.process.output()
    for secret in (fake.SECRET, "not/the/secret+of/AWS", "not-the-bearer-key", fake.BEARER):
        assert secret not in output
    # Nor the signature, with which the request could be sent again.
    assert "Signature=" not in output and aws.one(unique).headers["authorization"] not in output


def test_another_target_answers_where_the_credentials_of_the_first_are_wrong(bedrock, aws, unique):
    for stream in (False, True):
        answer = bedrock.chat("second", unique, stream=stream)
        assert answer.status == 200
    assert [seen.status for seen in aws.seen(unique)] == [403, 200, 403, 200]


def test_credentials_and_region_of_the_environment(start, aws, unique):
    """Variables of the native binary, and of the component."""
    provider = {"adapter": "bedrock", "endpoint": aws.url}
    bare = {"server": {"api_keys": [KEY]}, "providers": {"aws": provider}, "models": {"claude": {"target": f"aws/{CLAUDE}"}}}
    variables = {
        "AWS_ACCESS_KEY_ID": "ASIATEMPORARY",
        "AWS_SECRET_ACCESS_KEY": TOKEN_KEY["secret"],
        "AWS_SESSION_TOKEN": TOKEN_KEY["token"],
        "AWS_REGION": "eu-central-1",
    }
    gateway = start(bare, variables=variables)
    aws.set(keys={"ASIATEMPORARY": TOKEN_KEY})
    assert gateway.chat("claude", unique).status == 200
    seen = aws.one(unique)
    assert seen.key == "ASIATEMPORARY" and seen.region == "eu-central-1"


@pytest.mark.parametrize("name", ["BEDROCK_API_KEY", "AWS_BEARER_TOKEN_BEDROCK"])
def test_the_bearer_key_of_the_environment(start, aws, unique, name):
    provider = {"adapter": "bedrock", "endpoint": aws.url}
    bare = {"server": {"api_keys": [KEY]}, "providers": {"aws": provider}, "models": {"claude": {"target": f"aws/{CLAUDE}"}}}
    gateway = start(bare, variables={name: fake.BEARER, "AWS_REGION": fake.REGION})
    assert gateway.chat("claude", unique).status == 200 and aws.one(unique).key == "bearer"


def test_the_bearer_key(bedrock, aws, unique):
    assert bedrock.chat(f"bearer/{CLAUDE}", unique).status == 200
    seen = aws.one(unique)
    assert seen.key == "bearer" and "x-amz-date" not in seen.headers


@pytest.mark.parametrize("code", [None, "RequestTimeTooSkewed", "RequestExpired"])
@pytest.mark.parametrize("ahead", [-3600, 900, 86400 * 3])
def test_a_clock_that_differs_is_corrected_once_by_the_servers_date(start, aws, unique, ahead, code):
    gateway = start(config(aws.url))
    aws.set(ahead=ahead, time_code=code)
    assert text_of(gateway.chat("claude", unique)) == f"echo: {unique}"
    assert [seen.status for seen in aws.seen(unique)] == [403, 200]
    stamps = [seen.headers["x-amz-date"] for seen in aws.seen(unique)]
    one, two = (datetime.datetime.strptime(stamp, "%Y%m%dT%H%M%SZ") for stamp in stamps)
    assert abs((two - one).total_seconds() - ahead) < 60
    # What it learned it keeps.
    status, events = gateway.stream("claude", unique)
    assert status == 200 and content(events) == f"echo: {unique}"
    assert [seen.status for seen in aws.seen(unique)] == [403, 200, 200]
    # And learns again where the clock is set right.
    aws.set(ahead=0)
    assert gateway.chat("claude", unique).status == 200
    assert [seen.status for seen in aws.seen(unique)] == [403, 200, 200, 403, 200]


def test_a_clock_is_corrected_only_once_for_a_request(start, aws, unique):
    """A server that refuses every time, whose date is right for none."""
    gateway = start(config(aws.url))
    body = '{"message": "Signature expired: no time is right"}'
    headers = {"x-amzn-errortype": "InvalidSignatureException", "date": "Sat, 01 Jan 2000 00:00:00 GMT"}
    aws.on(unique, refuse={"status": 403, "headers": headers, "body": body}, headers=headers)
    answer = gateway.chat("claude", unique)
    assert answer.status == 502 and "expired" in answer.error["message"]
    assert len(aws.seen(unique)) == 2


# --- errors ------------------------------------------------------------------------------------------------------

# Each exception, and what the client is told.
EXCEPTIONS = [
    ("ThrottlingException", 429),
    ("ModelNotReadyException", 503),
    ("ModelTimeoutException", 504),
    ("InternalServerException", 502),
    ("ServiceUnavailableException", 503),
    ("ModelErrorException", 502),
    ("ValidationException", 400),
    # The client itself was let in.
    ("AccessDeniedException", 502),
    ("ResourceNotFoundException", 404),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("name", "status"), EXCEPTIONS)
def test_each_exception_is_told_with_its_status_and_aws_words(framed, aws, unique, name, status, stream):
    _, gateway, model = framed
    aws.on(unique, refuse={"name": name, "message": f"said for {unique}"})
    answer = gateway.chat(model, unique, stream=stream, max_tokens=50)
    assert answer.status == status, answer.text
    assert f"said for {unique}" in answer.error["message"]
    assert answer.error["provider"] == "bedrock"
    if status == 503:
        assert int(answer.headers["retry-after"]) >= 1


def test_a_throttled_request_is_a_429_for_the_official_client(bedrock, aws, unique):
    aws.on(unique, refuse={"name": "ThrottlingException", "message": "Too many requests, please wait before trying again."})
    with pytest.raises(openai.RateLimitError, match="Too many requests"):
        bedrock.client.chat.completions.create(model="claude", messages=[{"role": "user", "content": unique}])


def test_the_time_to_wait_is_told_where_the_server_says_it(openais, aws, unique):
    aws.on(unique, refuse={"status": 429, "headers": {"retry-after": "7"}, "body": '{"error": {"message": "slow down"}}'})
    answer = openais.chat(f"bedrock/{GPT_OSS}", unique)
    assert answer.status == 429 and answer.headers["retry-after"] == "7" and "slow down" in answer.error["message"]


@pytest.mark.parametrize(
    "words",
    [
        "Input is too long for requested model.",
        "prompt is too long: 210342 tokens > 200000 maximum",
        "Malformed input request: expected maxLength: 200000, actual: 210342, please reformat your input and try again.",
        "Too many input tokens. Max input tokens: 8192, request input token count: 9000",
    ],
)
def test_a_context_that_is_too_long_is_known_by_its_words(framed, aws, unique, words):
    _, gateway, model = framed
    aws.on(unique, refuse={"name": "ValidationException", "message": words})
    answer = gateway.chat(model, unique, max_tokens=50)
    assert answer.status == 400 and answer.error["code"] == "context_length_exceeded" and words in answer.error["message"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "answer",
    [
        {"status": 503, "headers": {"content-type": "text/html"}, "body": "<html>Service Unavailable</html>"},
        {"status": 502, "body": ""},
        {"status": 200, "headers": {"content-type": "application/json"}, "body": '{"message": "an error as a success"}'},
        {"status": 200, "headers": {"content-type": "text/html"}, "body": "<html>log in</html>"},
        {"status": 200, "headers": {"content-type": "application/vnd.amazon.eventstream"}, "body": ""},
        {
            "status": 200,
            "headers": {"content-type": "application/vnd.amazon.eventstream"},
            "body": '{"message": "no frame at all"}',
        },
        {"status": 301, "headers": {"location": "http://127.0.0.1:1/"}, "body": ""},
    ],
)
def test_an_answer_that_is_none_is_a_failure(framed, aws, unique, answer, stream):
    name, gateway, model = framed
    aws.on(unique, refuse=answer)
    found = gateway.chat(model, unique, stream=stream, max_tokens=50)
    assert found.status == (503 if answer["status"] == 503 else 502), found.text
    assert found.error["provider"] == "bedrock" and len(aws.seen(unique)) == 1
    if name == "converse" and "json" in answer.get("headers", {}).get("content-type", ""):
        assert "an error as a success" in found.error["message"]


# --- within a stream ---------------------------------------------------------------------------------------------

INSIDE = [
    "internalServerException",
    "modelStreamErrorException",
    "validationException",
    "throttlingException",
    "serviceUnavailableException",
]


@pytest.mark.parametrize("kind", INSIDE)
def test_an_exception_inside_a_stream_ends_it_with_an_error(framed, aws, unique, kind):
    _, gateway, model = framed
    aws.on(
        unique,
        fault={"after": 6, "exception": kind, "message": f"broken for {unique}"},
        say={"text": "one two three four five"},
    )
    status, events = gateway.stream(model, unique, max_tokens=50)
    assert status == 200
    error = failed(events)
    assert f"broken for {unique}" in error["message"] and error["provider"] == "bedrock"
    assert content(events[:-1]).startswith("one two")


@pytest.mark.parametrize(("kind", "status"), list(zip(INSIDE, [502, 502, 400, 429, 503], strict=True)))
def test_an_exception_before_the_first_content_is_a_status(framed, aws, unique, kind, status):
    _, gateway, model = framed
    aws.on(unique, fault={"after": 0, "exception": kind, "message": f"broken for {unique}"})
    answer = gateway.chat(model, unique, stream=True, max_tokens=50)
    assert answer.status == status and f"broken for {unique}" in answer.error["message"], answer.text


def test_another_target_answers_where_a_stream_breaks_before_its_first_content(start, aws, unique):
    both = config(aws.url)
    both["models"]["both"] = {"targets": [f"bedrock/us.{CLAUDE}", f"bedrock/eu.{CLAUDE}"]}
    gateway = start(both)
    aws.on(f"/model/us.{CLAUDE}", fault={"after": 1, "exception": "modelStreamErrorException", "message": "x"})
    status, events = gateway.stream("both", unique)
    assert status == 200 and content(events) == f"echo: {unique}" and events[-1].data == "[DONE]"


def test_an_error_frame_and_frames_that_nobody_knows(framed, aws, unique):
    _, gateway, model = framed
    aws.on(unique, fault={"after": 6, "error": "InternalFailure", "message": f"broken for {unique}"})
    assert f"broken for {unique}" in failed(gateway.stream(model, f"a b c d e {unique}", max_tokens=50)[1])["message"]
    aws.reset()
    unknown = {":message-type": "exception", ":exception-type": "brandNewException", ":content-type": "application/json"}
    aws.on(unique, fault={"after": 6, "headers": unknown, "payload": '{"message": "something new"}'})
    assert "something new" in failed(gateway.stream(model, f"a b c d e {unique}", max_tokens=50)[1])["message"]


def whole_stream(gateway, aws, model, prompt):
    """The bytes of the stream that AWS sends for this request, and where its frames end."""
    gateway.stream(model, prompt, max_tokens=50)
    seen = aws.one(prompt)
    with kit.Wire(aws.url) as wire:
        wire.send("POST", seen.path, {"authorization": f"Bearer {fake.BEARER}"}, seen.body)
        assert wire.head()[0] == 200
        pieces = list(wire.pieces())
    ends = [sum(map(len, pieces[: n + 1])) for n in range(len(pieces))]
    return b"".join(pieces), ends


@pytest.mark.parametrize("how", ["end", "reset"])
def test_a_stream_that_is_cut_is_never_a_clean_end(framed, aws, unique, how):
    """At the end of each frame before the one with the finish, around each, and between."""
    _, gateway, model = framed
    data, ends = whole_stream(gateway, aws, model, unique)
    last = ends[-3]
    places = {place for end in ends for place in (end - 1, end, end + 1, end + 11) if 0 < place < last}
    places |= set(range(1, last, max(1, last // 40))) | {last, last - 5, len(data) - 1}
    places = sorted(places)
    if how == "reset":
        places = places[:: max(1, len(places) // 12)]
    wrong = []
    for place in places:
        aws.reset()
        aws.on(unique, cut=place, how=how)
        with gateway.open_chat(model, unique, max_tokens=50) as wire:
            status, headers = wire.head()
            if status != 200:
                body = json.loads(b"".join(wire.pieces()))
                if status != 502 or not body["error"]["message"]:
                    wrong.append((place, status, body))
                continue
            events = list(kit.frames(wire))
        try:
            failed(events)
        except AssertionError as error:
            wrong.append((place, str(error)[:200]))
    assert not wrong, (ends, wrong)


def test_a_byte_that_changed_on_its_way_is_an_error(framed, aws, unique):
    """Checksums are looked at: nothing of the frame that is wrong, or of a later one, reaches the client."""
    _, gateway, model = framed
    data, ends = whole_stream(gateway, aws, model, unique)
    right = f"echo: {unique}"
    for place in range(0, len(data), max(1, len(data) // 60)):
        aws.reset()
        aws.on(unique, flip=place)
        with gateway.open_chat(model, unique, max_tokens=50) as wire:
            status, _ = wire.head()
            if status != 200:
                assert status == 502, (place, status)
                continue
            events = list(kit.frames(wire))
        failed(events)
        assert right.startswith(content(events[:-1])), place


@pytest.mark.parametrize("frames", [0, 5])
def test_a_stream_that_stalls_is_given_up(framed, aws, unique, frames):
    _, gateway, model = framed
    model = model.replace("bedrock/", "restless/" if frames else "impatient/")
    aws.on(unique, stall=frames)
    began = time.monotonic()
    if frames:
        status, events = gateway.stream(model, f"a b c {unique}", max_tokens=50)
        assert status == 200 and failed(events)
    else:
        answer = gateway.chat(model, unique, stream=True, max_tokens=50)
        assert answer.status == 504 and answer.error["provider"] == "impatient"
    assert time.monotonic() - began < 15
    kit.wait_until(lambda: aws.one(unique).left, what="the gateway to leave")


# --- clients that leave ------------------------------------------------------------------------------------------


def leaves(gateway, aws, model, unique, stream, frames, read):
    aws.on(unique, stall=frames)
    wire = gateway.open_chat(model, f"a b c {unique}", stream=stream, max_tokens=50)
    kit.wait_until(lambda: aws.seen(unique), what="the request to arrive")
    read(wire)
    left = time.monotonic()
    wire.close()
    seen = kit.wait_until(lambda: aws.one(unique).left and aws.one(unique), 0.5 + kit.SLACK, "the gateway to leave")
    assert seen.left - left < 0.1 + kit.SLACK and not seen.ended


def some(wire):
    wire.head()
    for event in kit.frames(wire):
        if "echo" in (event.data or ""):
            return


def test_a_client_that_leaves_cancels_the_request_at_aws(framed, aws, unique):
    _, gateway, model = framed
    leaves(gateway, aws, model, unique, True, 4, some)


@not_told
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_before_the_first_content_cancels_it_too(framed, aws, unique, stream):
    _, gateway, model = framed
    leaves(gateway, aws, model, unique, stream, 0, lambda wire: time.sleep(0.2))


def test_many_at_once(bedrock, aws, unique):
    """Signed requests on one pool of connections, none mixed with another."""
    found = {}

    def ask(number):
        prompt = f"{unique} {hashlib.sha256(str(number).encode()).hexdigest()}"
        status, events = bedrock.stream("claude", prompt)
        found[number] = status == 200 and content(events) == f"echo: {prompt}"

    aws.on(unique, pause=0.02)
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 24 and all(found.values()), found
