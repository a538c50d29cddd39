"""SageMaker through the gateway, in front of the AWS that the tests play (aws_server.py): vLLM, TGI and the plain toolkit."""

import json
import time

import pytest

import aws as fake
import kit
from conftest import KEY, start_gateway
from test_bedrock import CALLS, failed, joined, secrets, text_of
from test_cancellation import not_told
from test_chat import WEATHER
from test_streaming import chunks, content

pytestmark = pytest.mark.gateway_only

OTHER = WEATHER | {"function": WEATHER["function"] | {"name": "other"}}


def config(url):
    def provider(secrets, timeouts=None, **settings):
        settings = {"region": fake.REGION} | settings
        return {"adapter": "sagemaker", "endpoint": url, "secrets": secrets, "settings": settings, "timeouts": timeouts}

    return {
        "server": {"api_keys": [KEY]},
        "timeouts": {"first_token": "20s", "idle": "20s"},
        # Each answer is looked at by itself: one try, and nobody rests.
        "retry": {"attempts": 1},
        "health": {"rest": "0s"},
        "providers": {
            "sagemaker": provider(secrets(), served_model="served"),
            "named": provider(secrets(), endpoint_name="vllm"),
            "tgi": provider(secrets(), codec="tgi", endpoint_name="tgi"),
            "llama3": provider(secrets(), codec="tgi", endpoint_name="tgi", prompt_format="llama3"),
            "base": provider(secrets(), codec="base", endpoint_name="base"),
            "wrong": provider(secrets(secret="not/the/secret+of/AWS"), served_model="served"),
            "impatient": provider(secrets(), served_model="served", timeouts={"first_token": "400ms"}),
            "restless": provider(secrets(), served_model="served", timeouts={"idle": "400ms"}),
        },
        "models": {"vllm": {"target": "sagemaker/vllm"}},
    }


@pytest.fixture(scope="session")
def sagemaker(shape, folder, aws_server):
    gateway = start_gateway(shape, config(aws_server.url), folder)
    yield gateway
    gateway.process.stop()


@pytest.fixture(params=["sagemaker/vllm", "named/served", "tgi/any", "llama3/any"])
def model(request):
    """A model of each container that streams."""
    return request.param


# --- answers -----------------------------------------------------------------------------------------------------


def test_text(sagemaker, aws, unique, model):
    answer = sagemaker.chat(model, f"hello {unique}", max_tokens=50)
    assert f"hello {unique}" in text_of(answer) and text_of(answer).startswith("echo: ")
    assert answer.json()["choices"][0]["finish_reason"] == "stop"
    usage = answer.json()["usage"]
    assert usage["completion_tokens"] >= 3 and usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    seen = aws.one(unique)
    assert seen.operation == "InvokeEndpoint" and seen.key == fake.KEY_ID and seen.region == fake.REGION
    assert {"host", "content-type", "x-amz-date"} <= set(seen.signed_headers)


@pytest.mark.parametrize("part", [None, 1, 2, 3, 7, 50, 100_000])
def test_parts_that_are_cut_anywhere_are_the_same_stream(sagemaker, aws, unique, model, part):
    """Inside of characters, of lines, of the ends of lines; and one part of several events."""
    prompt = f"grüße 日本 😀 {unique}"
    whole = sagemaker.chat(model, prompt, max_tokens=50)
    aws.on(unique, chunk=23, **({"part": part} if part else {}))
    status, events = sagemaker.stream(model, prompt, max_tokens=50, stream_options={"include_usage": True})
    assert status == 200 and events[-1].data == "[DONE]"
    assert content(events) == text_of(whole) and prompt in content(events)
    assert chunks(events)[-1]["usage"]["completion_tokens"] == whole.json()["usage"]["completion_tokens"]
    assert aws.seen(unique)[-1].operation == "InvokeEndpointWithResponseStream"


def test_a_container_that_does_not_stream_is_streamed_all_the_same(sagemaker, aws, unique):
    whole = text_of(sagemaker.chat("base/any", unique, max_tokens=50))
    aws.on(unique, part=3)
    status, events = sagemaker.stream("base/any", unique, max_tokens=50)
    assert status == 200 and events[-1].data == "[DONE]" and content(events) == whole
    # The prompt is not repeated.
    assert whole.startswith("echo: ") and whole.count(unique) == 1


