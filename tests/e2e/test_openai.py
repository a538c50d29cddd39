"""OpenAI's APIs behind the gateway, Chat Completions and Responses: replayed from fixtures, and of the real llama-server."""

import json

import pytest

import kit
from test_anthropic import FORECAST, broken, logged
from test_bedrock import joined, text_of
from test_chat import WEATHER
from test_streaming import chunks, content

pytestmark = pytest.mark.gateway_only


@pytest.fixture(params=["openai", "responses"])
def api(request):
    """A provider that plays this API."""
    return request.param


WHOLE = {"openai": "Hello!", "responses": 'Grüße aus 世界 🦀: "ok".'}
STREAMED = WHOLE | {"openai": "Hello! 😀"}
COUNTS = {"openai": (19, 10), "responses": (36, 87)}


def test_text(backends, replay, unique, api):
    answer = backends.chat(f"{api}/text", unique, max_tokens=50)
    assert text_of(answer) == WHOLE[api] and answer.json()["choices"][0]["finish_reason"] == "stop"
    usage = answer.json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == COUNTS[api]
    (seen,) = replay.of(unique)
    if api == "openai":
        assert seen.path == "/openai/chat/completions" and seen.json["max_tokens"] == 50
        assert seen.json["messages"] == [{"role": "user", "content": unique}]
    else:
        assert seen.path == "/openai/responses" and seen.json["max_output_tokens"] == 50


@pytest.mark.parametrize("manner", ["", "@1", "@5", "@64"])
def test_a_stream_is_the_same_however_the_network_divides_it(backends, replay, api, manner):
    status, events = backends.stream(f"{api}/text{manner}", stream_options={"include_usage": True})
    assert status == 200 and events[-1].data == "[DONE]" and content(events) == STREAMED[api]
    found = chunks(events)
    reasons = [choice["finish_reason"] for chunk in found for choice in chunk["choices"]]
    assert reasons[-1] == "stop" and not any(reasons[:-1])
    usage = found[-1]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == COUNTS[api]


def test_the_log_counts_the_same_for_a_stream_and_a_whole_answer(backends, replay, unique, api):
    for name, stream in (("whole", False), ("stream", True)):
        with backends.open_chat(f"{api}/text", unique, stream, {"x-request-id": unique + name}) as wire:
            wire.answer()
    assert logged(backends, unique + "whole") == logged(backends, unique + "stream") == COUNTS[api]


TOOLS = {
    ("openai", True): ("tool-calls@7", [("get_weather", {"city": "Ulm"}), ("get_time", {})]),
    ("responses", False): ("tools", [("get_weather", {"city": "Ulm"}), ("get_time", {})]),
    ("responses", True): ("tools@7", [("get_weather", {"city": "Ulm"}), ("get_time", {})]),
}


@pytest.mark.parametrize("stream", [False, True])
def test_tools(backends, replay, unique, api, stream):
    more = {"tools": [WEATHER, FORECAST], "tool_choice": "auto"}
    if stream:
        model, wanted = TOOLS[api, stream]
        status, events = backends.stream(f"{api}/{model}", unique, **more)
        assert status == 200 and events[-1].data == "[DONE]"
        calls = [(call["name"], json.loads(call["arguments"])) for call in joined(events)]
        assert chunks(events)[-1]["choices"][0]["finish_reason"] == "tool_calls"
    else:
        model, wanted = TOOLS.get((api, stream), ("tool-calls", [("f", {"x": 1}), ("g", {})]))
        answer = backends.chat(f"{api}/{model}", unique, **more)
        assert answer.status == 200, answer.text
        (choice,) = answer.json()["choices"]
        assert choice["finish_reason"] == "tool_calls"
        functions = [call["function"] for call in choice["message"]["tool_calls"] if call["type"] == "function"]
        calls = [(function["name"], json.loads(function["arguments"])) for function in functions]
        ids = [call["id"] for call in choice["message"]["tool_calls"]]
        assert len(set(ids)) == len(ids)
    assert calls == wanted
    (seen,) = replay.of(unique)
    names = [(tool.get("function") or tool)["name"] for tool in seen.json["tools"]]
    assert names == ["get_weather", "now"]


