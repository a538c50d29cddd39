"""Text completion, the older API of the two, through the official client."""

import pytest

LONG = {"cache_prompt": False, "ignore_eos": True}
OPTIONS = {"model": "tiny", "prompt": "hello the", "temperature": 0, "seed": 1, "extra_body": LONG}


def test_text(client):
    answer = client.completions.create(max_tokens=6, **OPTIONS)
    assert answer.object == "text_completion" and answer.id
    (choice,) = answer.choices
    assert choice.index == 0 and choice.finish_reason == "length" and choice.text
    assert answer.usage.completion_tokens == 6 and answer.usage.prompt_tokens > 0


def test_the_stream_gives_the_text_of_the_whole_answer(client, shape):
    whole = client.completions.create(max_tokens=12, **OPTIONS).choices[0]
    stream = client.completions.create(max_tokens=12, stream=True, stream_options={"include_usage": True}, **OPTIONS)
    text, finish, usage = "", [], []
    for chunk in stream:
        assert chunk.object == "text_completion"
        if chunk.usage:
            usage.append(chunk.usage.completion_tokens)
            # llama-server puts it beside the last choice; OpenAI, and so the gateway, into a chunk of its own.
            assert not chunk.choices or shape == "direct"
        for choice in chunk.choices:
            text += choice.text
            finish += [choice.finish_reason] if choice.finish_reason else []
    assert text == whole.text and finish == [whole.finish_reason]
    assert usage == [12]


def test_stop(client):
    full = client.completions.create(max_tokens=12, **OPTIONS).choices[0].text
    middle = full[len(full) // 2 : len(full) // 2 + 2]
    choice = client.completions.create(max_tokens=12, stop=[middle], **OPTIONS).choices[0]
    assert choice.text == full.partition(middle)[0] and choice.finish_reason == "stop"


def test_logprobs(client):
    answer = client.completions.create(max_tokens=3, logprobs=2, **OPTIONS)
    assert answer.choices[0].logprobs is not None
    # llama-server gives the newer shape here too; an OpenAI server the older one.
    found = answer.choices[0].logprobs.model_dump()
    assert len(found.get("content") or found.get("tokens")) == 3


def test_two_choices(client):
    answer = client.completions.create(max_tokens=4, n=2, **(OPTIONS | {"temperature": 1.5}))
    assert sorted(choice.index for choice in answer.choices) == [0, 1]


@pytest.mark.gateway_only
@pytest.mark.parametrize(("field", "value"), [("echo", True), ("suffix", "end"), ("best_of", 3)])
def test_what_llama_server_would_ignore_is_done_or_refused(gateway, field, value):
    """llama-server takes these three and does nothing with them: never dropped in silence."""
    body = {"model": "tiny", "prompt": "hello the", "max_tokens": 2, "n": 1, field: value}
    answer = gateway.post("/v1/completions", body)
    if field == "echo" and answer.status == 200:
        assert answer.json()["choices"][0]["text"].startswith("hello the")
        return
    assert answer.status == 400, answer.text
    assert answer.error["param"] == field


def test_unknown_fields_reach_the_backend_and_come_back(gateway):
    body = {"model": "tiny", "prompt": "the", "max_tokens": 3, "verbose": True, "mirostat": 1, "ignore_eos": True}
    answer = gateway.post("/v1/completions", body)
    assert answer.status == 200, answer.text
    assert answer.json()["timings"]["predicted_n"] == 3
    assert answer.json()["__verbose"]["generation_settings"]["mirostat"] == 1


@pytest.mark.gateway_only
def test_a_missing_prompt_is_a_400_that_names_it(gateway):
    answer = gateway.post("/v1/completions", {"model": "tiny"})
    assert answer.status == 400 and answer.error["param"] == "prompt", answer.text
