"""The replayed APIs play well: the official clients understand them without a gateway, and they refuse what is wrong."""

import anthropic
import ollama
import openai
import pytest

import kit
from double import SECRET

pytestmark = [pytest.mark.gateway_only, pytest.mark.shapes("host")]
USER = [{"role": "user", "content": "hello"}]


def test_the_official_clients_understand_them(shape, replay):
    client = anthropic.Anthropic(api_key=SECRET, base_url=replay.url + "/anthropic", max_retries=0)
    assert client.messages.create(model="text", max_tokens=5, messages=USER).content[0].text == "Hi! Grüße 🦀"
    with client.messages.stream(model="tools@3", max_tokens=5, messages=USER) as stream:
        assert stream.get_final_message().stop_reason == "tool_use"
    client = openai.OpenAI(api_key=SECRET, base_url=replay.url + "/openai", max_retries=0)
    assert client.chat.completions.create(model="text", messages=USER).choices[0].message.content == "Hello!"
    assert client.responses.create(model="text", input="hello").output_text.startswith("Grüße")
    assert client.embeddings.create(model="any", input=["a", "b"]).data[1].embedding == [0.25, -1, 0.5]
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model="error-rate", messages=USER)
    client = ollama.Client(host=replay.url + "/ollama", headers={"authorization": f"Bearer {SECRET}"})
    assert client.chat(model="text", messages=USER).done
    assert [part.done for part in client.chat(model="text@2", messages=USER, stream=True)][-1]


WRONG = [
    ("/anthropic/v1/messages", {"messages": USER}),
    ("/anthropic/v1/messages", {"max_tokens": 5, "messages": USER, "seed": 1}),
    ("/anthropic/v1/messages", {"max_tokens": 5, "messages": [{"role": "system", "content": "x"}]}),
    ("/ollama/api/chat", {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}),
    ("/ollama/api/chat", {"messages": USER, "temperature": 1}),
    ("/openai/chat/completions", {"messages": USER, "stream_options": {"include_usage": True}}),
    ("/openai/chat/completions", {"messages": [{"role": "tool", "content": "x", "tool_call_id": "a"}]}),
    ("/openai/responses", {"messages": USER}),
    ("/openai/embeddings", {"prompt": "x"}),
]


@pytest.mark.parametrize(("path", "body"), WRONG)
def test_they_refuse_what_the_apis_refuse(shape, replay, path, body):
    headers = {"authorization": f"Bearer {SECRET}", "x-api-key": SECRET, "anthropic-version": "2023-06-01"}
    answer = kit.http("POST", replay.url + path, {"model": "text"} | body, headers)
    assert answer.status == 400 and len(replay.wrong()) == 1
    assert kit.http("POST", replay.url + path, {"model": "text"} | body).status == 401
