"""Errors of the backend: each with the right status, the backend's own words, and never a clean end for a broken answer."""

import openai
import pytest

import kit
import llama
from test_gateway import minimal
from test_streaming import chunks, content, memory

USER = [{"role": "user", "content": "hello"}]


def test_a_context_that_is_too_long_is_a_400(client, shape):
    long = [{"role": "user", "content": "the of and " * 1500}]
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as raised:
            for _ in client.chat.completions.create(model="tiny", messages=long, stream=stream):
                pass
        assert "context" in raised.value.message
        if shape != "direct":
            assert raised.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model="tiny", prompt="the of and " * 1500)


def test_what_the_backend_refuses_is_a_400_with_its_words(client):
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model="tiny", messages=USER, extra_body={"grammar": "this is no grammar ::= ["})
    assert "grammar" in raised.value.message


@pytest.mark.gateway_only
def test_a_backend_that_refuses_our_key_is_a_502(gateway):
    """A real llama-server says 401 to the gateway. To the client that is no 401: its own key was right."""
    for stream in (False, True):
        answer = gateway.chat("badkey/tiny", stream=stream)
        assert answer.status == 502 and answer.error["provider"] == "badkey"
        assert "not-the-key" not in answer.text


@pytest.mark.gateway_only
def test_a_backend_that_is_gone_is_a_502(gateway):
    with pytest.raises(openai.InternalServerError) as raised:
        gateway.client.chat.completions.create(model="gone/x", messages=USER)
    assert raised.value.status_code == 502 and '"gone"' in raised.value.message
    assert gateway.chat("gone/x", stream=True).status == 502


@pytest.mark.gateway_only
def test_a_backend_killed_in_mid_stream_is_an_error_and_no_clean_end(start, folder):
    """A real llama-server, killed by signal 9 between two tokens."""
    with llama.LlamaServer("slow", folder) as server:
        gateway = start(minimal(server.url))
        stream = gateway.client.chat.completions.create(model="tiny", messages=USER, stream=True)
        seen = 0
        with pytest.raises(openai.APIError) as raised:
            for chunk in stream:
                seen += bool(chunk.choices[0].delta.content)
                if seen == 5:
                    server.process.kill()
        assert seen >= 5 and not isinstance(raised.value, openai.APIConnectionError)
        # By hand: the error is the last event, and no [DONE] is there.
    with llama.LlamaServer("slow", folder, port=server.port) as server:
        with gateway.open_chat("tiny") as wire:
            wire.head()
            events = []
            for event in kit.frames(wire):
                events.append(event)
                if len(events) == 5:
                    server.process.kill()
        assert events[-1].json()["error"]["provider"] == "local"
        assert not any(event.data == "[DONE]" for event in events)
    assert gateway.chat("tiny").status == 502
    # One that comes back serves again.
    with llama.LlamaServer("slow", folder, port=server.port) as server:
        assert gateway.chat("tiny", max_tokens=2).status == 200


# From here on: the scripted double, for what a real llama-server does not show at will.


@pytest.mark.gateway_only
@pytest.mark.parametrize("script", ["cut", "early_end", "error_later"])
def test_an_answer_that_breaks_off_ends_with_an_error(gateway, script):
    status, events = gateway.stream(f"double/{script}")
    assert status == 200
    assert content(e for e in events if e.data and "error" not in e.json()) == "two words"
    error = events[-1].json()["error"]
    assert error["message"] and error["provider"] == "double"
    assert not any(event.data == "[DONE]" for event in events)
    assert "finish_reason" not in events[-1].data
    with pytest.raises(openai.APIError):
        for _ in gateway.client.chat.completions.create(model=f"double/{script}", messages=USER, stream=True):
            pass


@pytest.mark.gateway_only
def test_the_backends_words_come_through_in_mid_stream(gateway):
    _, events = gateway.stream("double/error_later")
    assert "the context was lost" in events[-1].json()["error"]["message"]


@pytest.mark.gateway_only
def test_an_error_inside_a_stream_before_its_first_token_is_a_status(gateway):
    """llama-server has said 200 by then; the gateway has not."""
    answer = gateway.chat("double/error_first", stream=True)
    assert answer.status == 502 and "the context was lost" in answer.error["message"]


@pytest.mark.gateway_only
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("script", ["garbage", "html", "not_http", "redirect", "no_choices"])
def test_an_answer_that_is_none_is_a_502(gateway, script, stream):
    answer = gateway.chat(f"double/{script}", stream=stream)
    assert answer.status == 502, answer.text
    assert answer.error["provider"] == "double"
    assert gateway.chat("double/ok").status == 200


@pytest.mark.gateway_only
def test_a_body_that_breaks_off_is_a_502(gateway):
    assert gateway.chat("double/cut").status == 502


@pytest.mark.gateway_only
def test_a_redirect_is_not_followed(gateway, double, unique):
    gateway.chat("double/redirect", unique)
    assert len(double.of(unique)) == 1


@pytest.mark.gateway_only
def test_a_limit_of_the_backend_is_a_429_with_its_time(gateway):
    answer = gateway.chat("double/limited")
    assert answer.status == 429 and answer.headers["retry-after"] == "7"
    with pytest.raises(openai.RateLimitError):
        gateway.client.chat.completions.create(model="double/limited", messages=USER)


@pytest.mark.gateway_only
def test_a_model_that_loads_is_a_503_with_retry_after(gateway):
    answer = gateway.chat("double/loading")
    assert answer.status == 503 and int(answer.headers["retry-after"]) >= 1
    assert "Loading model" in answer.error["message"]


@pytest.mark.gateway_only
@pytest.mark.parametrize("script", ["endless_line", "endless_body"])
def test_an_answer_without_end_is_bounded(gateway, script):
    before = memory(gateway.process.pid)
    answer = gateway.chat(f"double/{script}", stream=script == "endless_line", timeout=120)
    assert answer.status == 502, answer.text
    assert memory(gateway.process.pid) - before < 256 << 20
    assert gateway.chat("double/ok").status == 200


@pytest.mark.gateway_only
def test_crlf_comments_and_cuts_inside_characters_change_nothing(gateway):
    status, events = gateway.stream("double/crlf")
    assert status == 200 and content(events) == "grüße 日本" and events[-1].data == "[DONE]"
    assert chunks(events)[-1]["choices"][0]["finish_reason"] == "stop"
