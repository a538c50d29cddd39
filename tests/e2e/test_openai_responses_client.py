"""The Responses API of the official `openai` package, unmodified, against several backends."""

import json

import openai
import pytest

from test_chat import Weather

pytestmark = pytest.mark.gateway_only

TEXTS = ["tiny", "claude", "openai/text", "responses/text", "anthropic/text", "ollama/text", "llama-responses/tiny"]
TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather at a place",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


@pytest.fixture
def client(backends, replay, aws):
    return backends.client


@pytest.mark.parametrize("model", TEXTS)
def test_create(client, model):
    answer = client.responses.create(model=model, input="hello", instructions="Be brief.", max_output_tokens=20, store=False)
    assert answer.status in ("completed", "incomplete") and answer.output_text
    assert answer.id.startswith("resp_") and answer.output[-1].role == "assistant"
    usage = answer.usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens > 0


@pytest.mark.parametrize("model", TEXTS)
def test_stream(client, model):
    """The events that the client's own types know, in their order, and what they add up to."""
    events = list(client.responses.create(model=model, input="hello", max_output_tokens=20, store=False, stream=True))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] in ("response.completed", "response.incomplete")
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert events[-1].response.output_text == text != ""
    assert events[-1].response.usage.output_tokens > 0


@pytest.mark.parametrize("model", ["claude", "openai/text", "responses/text", "tiny"])
def test_the_clients_own_accumulator(client, model):
    with client.responses.stream(model=model, input="hello", max_output_tokens=20, store=False) as stream:
        events = list(stream)
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        # A real model may go on until it has had its 20 tokens: then the client has nothing final.
        last = events[-1]
        final = stream.get_final_response() if last.type == "response.completed" else last.response
    assert last.type in ("response.completed", "response.incomplete")
    assert final.output_text == text != ""


def test_a_tool_is_called_and_its_result_is_taken(client, aws, unique):
    aws.on(unique, say={"calls": [["#0", {"city": "Rome"}]]})
    question = {"role": "user", "content": f"what is the weather like {unique}"}
    options = {"model": "claude", "tools": [TOOL], "store": False}
    first = client.responses.create(input=[question], tool_choice="required", **options)
    call = next(item for item in first.output if item.type == "function_call")
    assert call.name == "get_weather" and json.loads(call.arguments) == {"city": "Rome"}
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "21 degrees"}
    # The client's own objects go back as they are.
    second = client.responses.create(input=[question, *first.output, result], **options)
    assert second.status == "completed"


def test_a_streamed_call_is_put_together_by_the_client(client):
    options = {"tools": [TOOL], "tool_choice": "required", "max_output_tokens": 300, "store": False}
    with client.responses.stream(model="tools", input="what is the weather like", **options) as stream:
        done = [event for event in stream if event.type == "response.function_call_arguments.done"]
        final = stream.get_final_response()
    call = next(item for item in final.output if item.type == "function_call")
    assert done[0].arguments == call.arguments and json.loads(call.arguments)["city"] in ("Paris", "Rome")


@pytest.mark.parametrize("model", ["tiny", "llama-openai/tiny"])
def test_parse_gives_an_object(client, model):
    options = {"model": model, "input": "hello", "text_format": Weather, "max_output_tokens": 400, "store": False}
    assert isinstance(client.responses.parse(**options).output_parsed, Weather)
    with client.responses.stream(**options) as stream:
        final = stream.get_final_response()
    assert isinstance(final.output_parsed, Weather)


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_is_kept_asked_for_gone_on_with_and_deleted(client, stream):
    made = client.responses.create(model="tiny", input="hello", max_output_tokens=20, stream=stream)
    if stream:
        *_, last = made
        made = last.response
    again = client.responses.retrieve(made.id)
    assert (again.id, again.output_text, again.status) == (made.id, made.output_text, made.status)
    items = client.responses.input_items.list(made.id)
    assert [item.content[0].text for item in items] == ["hello"]
    on = client.responses.create(model="tiny", input="and?", previous_response_id=made.id, max_output_tokens=20)
    assert on.previous_response_id == made.id
    # Three items are in front of this answer: it takes two pages to read them.
    pages = client.responses.input_items.list(on.id, limit=2, order="asc")
    assert pages.has_more
    assert [item.role for item in pages] == ["user", "assistant", "user"]
    newest = client.responses.input_items.list(on.id, limit=1)
    assert newest.data[0].content[0].text == "and?"
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    client.responses.delete(on.id)


def test_a_kept_response_is_streamed_again(client):
    made = client.responses.create(model="tiny", input="hello", max_output_tokens=20)
    events = list(client.responses.retrieve(made.id, stream=True))
    assert events[0].type == "response.created" and events[-1].response.output_text == made.output_text
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == made.output_text
    rest = list(client.responses.retrieve(made.id, stream=True, starting_after=3))
    assert [event.sequence_number for event in rest] == [event.sequence_number for event in events[4:]]
    with pytest.raises(openai.BadRequestError):
        client.responses.retrieve(made.id, include=["secrets"])


def test_what_is_kept_for_one_client_no_other_one_finds(client, backends):
    made = client.responses.create(model="tiny", input="hello", max_output_tokens=5)
    with pytest.raises(openai.AuthenticationError):
        backends.client_with(api_key="not-the-key").responses.retrieve(made.id)


FAILURES = {
    "nobody": openai.NotFoundError,
    "openai/error-rate": openai.RateLimitError,
    "anthropic/error-400": openai.BadRequestError,
    "anthropic/error-529": openai.InternalServerError,
}


@pytest.mark.parametrize("model", list(FAILURES))
def test_failures_are_the_clients_own_exceptions(client, model):
    with pytest.raises(openai.APIStatusError) as raised:
        client.responses.create(model=model, input="hello")
    assert type(raised.value) is FAILURES[model] and raised.value.body["message"]


def test_a_response_that_is_not_there_is_a_not_found_error(client):
    for ask in (client.responses.retrieve, client.responses.delete, client.responses.input_items.list):
        with pytest.raises(openai.NotFoundError):
            ask("resp_none")


@pytest.mark.parametrize("model", ["anthropic/cut", "ollama/cut", "openai/cut", "responses/cut"])
def test_a_stream_that_breaks_off_fails(client, model):
    """The client gives the failure as events, and never a clean end."""
    events = list(client.responses.create(model=model, input="hello", stream=True))
    assert [event.type for event in events[-2:]] == ["error", "response.failed"]
    assert events[-2].message and events[-1].response.error.message and events[-1].response.status == "failed"
    assert not any(event.type in ("response.completed", "response.incomplete") for event in events)