def test_what_ends_a_text(sagemaker, model):
    answer = sagemaker.chat(model, "one two three", max_tokens=2)
    assert answer.json()["choices"][0]["finish_reason"] == "length"
    answer = sagemaker.chat(model, "one two three", max_tokens=50, stop=["two"])
    assert answer.json()["choices"][0]["finish_reason"] == "stop" and text_of(answer).endswith("one ")
    status, events = sagemaker.stream(model, "one two three", max_tokens=50, stop=["two"])
    assert status == 200 and content(events).endswith("one ")


def test_vllm_gets_messages_or_a_prompt_and_the_name_that_it_serves(sagemaker, aws, unique):
    assert sagemaker.chat("vllm", unique).status == 200
    body = aws.one(unique).json
    assert body["model"] == "served" and "messages" in body and "prompt" not in body
    other = f"{unique}-completion"
    answer = sagemaker.post("/v1/completions", {"model": "vllm", "prompt": other})
    assert answer.status == 200 and answer.json()["choices"][0]["text"] == f"echo: {other}"
    body = aws.one(other).json
    assert body["prompt"] == other and "messages" not in body


@pytest.mark.parametrize("stream", [False, True])
def test_tools_of_vllm(sagemaker, aws, unique, stream):
    aws.on(unique, say=CALLS, part=5)
    more = {"tools": [WEATHER, OTHER], "max_tokens": 200}
    if stream:
        status, events = sagemaker.stream("vllm", unique, **more)
        assert status == 200 and events[-1].data == "[DONE]"
        calls = [(call["name"], json.loads(call["arguments"])) for call in joined(events)]
    else:
        (choice,) = sagemaker.chat("vllm", unique, **more).json()["choices"]
        assert choice["finish_reason"] == "tool_calls"
        calls = [
            (call["function"]["name"], json.loads(call["function"]["arguments"])) for call in choice["message"]["tool_calls"]
        ]
    assert calls == [("get_weather", {"city": "Köln"}), ("other", {})]


@pytest.mark.parametrize("model", ["tgi/any", "base/any"])
def test_what_a_prompt_has_no_place_for_is_refused(sagemaker, aws, unique, model):
    for more, param in (({"tools": [WEATHER]}, "tools"), ({"n": 2}, "n"), ({"logprobs": True}, "logprobs")):
        answer = sagemaker.chat(model, unique, **more)
        assert answer.status == 400 and answer.error["param"] == param and "SageMaker" in answer.error["message"]
    assert aws.seen(unique) == []


def test_a_temperature_of_zero_is_greedy_for_tgi(sagemaker, aws, unique):
    """TGI itself refuses a temperature of 0, as the server here does."""
    assert sagemaker.chat("tgi/any", unique, temperature=0, top_p=1).status == 200
    parameters = aws.one(unique).json["parameters"]
    assert parameters["do_sample"] is False and "temperature" not in parameters and "top_p" not in parameters


# --- failures ----------------------------------------------------------------------------------------------------

EXCEPTIONS = [
    ("InternalFailure", 502),
    ("ServiceUnavailable", 503),
    ("ValidationError", 400),
    ("InternalDependencyException", 502),
    ("ModelNotReadyException", 503),
]


