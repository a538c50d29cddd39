"""The official `anthropic` package, unmodified, against several backends."""

import anthropic
import pytest

from test_chat import Weather

pytestmark = pytest.mark.gateway_only

CHATS = ["tiny", "claude", "anthropic/text", "llama-messages/tiny", "openai/text", "responses/text", "ollama/text"]
USER = [{"role": "user", "content": "hello"}]
# The client's current version has no argument for it.
FIXED = {"temperature": 0}
WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
        "required": ["city"],
    },
}


@pytest.fixture
def client(backends, replay, aws):
    with anthropic.Anthropic(api_key=backends.key, base_url=backends.url, max_retries=0, timeout=60.0) as client:
        yield client


@pytest.mark.parametrize("model", CHATS)
def test_messages(client, model):
    answer = client.messages.create(model=model, max_tokens=20, messages=USER, extra_body=FIXED, system="be kind")
    assert answer.type == "message" and answer.role == "assistant" and answer.id
    assert "".join(block.text for block in answer.content if block.type == "text")
    assert answer.stop_reason in ("end_turn", "max_tokens")
    assert answer.usage.input_tokens > 0 and answer.usage.output_tokens > 0


@pytest.mark.parametrize("model", CHATS)
def test_the_clients_own_accumulator_has_the_whole_message(client, model):
    with client.messages.stream(model=model, max_tokens=20, messages=USER, extra_body=FIXED) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text and "".join(block.text for block in final.content if block.type == "text") == text
    assert final.stop_reason in ("end_turn", "max_tokens") and final.usage.output_tokens > 0


@pytest.mark.parametrize("model", CHATS)
def test_the_events_come_in_anthropics_order(client, model):
    events = list(client.messages.create(model=model, max_tokens=20, messages=USER, extra_body=FIXED, stream=True))
    names = [event.type for event in events]
    assert names[0] == "message_start" and names[-2:] == ["message_delta", "message_stop"]
    assert names.count("content_block_start") == names.count("content_block_stop") > 0
    assert "content_block_delta" in names


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["tools", "claude", "llama-messages-tools/tools", "llama-responses-tools/tools"])
def test_a_tool_is_called_and_its_result_is_taken(client, aws, unique, model, stream):
    aws.on(unique, say={"calls": [["#0", {"city": "Rome"}]]})
    question = {"role": "user", "content": f"what is the weather like {unique if model == 'claude' else ''}"}
    options = {"model": model, "max_tokens": 300, "tools": [WEATHER], "tool_choice": {"type": "any"}}
    if stream:
        with client.messages.stream(messages=[question], **options) as events:
            answer = events.get_final_message()
    else:
        answer = client.messages.create(messages=[question], **options)
    assert answer.stop_reason == "tool_use"
    use = next(block for block in answer.content if block.type == "tool_use")
    assert use.name == "get_weather" and use.input["city"] in ("Paris", "Rome")
    turn = {"role": "assistant", "content": [{"type": "tool_use", "id": use.id, "name": use.name, "input": use.input}]}
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "21 degrees"}
    messages = [question, turn, {"role": "user", "content": [result]}]
    # llama-server cannot leave this small model the choice; Bedrock wants the tools of the calls that it is told of.
    options = {"tools": [WEATHER]} if model == "claude" else {}
    second = client.messages.create(model=model, max_tokens=20, messages=messages, **options)
    assert second.stop_reason in ("end_turn", "max_tokens", "tool_use")


@pytest.mark.parametrize("model", ["claude", "anthropic/any", "llama-messages/tiny"])
def test_count_tokens(client, model):
    assert client.messages.count_tokens(model=model, messages=USER).input_tokens > 0


def test_count_tokens_is_refused_where_the_backend_cannot_count(client):
    with pytest.raises(anthropic.BadRequestError):
        client.messages.count_tokens(model="openai/any", messages=USER)


def test_models(client):
    names = [model.id for model in client.models.list(limit=1000)]
    assert {"tiny", "claude", "anthropic/claude-opus-4-6"} <= set(names)
    model = client.models.retrieve("claude")
    assert model.id == "claude" and model.type == "model"


FAILURES = {
    "nobody": anthropic.NotFoundError,
    "anthropic/error-400": anthropic.BadRequestError,
    "anthropic/error-413": anthropic.RequestTooLargeError,
    "anthropic/error-429": anthropic.RateLimitError,
    "openai/error-rate": anthropic.RateLimitError,
    "anthropic/error-529": anthropic.APIStatusError,
    "ollama/error-model": anthropic.NotFoundError,
    "anthropic-key/text": anthropic.InternalServerError,
}


@pytest.mark.parametrize("model", list(FAILURES))
def test_failures_are_the_clients_own_exceptions(client, model):
    with pytest.raises(anthropic.APIStatusError) as raised:
        client.messages.create(model=model, max_tokens=20, messages=USER, extra_body=FIXED)
    assert isinstance(raised.value, FAILURES[model]), (raised.value, raised.value.status_code)
    assert raised.value.body["type"] == "error" and raised.value.body["error"]["message"]


def test_a_wrong_key_is_an_authentication_error(client):
    with pytest.raises(anthropic.AuthenticationError):
        client.with_options(api_key="not-the-key").messages.create(model="tiny", max_tokens=2, messages=USER)


@pytest.mark.parametrize("model", ["anthropic/cut", "ollama/cut", "openai/cut", "responses/cut", "anthropic/error"])
def test_a_stream_that_breaks_off_raises(client, model):
    with pytest.raises(anthropic.APIError):
        with client.messages.stream(model=model, max_tokens=20, messages=USER, extra_body=FIXED) as stream:
            stream.get_final_message()


@pytest.mark.parametrize("stream", [False, True])
def test_thoughts_and_counts_of_the_cache_arrive_as_anthropic_sent_them(client, stream):
    def ask(model):
        options = {"model": model, "max_tokens": 2000, "messages": USER}
        if not stream:
            return client.messages.create(**options)
        with client.messages.stream(**options) as events:
            return events.get_final_message()

    thoughts = [block for block in ask("anthropic/thinking").content if block.type == "thinking"]
    assert thoughts[0].thinking and thoughts[0].signature
    usage = ask("anthropic/cache").usage
    assert usage.cache_read_input_tokens > 0 and usage.cache_creation_input_tokens is not None


def test_parse_gives_an_object(client, aws, unique):
    answer = client.messages.parse(model="tiny", max_tokens=400, messages=USER, output_format=Weather)
    assert isinstance(answer.parsed_output, Weather)
    aws.on(unique, say={"text": '{"city": "Rome", "sunny": true}'})
    question = [{"role": "user", "content": unique}]
    answer = client.messages.parse(model="claude", max_tokens=400, messages=question, output_format=Weather)
    assert answer.parsed_output == Weather(city="Rome", sunny=True)