def test_results_of_tools_go_back(backends, replay, unique, api):
    call = {"id": "call_a", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Rome"}'}}
    messages = [
        {"role": "user", "content": unique},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_a", "content": "21 degrees"},
    ]
    body = {"model": f"{api}/text", "messages": messages, "tools": [WEATHER]}
    answer = backends.post("/v1/chat/completions", body)
    assert answer.status == 200, answer.text
    (seen,) = replay.of(unique)
    if api == "openai":
        assert seen.json["messages"][1]["tool_calls"] == [call]
        assert seen.json["messages"][2] == messages[2]
    else:
        items = {item["type"]: item for item in seen.json["input"] if item.get("call_id") == "call_a"}
        assert items["function_call"]["name"] == "get_weather"
        assert json.loads(items["function_call"]["arguments"]) == {"city": "Rome"}
        assert items["function_call_output"]["output"] == "21 degrees"


def test_a_text_completion_and_embeddings(backends, replay, unique):
    answer = backends.post("/v1/completions", {"model": "openai/any", "prompt": unique})
    assert answer.status == 200 and answer.json()["object"] == "text_completion", answer.text
    assert replay.of(unique)[0].path == "/openai/completions"
    answer = backends.post("/v1/embeddings", {"model": "openai/any", "input": ["one", unique]})
    assert answer.status == 200, answer.text
    assert [item["embedding"] for item in answer.json()["data"]] == [[0.0023064255, -0.009327292, 1.5e-05], [0.25, -1, 0.5]]
    assert answer.json()["usage"] == {"prompt_tokens": 8, "total_tokens": 8}


ERRORS = {
    "error-context": 400,
    "error-gateway": 502,
    "error-key": 502,
    "error-model": 404,
    "error-parameter": 400,
    "error-quota": 429,
    "error-rate": 429,
    "error-server": 502,
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", list(ERRORS))
def test_errors_have_the_status_that_a_client_is_to_see(backends, replay, api, model, stream):
    answer = backends.chat(f"{api}/{model}", stream=stream)
    assert answer.status == ERRORS[model], answer.text
    assert answer.error["message"] and answer.headers["content-type"].startswith("application/json")
    if model == "error-context":
        assert answer.error["code"] == "context_length_exceeded"
    if model == "error-rate":
        assert answer.headers["retry-after"] == "2"
    if model == "error-parameter":
        assert answer.error["param"] == "max_tokens"


def test_a_wrong_key_is_the_gateways_fault_not_the_clients(backends, replay):
    answer = backends.chat("openai-key/text")
    assert answer.status == 502 and "not-the-key" not in answer.text


BROKEN = ["openai/cut", "openai/error-in-stream", "openai/openrouter-error", "openai/text@reset"]
BROKEN += ["responses/cut", "responses/error", "responses/failed", "responses/text@reset"]


@pytest.mark.parametrize("model", BROKEN)
def test_a_stream_that_breaks_off_never_has_a_clean_end(backends, replay, model):
    assert broken(backends, model)["message"]


@pytest.mark.parametrize("model", ["openai/text@reset", "responses/text@reset", "responses/failed"])
def test_a_whole_answer_that_is_none_is_an_error(backends, replay, model):
    answer = backends.chat(model)
    assert answer.status in (502, 503) and answer.error["message"], answer.text


# --- the real llama-server, by its own /v1/chat/completions and /v1/responses ------------------------------------------


@pytest.mark.parametrize("provider", ["llama-openai", "llama-responses"])
def test_llama_server_answers_and_streams_alike(backends, unique, provider):
    options = {"max_tokens": 12, "temperature": 0}
    whole = backends.chat(f"{provider}/tiny", headers={"x-request-id": unique + "whole"}, **options)
    assert whole.status == 200, whole.text
    with backends.open_chat(f"{provider}/tiny", headers={"x-request-id": unique + "stream"}, **options) as wire:
        assert wire.head()[0] == 200
        events = list(kit.frames(wire))
    assert events[-1].data == "[DONE]" and content(events) == text_of(whole) != ""
    usage = whole.json()["usage"]
    counts = (usage["prompt_tokens"], usage["completion_tokens"])
    assert logged(backends, unique + "whole") == logged(backends, unique + "stream") == counts


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("provider", ["llama-openai", "llama-responses"])
def test_llama_server_calls_tools(backends, provider, stream):
    options = {"tools": [WEATHER], "tool_choice": "required", "max_tokens": 300, "temperature": 0}
    prompt = "what is the weather like"
    if stream:
        status, events = backends.stream(f"{provider}-tools/tools", prompt, **options)
        assert status == 200 and events[-1].data == "[DONE]"
        function = joined(events)[0]
    else:
        answer = backends.chat(f"{provider}-tools/tools", prompt, **options)
        assert answer.status == 200, answer.text
        function = answer.json()["choices"][0]["message"]["tool_calls"][0]["function"]
    assert function["name"] == "get_weather" and json.loads(function["arguments"])["city"] in ("Paris", "Rome")
