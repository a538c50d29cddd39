"""Chat, not streamed, through the official client: what a client asks for, and what llama-server makes of it."""

import json
import typing

import openai
import pydantic
import pytest

USER = [{"role": "user", "content": "hello"}]
# llama-server would else answer from what is left of an earlier prompt, which may round differently.
FRESH = {"cache_prompt": False}
# A random model may end its turn at once; this keeps it going up to `max_tokens`.
LONG = FRESH | {"ignore_eos": True}

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"],
        },
    },
}


def test_text(client):
    answer = client.chat.completions.create(model="tiny", messages=USER)
    assert answer.object == "chat.completion" and answer.id and answer.created > 1_500_000_000
    (choice,) = answer.choices
    assert choice.index == 0 and choice.finish_reason == "stop"
    assert choice.message.role == "assistant" and choice.message.content.strip()
    assert answer.usage.prompt_tokens > 5 and answer.usage.completion_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_multi_turn_and_system_prompt_reach_the_model(client):
    def tokens(messages):
        options = {"max_tokens": 1, "extra_body": FRESH}
        return client.chat.completions.create(model="tiny", messages=messages, **options).usage.prompt_tokens

    one = tokens(USER)
    system = tokens([{"role": "system", "content": "be kind"}, *USER])
    turns = tokens(
        [
            {"role": "system", "content": "be kind"},
            *USER,
            {"role": "assistant", "content": "what is it"},
            {"role": "user", "content": [{"type": "text", "text": "my name"}, {"type": "text", "text": "is Anna"}]},
        ]
    )
    assert one < system < turns


def test_the_same_seed_gives_the_same_text_and_another_seed_another(client):
    def text(seed):
        options = {"seed": seed, "temperature": 1.5, "max_tokens": 24, "extra_body": FRESH}
        return client.chat.completions.create(model="tiny", messages=USER, **options).choices[0].message.content

    assert text(7) == text(7)
    assert len({text(seed) for seed in range(5)}) > 1


def test_sampling_reaches_the_model(client):
    """With `top_k: 1` every seed gives the most likely text."""

    def text(seed, **more):
        options = {"seed": seed, "temperature": 1.5, "max_tokens": 24, "extra_body": FRESH | more}
        return client.chat.completions.create(model="tiny", messages=USER, **options).choices[0].message.content

    assert len({text(seed, top_k=1) for seed in range(4)}) == 1


def test_max_tokens_ends_with_length(client):
    for name in ("max_tokens", "max_completion_tokens"):
        answer = client.chat.completions.create(model="tiny", messages=USER, extra_body=LONG, **{name: 3})
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage.completion_tokens == 3


def test_stop_ends_the_text_in_front_of_it(client):
    options = {"temperature": 0, "seed": 1, "max_tokens": 40, "extra_body": LONG}
    full = client.chat.completions.create(model="tiny", messages=USER, **options).choices[0].message.content
    middle = full[len(full) // 2 : len(full) // 2 + 2]
    for stop in (middle, [middle, "never in there"]):
        answer = client.chat.completions.create(model="tiny", messages=USER, stop=stop, **options)
        assert answer.choices[0].finish_reason == "stop"
        assert answer.choices[0].message.content == full.partition(middle)[0]


def test_logprobs(client):
    answer = client.chat.completions.create(
        model="tiny", messages=USER, max_tokens=4, logprobs=True, top_logprobs=3, temperature=0, extra_body=LONG
    )
    content = answer.choices[0].logprobs.content
    assert len(content) == 4
    assert "".join(token.token for token in content) == answer.choices[0].message.content
    for token in content:
        assert token.logprob <= 0 and len(token.top_logprobs) == 3 and token.bytes


def test_logit_bias_reaches_the_model(client):
    """A bias of 100 on one token makes it the only one."""

    def text(bias):
        options = {"max_tokens": 3, "temperature": 0, "logit_bias": bias, "extra_body": LONG}
        return client.chat.completions.create(model="tiny", messages=USER, **options).choices[0].message.content

    one, other = text({"300": 100}), text({"301": 100})
    assert one != other and len(one) == len(other) == 3 and len(set(one)) == len(set(other)) == 1


def test_two_choices(client):
    answer = client.chat.completions.create(model="tiny", messages=USER, n=2, temperature=1.5, max_tokens=8)
    assert sorted(choice.index for choice in answer.choices) == [0, 1]
    for choice in answer.choices:
        assert choice.finish_reason in ("stop", "length") and choice.message.content is not None


def test_more_choices_than_the_backend_can_make_are_a_400(client):
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model="tiny", messages=USER, n=50, max_tokens=2)
    assert "n" in str(raised.value)


def test_a_tool_is_called_and_its_result_is_taken(tools_gateway):
    client = tools_gateway.client
    question = {"role": "user", "content": "what is the weather like"}
    options = {"tools": [WEATHER], "parallel_tool_calls": False, "max_tokens": 300, "seed": 3, "temperature": 0}
    answer = client.chat.completions.create(model="tools", messages=[question], tool_choice="required", **options)
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert call.type == "function" and call.id and call.function.name == "get_weather"
    assert json.loads(call.function.arguments)["city"] in ("Paris", "Rome")

    turn = choice.message.model_dump(exclude_none=True)
    result = {"role": "tool", "tool_call_id": call.id, "content": '{"degrees": 21}'}
    second = client.chat.completions.create(model="tools", messages=[question, turn, result], max_tokens=20)
    assert second.choices[0].finish_reason in ("stop", "length")
    # The call and its result are part of the prompt.
    alone = client.chat.completions.create(model="tools", messages=[question], max_tokens=20)
    assert second.usage.prompt_tokens > alone.usage.prompt_tokens + 40


