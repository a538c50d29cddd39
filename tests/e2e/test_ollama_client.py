"""The official `ollama` package, unmodified, against several backends."""

import ollama
import pytest

from test_chat import WEATHER, Weather

pytestmark = pytest.mark.gateway_only

CHATS = ["tiny", "claude", "ollama/text", "openai/text", "anthropic/text"]
USER = [{"role": "user", "content": "hello"}]
SHORT = {"num_predict": 20, "temperature": 0}


@pytest.fixture
def client(backends, replay, aws):
    return ollama.Client(host=backends.url, headers={"authorization": f"Bearer {backends.key}"}, timeout=60.0)


@pytest.mark.parametrize("model", CHATS)
def test_chat(client, model):
    answer = client.chat(model=model, messages=USER, options=SHORT)
    assert answer.done and answer.message.role == "assistant" and answer.message.content
    assert answer.done_reason in ("stop", "length") and answer.eval_count > 0 and answer.prompt_eval_count > 0


@pytest.mark.parametrize("model", CHATS)
def test_chat_streamed(client, model):
    parts = list(client.chat(model=model, messages=USER, options=SHORT, stream=True))
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert "".join(part.message.content or "" for part in parts)
    assert parts[-1].done_reason in ("stop", "length") and parts[-1].eval_count > 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["tiny", "claude", "ollama", "openai/text"])
def test_generate(client, model, stream):
    if model == "ollama":
        model = "ollama/raw" if stream else "ollama/context"
    if stream:
        parts = list(client.generate(model=model, prompt="hello", options=SHORT, stream=True))
        assert parts[-1].done and "".join(part.response for part in parts)
    else:
        answer = client.generate(model=model, prompt="hello", system="be kind", options=SHORT)
        assert answer.done and answer.response and answer.eval_count > 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["claude", "ollama/tools"])
def test_tools(client, aws, unique, model, stream):
    aws.on(unique, say={"calls": [["#0", {"city": "Paris"}]]})
    question = {"role": "user", "content": unique}
    if stream:
        parts = list(client.chat(model=model, messages=[question], tools=[WEATHER], stream=True))
        calls = [call for part in parts for call in part.message.tool_calls or []]
    else:
        calls = client.chat(model=model, messages=[question], tools=[WEATHER]).message.tool_calls
    assert calls[0].function.name == "get_weather" and calls[0].function.arguments["city"] == "Paris"
    turn = {"role": "assistant", "tool_calls": [calls[0].model_dump()]}
    result = {"role": "tool", "tool_name": "get_weather", "content": "21 degrees"}
    after = {"claude": "claude", "ollama/tools": "ollama/text"}[model]
    assert client.chat(model=after, messages=[question, turn, result], tools=[WEATHER]).done


def test_a_schema_shapes_the_answer(client):
    options = {"num_predict": 400}
    answer = client.chat(model="tiny", messages=USER, format=Weather.model_json_schema(), options=options)
    assert Weather.model_validate_json(answer.message.content)


@pytest.mark.parametrize("model", ["ollama/thinking", "anthropic/thinking"])
def test_thoughts_stand_apart(client, model):
    answer = client.chat(model=model, messages=USER)
    assert answer.message.thinking and answer.message.content
    parts = list(client.chat(model=model, messages=USER, stream=True))
    assert "".join(part.message.thinking or "" for part in parts) and "".join(part.message.content or "" for part in parts)


@pytest.mark.parametrize("model", ["embedder", "ollama/any", "openai/any"])
def test_embed(client, model):
    answer = client.embed(model=model, input=["hello", "world"])
    assert len(answer.embeddings) == 2 and all(len(vector) >= 3 for vector in answer.embeddings)


def test_embeddings_of_one_text(client):
    assert len(client.embeddings(model="embedder", prompt="hello").embedding) > 3


def test_list_show_and_running(client):
    names = [model.model for model in client.list().models]
    assert any(name.startswith("tiny") for name in names) and any("llama3.2" in name for name in names)
    assert client.show("claude").capabilities
    client.ps()
    with pytest.raises(ollama.ResponseError) as raised:
        client.show("nobody")
    assert raised.value.status_code == 404


def test_version(backends):
    answer = backends.http("GET", "/api/version")
    assert answer.status == 200 and answer.json()["version"][0].isdecimal()


FAILURES = {"nobody": 404, "ollama/error-context": 400, "anthropic/error-429": 429, "openai/error-server": 502}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", list(FAILURES))
def test_failures_are_the_clients_own_exceptions(client, model, stream):
    with pytest.raises(ollama.ResponseError) as raised:
        list(client.chat(model=model, messages=USER, stream=stream))
    assert raised.value.status_code == FAILURES[model] and raised.value.error


@pytest.mark.parametrize("model", ["anthropic/cut", "ollama/cut", "openai/cut"])
def test_a_stream_that_breaks_off_raises(client, model):
    with pytest.raises(ollama.ResponseError):
        list(client.chat(model=model, messages=USER, stream=True))
