"""Ollama's API behind the gateway, replayed from fixtures."""

import json

import pytest

from test_anthropic import FORECAST, broken, logged
from test_bedrock import joined, text_of
from test_chat import WEATHER
from test_streaming import chunks, content

pytestmark = pytest.mark.gateway_only


def test_text(backends, replay, unique):
    answer = backends.chat("ollama/text", unique, max_tokens=50, temperature=0.5, stop=["x"])
    assert answer.status == 200, answer.text
    assert text_of(answer) and answer.json()["choices"][0]["finish_reason"] == "stop"
    assert answer.json()["usage"]["prompt_tokens"] == 26
    (seen,) = replay.of(unique)
    assert seen.path == "/ollama/api/chat" and seen.json["stream"] is False
    assert seen.json["messages"] == [{"role": "user", "content": unique}]
    assert seen.json["options"] == {"num_predict": 50, "temperature": 0.5, "stop": ["x"]}


@pytest.mark.parametrize("manner", ["", "@1", "@5", "@64"])
def test_a_stream_is_the_same_however_the_network_divides_it(backends, replay, manner):
    status, events = backends.stream(f"ollama/text{manner}", stream_options={"include_usage": True})
    assert status == 200 and events[-1].data == "[DONE]" and content(events) == "The sky is blue."
    found = chunks(events)
    reasons = [choice["finish_reason"] for chunk in found for choice in chunk["choices"]]
    assert reasons[-1] == "stop" and not any(reasons[:-1])
    assert found[-1]["usage"] == {"prompt_tokens": 26, "completion_tokens": 7, "total_tokens": 33}


def test_the_log_counts_the_same_for_a_stream_and_a_whole_answer(backends, replay, unique):
    for name, stream in (("whole", False), ("stream", True)):
        with backends.open_chat("ollama/text", unique, stream, {"x-request-id": unique + name}) as wire:
            wire.answer()
    assert logged(backends, unique + "whole") == logged(backends, unique + "stream") == (26, 7)


@pytest.mark.parametrize("stream", [False, True])
def test_tools(backends, replay, unique, stream):
    more = {"tools": [WEATHER, FORECAST]}
    if stream:
        status, events = backends.stream("ollama/tools@7", unique, **more)
        assert status == 200 and events[-1].data == "[DONE]"
        calls = [(call["name"], json.loads(call["arguments"])) for call in joined(events)]
        assert chunks(events)[-1]["choices"][0]["finish_reason"] == "tool_calls"
    else:
        (choice,) = backends.chat("ollama/tools", unique, **more).json()["choices"]
        assert choice["finish_reason"] == "tool_calls"
        calls = [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in choice["message"]["tool_calls"]]
    assert calls == [("get_weather", {"city": "Paris", "units": "°C"}), ("get_time", {})]
    (seen,) = replay.of(unique)
    assert [tool["function"]["name"] for tool in seen.json["tools"]] == ["get_weather", "now"]


def test_results_of_tools_go_back_in_ollamas_form(backends, replay, unique):
    call = {"id": "call_a", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Rome"}'}}
    messages = [
        {"role": "user", "content": unique},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_a", "content": "21 degrees"},
    ]
    body = {"model": "ollama/text", "messages": messages, "tools": [WEATHER]}
    assert backends.post("/v1/chat/completions", body).status == 200
    (seen,) = replay.of(unique)
    _, turn, result = seen.json["messages"]
    assert turn["tool_calls"][0]["function"]["arguments"] == {"city": "Rome"}
    assert result["content"] == "21 degrees" and "get_weather" in (result.get("tool_name"), "get_weather")


def test_a_schema_becomes_the_format(backends, replay, unique):
    schema = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    assert backends.chat("ollama/text", unique, response_format=form).status == 200
    (seen,) = replay.of(unique)
    assert seen.json["format"] == schema


def test_embeddings(backends, replay, unique):
    body = {"model": "ollama/all-minilm", "input": [unique, "other"]}
    answer = backends.post("/v1/embeddings", body)
    assert answer.status == 200, answer.text
    value = answer.json()
    assert [item["embedding"] for item in value["data"]] == [[0.010071029, -0.0017594862, 1e-07], [-0.0098027, 0.06042469, 0]]
    assert value["usage"]["prompt_tokens"] == 8
    (seen,) = replay.of(unique)
    assert seen.path == "/ollama/api/embed" and seen.json["input"] == [unique, "other"]


def test_what_cannot_be_done_is_refused_before_it_is_sent(backends, replay, unique):
    answer = backends.chat("ollama/text", unique, logit_bias={"3": 1})
    assert answer.status == 400 and answer.error["param"] == "logit_bias", answer.text
    assert not replay.of(unique)


ERRORS = {
    "error-busy": 503,
    "error-model": 404,
    "error-model-pull": 404,
    "error-no-tools": 400,
    "error-context": 400,
    "error-invalid": 400,
    "error-memory": 503,
    "error-runner": 502,
    "error-unauthorized": 502,
    "error-host": 502,
    "error-proxy": 502,
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", list(ERRORS))
def test_errors_have_the_status_that_a_client_is_to_see(backends, replay, model, stream):
    answer = backends.chat(f"ollama/{model}", stream=stream)
    assert answer.status == ERRORS[model], answer.text
    assert answer.error["message"] and answer.headers["content-type"].startswith("application/json")
    if model == "error-context":
        assert answer.error["code"] == "context_length_exceeded"


@pytest.mark.parametrize("model", ["cut", "cut-line", "not-json", "error-later", "error-object", "text@reset"])
def test_a_stream_that_breaks_off_never_has_a_clean_end(backends, replay, model):
    assert broken(backends, f"ollama/{model}")["message"]


@pytest.mark.parametrize("model", ["text@reset", "empty", "html", "error-200", "not-done"])
def test_a_whole_answer_that_cannot_be_read_is_an_error(backends, replay, model):
    answer = backends.chat(f"ollama/{model}")
    assert answer.status in (502, 503) and answer.error["message"], answer.text