def test_no_tool_is_called_where_the_choice_is_none(tools_gateway):
    answer = tools_gateway.client.chat.completions.create(
        model="tools", messages=USER, tools=[WEATHER], tool_choice="none", max_tokens=30
    )
    assert not answer.choices[0].message.tool_calls


class Weather(pydantic.BaseModel):
    """A closed form: a random model would else fill a string without end."""

    city: typing.Literal["Paris", "Rome"]
    sunny: bool


def test_a_json_schema_shapes_the_answer(client):
    options = {"max_tokens": 400, "seed": 1, "temperature": 0.8}
    answer = client.chat.completions.parse(model="tiny", messages=USER, response_format=Weather, **options)
    assert isinstance(answer.choices[0].message.parsed, Weather)


def test_a_json_schema_by_hand_and_a_json_object(client):
    schema = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    answer = client.chat.completions.create(model="tiny", messages=USER, response_format=form, max_tokens=200)
    assert isinstance(json.loads(answer.choices[0].message.content)["yes"], bool)
    # A random model fills an object with anything: only its beginning is certain.
    answer = client.chat.completions.create(
        model="tiny", messages=USER, response_format={"type": "json_object"}, max_tokens=30
    )
    assert answer.choices[0].message.content.lstrip().startswith("{")


def test_a_picture_is_refused_by_a_backend_without_eyes(client):
    """Never left out in silence: the backend's own words come through, or the adapter's."""
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    content = [
        {"type": "text", "text": "what is this"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{pixel}"}},
    ]
    with pytest.raises(openai.APIStatusError) as raised:
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": content}])
    assert "image" in str(raised.value).lower()
    # llama-server itself says 500 ("image input is not supported"); through the gateway it is the client's mistake.
    assert raised.value.status_code in (400, 422, 500, 501)


@pytest.mark.gateway_only
def test_a_refused_picture_is_a_4xx(gateway):
    content = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]
    answer = gateway.post("/v1/chat/completions", {"model": "tiny", "messages": [{"role": "user", "content": content}]})
    assert 400 <= answer.status < 500, answer.text
    assert "image" in answer.error["message"].lower()


def test_unknown_fields_reach_the_backend_and_come_back(gateway):
    """`verbose` and `timings_per_token` are llama-server's own, as are `timings` and `__verbose` in its answer."""
    answer = gateway.chat("tiny", max_tokens=4, verbose=True, mirostat=1, cache_prompt=False, ignore_eos=True)
    assert answer.status == 200, answer.text
    body = answer.json()
    assert body["timings"]["predicted_n"] == 4
    assert body["__verbose"]["generation_settings"]["mirostat"] == 1
    assert body["timings"]["cache_n"] == 0


@pytest.mark.gateway_only
def test_numbers_and_names_keep_their_exact_form(gateway, double, unique):
    """What the gateway does not know, it does not touch: large integers, decimals, escapes, order."""
    odd = '{"z":1,"a":12345678901234567890,"b":1.10,"c":1e400,"d":"\\u00e9\\/","e":[{"":null}]}'
    body = f'{{"model":"double/ok","messages":[{{"role":"user","content":"{unique}"}}],"odd":{odd}}}'
    assert gateway.post("/v1/chat/completions", body.encode()).status == 200
    (seen,) = double.of(unique)
    assert odd.encode() in seen.body.replace(b'": ', b'":').replace(b", ", b",")


@pytest.mark.gateway_only
def test_the_model_answers_under_an_alias_or_as_provider_and_model(client):
    for name in ("tiny", "local/tiny", "local/anything"):
        assert client.chat.completions.create(model=name, messages=USER, max_tokens=2).choices


@pytest.mark.gateway_only
def test_the_backend_gets_our_key_and_never_the_clients(gateway, double, unique):
    assert gateway.chat("double/ok", unique).status == 200
    (seen,) = double.of(unique)
    assert seen.headers["authorization"] == "Bearer sk-upstream-secret-0123456789"
    assert gateway.key not in str(seen.headers) + seen.body.decode()
    assert seen.json["model"] == "ok"


@pytest.mark.gateway_only
def test_parallel_tool_calls_stay_apart(gateway):
    stream = gateway.client.chat.completions.create(model="double/parallel_tools", messages=USER, stream=True)
    calls = {}
    for chunk in stream:
        for choice in chunk.choices:
            for call in choice.delta.tool_calls or []:
                entry = calls.setdefault(call.index, {"id": call.id, "name": call.function.name, "arguments": ""})
                entry["arguments"] += call.function.arguments or ""
                # Id and name come with the first delta only.
                assert entry["id"] and (not call.id or call.id == entry["id"])
    assert calls == {
        0: {"id": "call_a", "name": "one", "arguments": '{"a":1}'},
        1: {"id": "call_b", "name": "two", "arguments": '{"b":2}'},
    }