@pytest.mark.parametrize(("name", "status"), EXCEPTIONS)
def test_each_exception_is_told_with_its_status_and_aws_words(sagemaker, aws, unique, model, name, status):
    aws.on(unique, refuse={"name": name, "message": f"said for {unique}"})
    answer = sagemaker.chat(model, unique)
    assert answer.status == status and f"said for {unique}" in answer.error["message"], answer.text
    if status == 503:
        assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("original", "said", "status"),
    [
        (400, '{"error":{"message":"no such thing","type":"BadRequestError","code":400}}', 400),
        (404, '{"error":{"message":"The model does not exist","type":"NotFoundError","code":404}}', 404),
        (422, '{"error":"Input validation error: too bad","error_type":"validation"}', 400),
        (429, '{"error":"Model is overloaded","error_type":"overloaded"}', 429),
        (500, "EngineCore encountered an issue", 502),
        (500, "CUDA out of memory", 503),
        (503, "Service Unavailable", 503),
    ],
)
def test_a_model_error_is_what_the_container_said(sagemaker, aws, unique, original, said, status, stream):
    more = {"OriginalStatusCode": original, "OriginalMessage": said}
    aws.on(unique, refuse={"name": "ModelError", "message": f"Received error ({original}) from primary", "more": more})
    answer = sagemaker.chat("vllm", unique, stream=stream)
    # An overload is told as one, whether the container calls it 429 or 503.
    assert answer.status in ((status,) if original != 429 else (429, 503)), answer.text
    words = {400: "no such thing", 404: "does not exist", 422: "too bad", 429: "overloaded"}.get(original, said)
    assert words in answer.error["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_throttling_is_a_429(sagemaker, aws, unique, model, stream):
    aws.on(unique, unmodelled={"name": "ThrottlingException", "status": 400, "message": "Rate exceeded"})
    answer = sagemaker.chat(model, unique, stream=stream)
    assert answer.status == 429 and "Rate exceeded" in answer.error["message"]


def test_a_context_that_is_too_long_is_known_by_the_containers_words(sagemaker, aws, unique):
    said = {"message": "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.", "code": 400}
    more = {"OriginalStatusCode": 400, "OriginalMessage": json.dumps({"error": said | {"type": "BadRequestError"}})}
    aws.on(unique, refuse={"name": "ModelError", "message": "Received client error (400)", "more": more})
    answer = sagemaker.chat("vllm", unique)
    assert answer.status == 400 and answer.error["code"] == "context_length_exceeded", answer.text


def test_an_endpoint_that_is_not_there_is_a_404(sagemaker):
    answer = sagemaker.chat("sagemaker/nowhere")
    assert answer.status == 404 and "nowhere" in answer.error["message"]
    # What is no name of an endpoint is not asked for.
    assert sagemaker.chat("sagemaker/a/b").status == 400


def test_a_body_that_is_larger_than_sagemaker_takes_is_a_413(sagemaker, aws, unique):
    answer = sagemaker.chat("vllm", unique + "x" * 6_300_000)
    assert answer.status == 413 and "6291456" in answer.error["message"].replace(",", "").replace("_", "")
    assert aws.seen(unique) == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_secret_is_a_502_that_names_no_secret(sagemaker, aws, unique, stream):
    answer = sagemaker.chat("wrong/vllm", unique, stream=stream)
    assert answer.status == 502 and aws.one(unique).status == 403
    output = answer.text + sagemaker.process.output()
    assert "not/the/secret+of/AWS" not in output and fake.SECRET not in output and "Signature=" not in output


def test_a_clock_that_differs_is_corrected_once_by_the_servers_date(start, aws, unique):
    gateway = start(config(aws.url))
    aws.set(ahead=-1800)
    assert gateway.chat("vllm", unique).status == 200 and gateway.chat("vllm", unique).status == 200
    assert [seen.status for seen in aws.seen(unique)] == [403, 200, 200]


# --- within a stream ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ModelStreamError", "InternalStreamFailure"])
def test_an_exception_inside_a_stream_is_an_error_in_ours(sagemaker, aws, unique, model, kind):
    aws.on(unique, fault={"after": 5, "exception": kind, "message": f"broken for {unique}"})
    status, events = sagemaker.stream(model, f"a b c d e f g {unique}", max_tokens=50)
    assert status == 200 and f"broken for {unique}" in failed(events)["message"]
    assert content(events[:-1]).startswith("echo:")
    aws.reset()
    aws.on(unique, fault={"after": 0, "exception": kind, "message": f"broken for {unique}"})
    answer = sagemaker.chat(model, unique, stream=True)
    assert answer.status == 502 and f"broken for {unique}" in answer.error["message"]


def test_a_part_that_is_cut_in_a_character_before_an_exception_is_no_text(sagemaker, aws, unique):
    aws.on(
        unique, part=1, fault={"after": 700, "exception": "ModelStreamError", "message": "broken"}, say={"text": "日本 " * 50}
    )
    status, events = sagemaker.stream("vllm", unique, max_tokens=200)
    assert status == 200 and failed(events) and "\ufffd" not in content(events[:-1])


def before_the_finish(pieces):
    """The bytes of a stream's frames, and how many of them come before the one with the container's finish."""
    payloads = [piece[12 + int.from_bytes(piece[4:8], "big") : -4] for piece in pieces]
    at = b"".join(payloads).index(b'"finish_reason":"stop"')
    frame = next(n for n in range(len(payloads)) if sum(map(len, payloads[: n + 1])) > at)
    return b"".join(pieces), sum(map(len, pieces[:frame]))


@pytest.mark.parametrize("how", ["end", "reset"])
@pytest.mark.parametrize("part", [None, 9])
def test_a_stream_that_is_cut_is_never_a_clean_end(sagemaker, aws, unique, part, how):
    parts = {"part": part} if part else {}
    aws.on(unique, **parts)
    sagemaker.stream("vllm", unique)
    seen = aws.one(unique)
    with kit.Wire(aws.url) as wire:
        # The gateway's own request once more: its signature is still good.
        wire.send(
            "POST", seen.path, {name: value for name, value in seen.headers.items() if name != "content-length"}, seen.body
        )
        assert wire.head()[0] == 200
        data, last = before_the_finish(list(wire.pieces()))
    assert 100 < last < len(data)
    places = {*range(1, last, max(1, last // (40 if how == "end" else 8))), last, len(data) - 1}
    wrong = []
    for place in sorted(places):
        aws.reset()
        aws.on(unique, cut=place, how=how, **parts)
        with sagemaker.open_chat("vllm", unique) as wire:
            status, _ = wire.head()
            if status != 200:
                if status != 502:
                    wrong.append((place, status))
                continue
            events = list(kit.frames(wire))
        try:
            failed(events)
        except AssertionError as error:
            wrong.append((place, str(error)[:200]))
    assert not wrong, (len(data), wrong)


def test_a_byte_that_changed_on_its_way_is_an_error(sagemaker, aws, unique):
    for place in range(0, 1200, 37):
        aws.reset()
        aws.on(unique, flip=place)
        with sagemaker.open_chat("vllm", unique) as wire:
            status, _ = wire.head()
            if status != 200:
                assert status == 502, place
                continue
            events = list(kit.frames(wire))
        failed(events)
        assert f"echo: {unique}".startswith(content(events[:-1])), place


def test_an_error_inside_the_containers_own_stream(sagemaker, aws, unique):
    """vLLM's failures come as events of its own stream, within a good one of SageMaker's."""
    part = {":message-type": "event", ":event-type": "PayloadPart", ":content-type": "application/octet-stream"}
    payload = 'data: {"error": {"message": "EngineCore died", "type": "InternalServerError", "code": 500}}\n\ndata: [DONE]\n\n'
    aws.on(unique, fault={"after": 3, "headers": part, "payload": payload})
    status, events = sagemaker.stream("vllm", f"a b c d {unique}")
    assert status == 200 and "EngineCore died" in failed(events)["message"]


@pytest.mark.parametrize("frames", [0, 4])
def test_a_stream_that_stalls_is_given_up(sagemaker, aws, unique, frames):
    aws.on(unique, stall=frames)
    began = time.monotonic()
    if frames:
        status, events = sagemaker.stream("restless/vllm", f"a b c {unique}")
        assert status == 200 and failed(events)
    else:
        assert sagemaker.chat("impatient/vllm", unique, stream=True).status == 504
    assert time.monotonic() - began < 15
    kit.wait_until(lambda: aws.one(unique).left, what="the gateway to leave")


def leaves(gateway, aws, unique, stream, frames):
    aws.on(unique, stall=frames)
    wire = gateway.open_chat("vllm", f"a b c {unique}", stream=stream)
    kit.wait_until(lambda: aws.seen(unique), what="the request to arrive")
    if frames:
        wire.head()
        next(event for event in kit.frames(wire) if "echo" in (event.data or ""))
    else:
        time.sleep(0.2)
    left = time.monotonic()
    wire.close()
    seen = kit.wait_until(lambda: aws.one(unique).left and aws.one(unique), 0.5 + kit.SLACK, "the gateway to leave")
    assert seen.left - left < 0.1 + kit.SLACK and not seen.ended


def test_a_client_that_leaves_cancels_the_request_at_aws(sagemaker, aws, unique):
    leaves(sagemaker, aws, unique, True, 4)


@not_told
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_before_the_first_content_cancels_it_too(sagemaker, aws, unique, stream):
    leaves(sagemaker, aws, unique, stream, 0)
