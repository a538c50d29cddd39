"""The official `openai` package, unmodified, against several backends."""

import json

import openai
import pytest

from test_chat import WEATHER, Weather

pytestmark = pytest.mark.gateway_only

# llama-server itself, AWS as it is played, and the APIs that are replayed.
CHATS = ["tiny", "claude", "openai/text", "responses/text", "anthropic/text", "ollama/text", "llama-messages/tiny"]
USER = [{"role": "user", "content": "hello"}]


@pytest.fixture
def client(backends, replay, aws):
    return backends.client


@pytest.mark.parametrize("model", CHATS)
def test_chat(client, model):
    answer = client.chat.completions.create(model=model, messages=USER, max_tokens=20, temperature=0)
    assert answer.choices[0].message.role == "assistant" and answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0


@pytest.mark.parametrize("model", CHATS)
def test_stream(client, model):
    options = {"stream": True, "max_tokens": 20, "temperature": 0, "stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(model=model, messages=USER, **options))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]
    assert chunks[-1].usage.completion_tokens > 0


@pytest.mark.parametrize("model", ["claude", "openai/text", "responses/text"])
def test_the_clients_own_accumulator(client, model):
    with client.chat.completions.stream(model=model, messages=USER, max_tokens=20, temperature=0) as stream:
        text = "".join(event.delta for event in stream if event.type == "content.delta")
        final = stream.get_final_completion()
    assert final.choices[0].message.content == text != ""


CALLERS = ["tools", "claude", "llama-responses-tools/tools", "llama-messages-tools/tools"]


@pytest.mark.parametrize("model", CALLERS)
def test_a_tool_is_called_and_its_result_is_taken(client, aws, unique, model):
    aws.on(unique, say={"calls": [["#0", {"city": "Rome"}]]})
    question = {"role": "user", "content": f"what is the weather like {unique if model == 'claude' else ''}"}
    options = {"tools": [WEATHER], "max_tokens": 300}
    answer = client.chat.completions.create(model=model, messages=[question], tool_choice="required", **options)
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    call = choice.message.tool_calls[0]
    assert call.function.name == "get_weather" and json.loads(call.function.arguments)["city"] in ("Paris", "Rome")
    choice.message.tool_calls = [call]
    turn = choice.message.model_dump(exclude_none=True)
    result = {"role": "tool", "tool_call_id": call.id, "content": "21 degrees"}
    # llama-server cannot leave this small model the choice.
    options = {} if model == "claude" else {"tool_choice": "none"}
    if model == "llama-messages-tools/tools":
        # By its /v1/messages, not even where the choice is none.
        return
    messages = [question, turn, result]
    second = client.chat.completions.create(model=model, messages=messages, tools=[WEATHER], max_tokens=20, **options)
    assert second.choices[0].finish_reason in ("stop", "length", "tool_calls")


@pytest.mark.parametrize("model", ["tools", "llama-messages-tools/tools"])
def test_a_streamed_call_is_put_together_by_the_client(client, model):
    options = {"tools": [WEATHER], "tool_choice": "required", "max_tokens": 300}
    question = [{"role": "user", "content": "what is the weather like"}]
    with client.chat.completions.stream(model=model, messages=question, **options) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        final = stream.get_final_completion()
    assert done[0].name == "get_weather" and json.loads(done[0].arguments)["city"] in ("Paris", "Rome")
    assert final.choices[0].message.tool_calls[0].function.arguments == done[0].arguments


@pytest.mark.parametrize("model", ["tiny", "llama-openai/tiny", "llama-messages-tools/tools"])
def test_parse_gives_an_object(client, model):
    answer = client.chat.completions.parse(model=model, messages=USER, response_format=Weather, max_tokens=400)
    assert isinstance(answer.choices[0].message.parsed, Weather)
    with client.chat.completions.stream(model=model, messages=USER, response_format=Weather, max_tokens=400) as stream:
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Weather)


def test_parse_on_bedrock(client, aws, unique):
    aws.on(unique, say={"text": '{"city": "Rome", "sunny": true}'})
    question = [{"role": "user", "content": unique}]
    answer = client.chat.completions.parse(model="claude", messages=question, response_format=Weather, max_tokens=400)
    assert answer.choices[0].message.parsed == Weather(city="Rome", sunny=True)


@pytest.mark.parametrize("stream", [False, True])
def test_a_schema_is_had_of_claude_by_a_tool(client, stream):
    """Where its API has no structured output; the answer is text all the same."""
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object", "properties": {}}}}
    options = {"model": "anthropic/json-answer", "messages": USER, "response_format": form}
    if stream:
        chunks = client.chat.completions.create(stream=True, **options)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    else:
        text = client.chat.completions.create(**options).choices[0].message.content
    assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize(("model", "texts"), [("embedder", 2), ("titan", 1), ("openai/any", 2), ("ollama/any", 2)])
@pytest.mark.parametrize("form", [None, "float"])
def test_embeddings(client, model, texts, form):
    """The client asks for base64 where it is not told otherwise, and decodes it."""
    options = {"encoding_format": form} if form else {}
    answer = client.embeddings.create(model=model, input=["hello", "world"][:texts], **options)
    assert len(answer.data) == texts and [item.index for item in answer.data] == list(range(texts))
    for item in answer.data:
        assert len(item.embedding) >= 3 and all(isinstance(value, float | int) for value in item.embedding)
    assert answer.usage.prompt_tokens > 0


@pytest.mark.parametrize("model", ["tiny", "openai/any"])
def test_text_completions(client, model):
    assert client.completions.create(model=model, prompt="hello", max_tokens=5).choices[0].text is not None


def test_models(client):
    names = [model.id for model in client.models.list()]
    assert {"tiny", "claude", "openai/gpt-5.1", "ollama/llama3.2:latest", "anthropic/claude-opus-4-6"} <= set(names)
    assert client.models.retrieve("claude").id == "claude"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")


FAILURES = {
    "nobody": openai.NotFoundError,
    "openai/error-rate": openai.RateLimitError,
    "anthropic/error-429": openai.RateLimitError,
    "anthropic/error-400": openai.BadRequestError,
    "ollama/error-context": openai.BadRequestError,
    "anthropic/error-529": openai.InternalServerError,
    "openai-key/text": openai.InternalServerError,
}


@pytest.mark.parametrize("model", list(FAILURES))
def test_failures_are_the_clients_own_exceptions(client, model):
    with pytest.raises(openai.APIStatusError) as raised:
        client.chat.completions.create(model=model, messages=USER)
    assert type(raised.value) is FAILURES[model] and raised.value.body["message"]


def test_a_wrong_key_is_an_authentication_error(backends):
    with pytest.raises(openai.AuthenticationError):
        backends.client_with(api_key="not-the-key").chat.completions.create(model="tiny", messages=USER)


@pytest.mark.parametrize("model", ["anthropic/cut", "ollama/cut", "openai/cut", "responses/cut"])
def test_a_stream_that_breaks_off_raises(client, model):
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(model=model, messages=USER, stream=True))
