"""Whether the AWS that the tests play is right: boto3, AWS's own client, and botocore's reader of event streams look at it."""

import datetime
import json
import pathlib

import boto3
import botocore.auth
import botocore.awsrequest
import botocore.config
import botocore.credentials
import botocore.eventstream
import botocore.exceptions
import botocore.utils
import openai
import pytest
import urllib3

import aws as fake
import aws_identity
import aws_model
import kit

CLAUDE = "anthropic.claude-3-haiku-20240307-v1:0"
LLAMA = "meta.llama3-1-8b-instruct-v1:0"
TITAN = "amazon.titan-embed-text-v2:0"
SESSION = boto3.session.Session()
WEATHER = {"toolSpec": {"name": "get_weather", "inputSchema": {"json": {"type": "object"}}}}
CALL = {"calls": [["get_weather", {"city": "Köln"}], ["get_weather", {}]]}


@pytest.fixture
def client(aws):
    """Makes clients of AWS that try once."""

    def make(service="bedrock-runtime", key=fake.KEY_ID, secret=fake.SECRET, token=None, region=fake.REGION):
        config = botocore.config.Config(retries={"max_attempts": 0}, read_timeout=60)
        credentials = {"aws_access_key_id": key, "aws_secret_access_key": secret, "aws_session_token": token}
        return SESSION.client(service, region, endpoint_url=aws.url, config=config, **credentials)

    return make


def said(text="hello"):
    return [{"role": "user", "content": [{"text": text}]}]


def refused(call, *args, **more):
    """The error of a call: its name, its status and its words."""
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        call(*args, **more)
    answer = raised.value.response
    assert answer["ResponseMetadata"]["RequestId"]
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Message"]


# --- every operation ---------------------------------------------------------------------------------------------


def test_converse(client, aws, unique):
    answer = client().converse(modelId=CLAUDE, messages=said(f"hello {unique}"), inferenceConfig={"maxTokens": 50})
    assert answer["output"]["message"] == {"role": "assistant", "content": [{"text": f"echo: hello {unique}"}]}
    assert answer["stopReason"] == "end_turn" and answer["usage"]["outputTokens"] == 3
    seen = aws.one(unique)
    assert seen.operation == "Converse" and seen.key == fake.KEY_ID and seen.region == fake.REGION
    assert seen.path == f"/model/{CLAUDE.replace(':', '%3A')}/converse" and seen.status == 200 and seen.ended


def test_converse_ends_as_it_is_told(client, aws, unique):
    answer = client().converse(modelId=CLAUDE, messages=said("one two three"), inferenceConfig={"maxTokens": 2})
    assert answer["stopReason"] == "max_tokens" and answer["output"]["message"]["content"] == [{"text": "echo: one"}]
    answer = client().converse(modelId=CLAUDE, messages=said("one two"), inferenceConfig={"stopSequences": ["two"]})
    assert answer["stopReason"] == "stop_sequence" and answer["output"]["message"]["content"] == [{"text": "echo: one "}]
    aws.on(unique, say={"text": "no", "finish": "guardrail_intervened"})
    assert client().converse(modelId=CLAUDE, messages=said(unique))["stopReason"] == "guardrail_intervened"


def test_converse_calls_tools_and_takes_their_results(client, aws, unique):
    aws.on(unique, times=1, say=CALL)
    turns = said(unique)
    answer = client().converse(modelId=CLAUDE, messages=turns, toolConfig={"tools": [WEATHER]})
    assert answer["stopReason"] == "tool_use"
    message = answer["output"]["message"]
    one, two = (block["toolUse"] for block in message["content"])
    assert (one["input"], two["input"]) == ({"city": "Köln"}, {}) and one["toolUseId"] != two["toolUseId"]
    results = [{"toolResult": {"toolUseId": use["toolUseId"], "content": [{"text": "rain"}]}} for use in (one, two)]
    turns += [message, {"role": "user", "content": results}]
    answer = client().converse(modelId=CLAUDE, messages=turns, toolConfig={"tools": [WEATHER]})
    assert answer["output"]["message"]["content"][0]["text"].count("=rain") == 2
    # One of the two is missing.
    turns[-1]["content"].pop()
    code, status, text = refused(client().converse, modelId=CLAUDE, messages=turns, toolConfig={"tools": [WEATHER]})
    assert (code, status) == ("ValidationException", 400) and two["toolUseId"] in text


def test_a_thought_is_taken_back_with_its_signature_only(client):
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
    more = {"modelId": CLAUDE, "inferenceConfig": {"maxTokens": 2000}, "additionalModelRequestFields": thinking}
    message = client().converse(messages=said(), **more)["output"]["message"]
    thought = message["content"][0]["reasoningContent"]["reasoningText"]
    assert thought["text"] == "I think about: hello"
    turns = [*said(), message, *said("and")]
    assert client().converse(messages=turns, **more)["stopReason"] == "end_turn"
    thought["signature"] = "bm90IGl0"
    assert refused(client().converse, messages=turns, **more)[0] == "ValidationException"


def test_what_a_cache_point_covers_is_written_and_then_read(client, unique):
    system = [{"text": f"you are kind {unique}"}, {"cachePoint": {"type": "default"}}]
    one, two = (client().converse(modelId=CLAUDE, system=system, messages=said())["usage"] for _ in range(2))
    assert one["cacheWriteInputTokens"] == two["cacheReadInputTokens"] > 0
    assert one["cacheReadInputTokens"] == two["cacheWriteInputTokens"] == 0
    assert one["totalTokens"] == one["inputTokens"] + one["outputTokens"] + one["cacheWriteInputTokens"]


def text_of(events):
    return "".join(event["contentBlockDelta"]["delta"].get("text", "") for event in events if "contentBlockDelta" in event)


def test_converse_stream(client, aws, unique):
    events = list(client().converse_stream(modelId=CLAUDE, messages=said("grüße 日本"))["stream"])
    assert text_of(events) == "echo: grüße 日本"
    kinds = [next(iter(event)) for event in events]
    assert kinds[0] == "messageStart" and kinds[-2:] == ["messageStop", "metadata"]
    assert events[-1]["metadata"]["usage"]["outputTokens"] == 3
    aws.on(unique, say=CALL)
    events = list(client().converse_stream(modelId=CLAUDE, messages=said(unique), toolConfig={"tools": [WEATHER]})["stream"])
    given = [event["contentBlockDelta"] for event in events if "contentBlockDelta" in event]
    joined = "".join(delta["delta"]["toolUse"]["input"] for delta in given if delta["contentBlockIndex"] == 0)
    assert json.loads(joined) == {"city": "Köln"} and not any(delta["contentBlockIndex"] == 1 for delta in given)


ANTHROPIC = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 50, "messages": [{"role": "user", "content": "hello"}]}


def test_invoke_model_of_anthropic(client):
    answer = client().invoke_model(modelId=CLAUDE, body=json.dumps(ANTHROPIC))
    assert answer["contentType"] == "application/json"
    assert answer["ResponseMetadata"]["HTTPHeaders"]["x-amzn-bedrock-output-token-count"] == "2"
    value = json.loads(answer["body"].read())
    assert value["content"] == [{"type": "text", "text": "echo: hello"}] and value["stop_reason"] == "end_turn"
    answer = client().invoke_model_with_response_stream(modelId=CLAUDE, body=json.dumps(ANTHROPIC))
    events = [json.loads(event["chunk"]["bytes"]) for event in answer["body"]]
    assert events[0]["type"] == "message_start" and events[-1]["amazon-bedrock-invocationMetrics"]["outputTokenCount"] == 2
    text = "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta")
    assert text == "echo: hello"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"stream": True}, "extraneous key [stream]"),
        ({"model": "x"}, "extraneous key [model]"),
        ({"anthropic_version": None}, "anthropic_version"),
        ({"messages": []}, "first message"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]}, "non-empty"),
    ],
)
def test_invoke_model_refuses_what_anthropic_does_not_take(client, change, word):
    code, status, text = refused(client().invoke_model, modelId=CLAUDE, body=json.dumps(ANTHROPIC | change))
    assert (code, status) == ("ValidationException", 400) and word in text


def test_invoke_model_of_llama(client):
    turn = "<|start_header_id|>user<|end_header_id|>\n\nhello<|eot_id|>"
    prompt = f"<|begin_of_text|>{turn}<|start_header_id|>assistant<|end_header_id|>\n\n"
    body = json.dumps({"prompt": prompt, "max_gen_len": 20})
    value = json.loads(client().invoke_model(modelId=LLAMA, body=body)["body"].read())
    assert value["generation"] == "echo: hello" and value["stop_reason"] == "stop" and value["generation_token_count"] == 2
    answer = client().invoke_model_with_response_stream(modelId=LLAMA, body=body)
    events = [json.loads(event["chunk"]["bytes"]) for event in answer["body"]]
    assert "".join(event["generation"] for event in events) == "echo: hello" and events[-1]["stop_reason"] == "stop"
    body = json.dumps({"prompt": prompt, "stop": ["x"]})
    assert "extraneous key [stop]" in refused(client().invoke_model, modelId=LLAMA, body=body)[2]


def test_invoke_model_of_titans_embeddings(client):
    def vector(**more):
        body = json.dumps({"inputText": "hello world", "dimensions": 256} | more)
        return json.loads(client().invoke_model(modelId=TITAN, body=body)["body"].read())

    assert len(vector()["embedding"]) == 256 and vector()["inputTextTokenCount"] == 2
    assert vector()["embedding"] != vector(inputText="good bye")["embedding"]
    for wrong in ({"dimensions": 7}, {"inputText": ""}, {"input": "x"}):
        with pytest.raises(botocore.exceptions.ClientError, match="ValidationException"):
            vector(**wrong)
    assert refused(client().converse, modelId=TITAN, messages=said())[0] == "ValidationException"


def test_invoke_model_of_coheres_embeddings(client):
    def vectors(**more):
        body = json.dumps({"texts": ["hello world", "good bye"], "input_type": "search_document"} | more)
        answer = client().invoke_model(modelId="cohere.embed-v4:0", body=body)
        assert answer["ResponseMetadata"]["HTTPHeaders"]["x-amzn-bedrock-input-token-count"] == "4"
        return json.loads(answer["body"].read())["embeddings"]

    plain = vectors(output_dimension=256)
    assert len(plain) == 2 and plain[0] != plain[1] and len(plain[0]) == 256
    assert vectors(embedding_types=["float"], output_dimension=256)["float"] == plain
    for wrong in ({"texts": []}, {"input_type": "x"}, {"input": "x"}):
        with pytest.raises(botocore.exceptions.ClientError, match="ValidationException"):
            vectors(**wrong)


def test_count_tokens(client):
    answer = client().count_tokens(modelId=CLAUDE, input={"converse": {"messages": said("one two three")}})
    assert answer["inputTokens"] > 2


def test_openais_endpoint_of_bedrock(aws, unique):
    client = openai.OpenAI(base_url=f"{aws.url}/openai/v1", api_key=fake.BEARER, max_retries=0)
    messages = [{"role": "user", "content": f"hello {unique}"}]
    ask = {"model": "openai.gpt-oss-20b-1:0", "messages": messages, "reasoning_effort": "low"}
    text = client.chat.completions.create(**ask).choices[0].message.content
    assert text == f"<reasoning>I think about: hello {unique}</reasoning>echo: hello {unique}"
    chunks = list(client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text
    assert chunks[-1].usage.completion_tokens > 0
    assert {seen.key for seen in aws.seen(unique)} == {"bearer"}
    with pytest.raises(openai.BadRequestError, match="extraneous key"):
        client.chat.completions.create(**ask, n=2)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**ask | {"model": "openai.gpt-4"})
    aws.on(unique, refuse={"status": 429, "headers": {"retry-after": "3"}, "body": '{"error":{"message":"slow down"}}'})
    with pytest.raises(openai.RateLimitError, match="slow down"):
        client.chat.completions.create(**ask)
    with pytest.raises(openai.PermissionDeniedError, match="API Key"):
        client.with_options(api_key="another").chat.completions.create(**ask)


VLLM = {"messages": [{"role": "user", "content": "grüße 日本"}]}


def endpoint(client, name, value, stream=False):
    call = client("sagemaker-runtime")
    call = call.invoke_endpoint_with_response_stream if stream else call.invoke_endpoint
    return call(EndpointName=name, Body=json.dumps(value).encode(), ContentType="application/json")


def test_invoke_endpoint_of_vllm(client):
    answer = endpoint(client, "vllm", VLLM)
    assert answer["ContentType"] == "application/json" and answer["InvokedProductionVariant"] == "AllTraffic"
    assert json.loads(answer["Body"].read())["choices"][0]["message"]["content"] == "echo: grüße 日本"


@pytest.mark.parametrize("part", [1, 2, 3, 7, 1000])
def test_a_stream_of_vllm_is_cut_anywhere(client, aws, part):
    aws.on(part=part, chunk=11)
    answer = endpoint(client, "vllm", VLLM | {"stream": True}, stream=True)
    assert answer["ContentType"] == "text/event-stream"
    parts = [event["PayloadPart"]["Bytes"] for event in answer["Body"]]
    assert {len(bytes) for bytes in parts[:-1]} <= {part}
    lines = [line.removeprefix("data: ") for line in b"".join(parts).decode().split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    found = [json.loads(line)["choices"][0]["delta"].get("content") or "" for line in lines[:-1]]
    assert "".join(found) == "echo: grüße 日本"


def test_invoke_endpoint_of_tgi_and_of_the_plain_toolkit(client):
    ask = {"inputs": "hello", "parameters": {"details": True}}
    (answer,) = json.loads(endpoint(client, "tgi", ask)["Body"].read())
    assert answer["generated_text"] == "echo: hello" and answer["details"]["generated_tokens"] == 2
    parts = [event["PayloadPart"]["Bytes"] for event in endpoint(client, "tgi", ask | {"stream": True}, stream=True)["Body"]]
    events = [json.loads(line[5:]) for line in b"".join(parts).decode().split("\n\n") if line]
    assert "".join(event["token"]["text"] for event in events) == events[-1]["generated_text"] == "echo: hello"
    (answer,) = json.loads(endpoint(client, "base", {"inputs": "hello"})["Body"].read())
    assert answer["generated_text"] == "helloecho: hello"
    (answer,) = json.loads(
        endpoint(client, "base", {"inputs": "hello", "parameters": {"return_full_text": False}})["Body"].read()
    )
    assert answer["generated_text"] == "echo: hello"


@pytest.mark.parametrize(
    ("name", "value", "original", "word"),
    [
        ("vllm", {"messages": [], "prompt": "x"}, 400, "exactly one"),
        ("vllm", VLLM | {"model": "another"}, 404, "does not exist"),
        ("tgi", {"inputs": "x", "parameters": {"temperature": 0}}, 422, "strictly positive"),
        ("tgi", {"parameters": {}}, 422, "inputs"),
    ],
)
def test_what_a_container_refuses_is_a_model_error(client, name, value, original, word):
    for stream in (False, True):
        with pytest.raises(botocore.exceptions.ClientError) as raised:
            endpoint(client, name, value, stream)
        answer = raised.value.response
        assert answer["Error"]["Code"] == "ModelError" and answer["ResponseMetadata"]["HTTPStatusCode"] == 424
        assert answer["OriginalStatusCode"] == original and word in answer["OriginalMessage"] and answer["LogStreamArn"]


def test_an_endpoint_that_is_not_there_is_a_validation_error(client):
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        endpoint(client, "nowhere", VLLM)
    assert raised.value.response["Error"]["Code"] == "ValidationError"
    assert "nowhere" in raised.value.response["Error"]["Message"]


def test_a_body_that_is_too_large_for_sagemaker_is_a_validation_error(client):
    call = {"EndpointName": "vllm", "ContentType": "application/json"}
    body = json.dumps({"prompt": "x" * 6_291_456}).encode()
    code, status, text = refused(client("sagemaker-runtime").invoke_endpoint, Body=body, **call)
    assert (code, status) == ("ValidationError", 400) and "6291456" in text


# --- what the models do not allow --------------------------------------------------------------------------------


def signed(aws, path, body, now=None, change=None, service="bedrock", **credentials):
    """A request that botocore has signed, and that was changed afterwards: what boto3 would not send."""
    keys = {"access_key": fake.KEY_ID, "secret_key": fake.SECRET} | credentials
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = botocore.awsrequest.AWSRequest("POST", aws.url + path, data=body)
    request.headers["content-type"] = "application/json"
    signer = botocore.auth.SigV4Auth(botocore.credentials.Credentials(**keys), service, fake.REGION)
    if now is None:
        signer.add_auth(request)
    else:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(botocore.auth, "get_current_datetime", lambda: now)
            signer.add_auth(request)
    sent = {"path": path, "body": body, "headers": {**request.headers, "host": aws.url.removeprefix("http://")}}
    if change:
        change(sent)
    return kit.http("POST", aws.url + sent["path"], sent["body"], sent["headers"])


def converse(model=CLAUDE):
    return f"/model/{model.replace(':', '%3A').replace('/', '%2F')}/converse"


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"stream": True}, "extraneous key [stream]"),
        ({"messages": [{"role": "user", "content": [{"text": "x", "name": "y"}]}]}, "extraneous key [name]"),
        ({"modelId": "x"}, "extraneous key [modelId]"),
        ({"messages": [{"role": "system", "content": [{"text": "x"}]}]}, "system"),
        ({"messages": [{"role": "user"}]}, "content"),
        ({"messages": {"role": "user"}}, "messages"),
        ({"inferenceConfig": {"maxTokens": "7"}}, "maxTokens"),
        ({"inferenceConfig": {"temperature": 2}}, "temperature"),
        ({"toolConfig": {"tools": []}}, "tools"),
        ({"messages": [{"role": "user", "content": [{"text": "x", "cachePoint": {"type": "default"}}]}]}, "content"),
        ({"system": [{"text": ""}]}, "system"),
        ({"toolConfig": {"tools": [{"toolSpec": {"name": "a b", "inputSchema": {"json": {}}}}]}}, "a b"),
        ({"messages": [*said(), *said()]}, "alternate"),
        ({"messages": [{"role": "assistant", "content": [{"text": "x"}]}]}, "start with a user message"),
        ({"messages": said(" ")}, "blank"),
    ],
)
def test_members_that_the_service_model_does_not_allow_are_a_validation_exception(aws, body, word):
    assert signed(aws, converse(), {"messages": said()}).status == 200
    answer = signed(aws, converse(), {"messages": said()} | body)
    assert answer.status == 400 and answer.headers["x-amzn-errortype"].startswith("ValidationException"), answer.text
    assert word in answer.json()["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'{"messages": NaN}',
        b'{"messages": [], "messages": []}',
        b'{"messages":[{"role":"user","content":[{"image":{"format":"png","source":{"bytes":"!"}}}]}]}',
    ],
)
def test_a_body_that_is_no_json_is_a_serialization_exception(aws, body):
    answer = signed(aws, converse(), body)
    assert answer.status == 400 and answer.headers["x-amzn-errortype"] == "SerializationException", answer.text


def test_a_path_that_is_no_operation_is_unknown(aws):
    for path in ("/model/a/b/converse", "/model//converse", "/converse", f"/model/{CLAUDE}/invoked"):
        assert signed(aws, path, {"messages": said()}).status == 404


@pytest.mark.parametrize(
    ("model", "code"),
    [
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", None),
        ("arn:aws:bedrock:us-east-1::foundation-model/" + CLAUDE, None),
        ("arn:aws:bedrock:us-east-1:123456789012:inference-profile/us." + CLAUDE, None),
        ("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3d4e5f6", None),
        ("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/000000000000", "ResourceNotFoundException"),
        ("arn:aws:bedrock:eu-central-1::foundation-model/" + CLAUDE, "ValidationException"),
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", "ValidationException"),
        ("no.such-model", "ValidationException"),
    ],
)
def test_model_ids_profiles_and_arns(client, aws, model, code):
    if code:
        assert refused(client().converse, modelId=model, messages=said())[0] == code
    else:
        assert client().converse(modelId=model, messages=said())["stopReason"] == "end_turn"
        # boto3 leaves the colons of an ARN as they are; percent-encoded they are the same.
        assert signed(aws, converse(model), {"messages": said()}).status == 200


# --- signatures --------------------------------------------------------------------------------------------------

REFUSED = "does not match the signature you provided"


def put(part, name, value):
    def change(sent):
        if part == "headers":
            for old in [key for key in sent["headers"] if key.lower() == name]:
                del sent["headers"][old]
            if value is not None:
                sent["headers"][name] = value
        else:
            sent[part] = value(sent[part])

    return change


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (put("body", "", lambda body: body.replace(b"hello", b"hallo")), "InvalidSignatureException"),
        (put("body", "", lambda body: body + b" "), "InvalidSignatureException"),
        (put("path", "", lambda path: path.replace("haiku", "opus")), "InvalidSignatureException"),
        (put("path", "", lambda path: path.replace("%3A", ":")), "InvalidSignatureException"),
        (put("path", "", lambda path: path + "?a=b"), "InvalidSignatureException"),
        (put("headers", "content-type", "text/plain"), "InvalidSignatureException"),
        (put("headers", "host", "bedrock-runtime.eu-west-1.amazonaws.com"), "InvalidSignatureException"),
        (put("headers", "x-amz-meta", "not signed"), "InvalidSignatureException"),
        (put("headers", "x-amz-content-sha256", "0" * 64), "InvalidSignatureException"),
        (put("headers", "x-amz-date", "20200101T000000Z"), "InvalidSignatureException"),
        (put("headers", "x-amz-date", "yesterday"), "IncompleteSignatureException"),
        (put("headers", "authorization", None), "MissingAuthenticationTokenException"),
        (put("headers", "authorization", "Basic eA=="), "IncompleteSignatureException"),
        (put("headers", "authorization", "AWS4-HMAC-SHA256 Credential=a/b/c"), "IncompleteSignatureException"),
        (put("headers", "authorization", "Bearer x"), "AccessDeniedException"),
        (put("headers", "x-amz-security-token", "a token"), "InvalidSignatureException"),
    ],
)
def test_a_request_that_was_changed_after_it_was_signed_is_refused(aws, change, code):
    body = {"messages": said()}
    assert signed(aws, converse(), body).status == 200
    answer = signed(aws, converse(), body, change=change)
    assert answer.status == 403 and answer.headers["x-amzn-errortype"].partition(":")[0] == code, answer.text
    assert answer.headers["date"].endswith("GMT") and answer.headers["x-amzn-requestid"]
    assert fake.SECRET not in answer.text


def test_a_header_that_is_on_its_way_added_or_changed_is_no_harm(aws):
    change = put("headers", "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    assert signed(aws, converse(), {"messages": said()}, change=change).status == 200


@pytest.mark.parametrize("service", ["bedrock-runtime", "sagemaker-runtime"])
def test_a_wrong_secret_an_unknown_key_and_another_region_are_refused(client, service):
    def call(**more):
        made = client(service, **more)
        if service == "bedrock-runtime":
            return refused(made.converse, modelId=CLAUDE, messages=said())
        return refused(made.invoke_endpoint, EndpointName="vllm", Body=b"{}", ContentType="application/json")

    code, status, text = call(secret="not the secret")
    assert (code, status) == ("InvalidSignatureException", 403) and REFUSED in text
    assert call(key="AKIANOTKNOWNTOANYBODY")[:2] == ("UnrecognizedClientException", 403)
    assert call(token="unasked")[:2] == ("UnrecognizedClientException", 403)
    code, status, text = call(region="ap-south-1")
    assert (code, status) == ("InvalidSignatureException", 403) and "valid region" in text


def test_a_signature_for_another_service_is_refused(aws):
    answer = signed(aws, converse(), {"messages": said()}, service="sagemaker")
    assert answer.status == 403 and "correct service: 'bedrock'" in answer.json()["message"]


def test_a_session_token_is_wanted_and_ends(client, aws):
    key = {"secret": "temporary", "token": "the/token+of=the/session"}
    aws.set(keys={"ASIATEMPORARY": key})
    known = {"key": "ASIATEMPORARY", "secret": "temporary"}
    assert client(**known, token=key["token"]).converse(modelId=CLAUDE, messages=said())["stopReason"]
    for token in (None, "another"):
        code, status, text = refused(client(**known, token=token).converse, modelId=CLAUDE, messages=said())
        assert (code, status) == ("UnrecognizedClientException", 403) and "security token" in text
    aws.set(keys={"ASIATEMPORARY": key | {"expires": 1.0}})
    code, status, text = refused(client(**known, token=key["token"]).converse, modelId=CLAUDE, messages=said())
    assert (code, status) == ("ExpiredTokenException", 403) and "expired" in text


@pytest.mark.parametrize(("minutes", "word"), [(-6, "Signature expired"), (6, "Signature not yet current")])
def test_a_clock_that_is_off_by_more_than_five_minutes_is_refused(aws, minutes, word):
    now = datetime.datetime.now(datetime.UTC)

    def at(offset, **more):
        return signed(aws, converse(), {"messages": said()}, now=now + datetime.timedelta(minutes=offset), **more)

    assert at(minutes * 2 / 3).status == 200
    answer = at(minutes)
    assert answer.status == 403 and answer.headers["x-amzn-errortype"].startswith("InvalidSignatureException")
    assert answer.json()["message"].startswith(word)
    # Where the server's clock is off as well, nothing is.
    aws.set(ahead=minutes * 60)
    assert at(minutes).status == 200
    date = datetime.datetime.strptime(at(0).headers["date"], "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=datetime.UTC)
    assert abs((date - now).total_seconds() - minutes * 60) < 30
    aws.set(ahead=0, time_code="RequestTimeTooSkewed")
    assert at(minutes).headers["x-amzn-errortype"].startswith("RequestTimeTooSkewed")


def test_a_bearer_key_is_taken_in_place_of_a_signature(aws, unique):
    def call(key):
        headers = {"authorization": f"Bearer {key}"}
        return kit.http("POST", aws.url + converse(), {"messages": said(unique)}, headers)

    assert call(fake.BEARER).status == 200 and aws.one(unique).key == "bearer"
    answer = call("another")
    assert answer.status == 403 and answer.headers["x-amzn-errortype"].startswith("AccessDeniedException")
    # SageMaker knows no such key.
    headers = {"authorization": f"Bearer {fake.BEARER}"}
    answer = kit.http("POST", aws.url + "/endpoints/vllm/invocations", VLLM, headers)
    assert answer.status == 403 and answer.headers["x-amzn-errortype"].startswith("IncompleteSignatureException")


def test_the_roles_of_tasks_and_of_instances(aws, monkeypatch):
    aws.set(keys={"ASIAROLEOFTHETESTS04": {"secret": "secret", "token": "token"}}, role={"key": "ASIAROLEOFTHETESTS04", "lives": 3600})
    fetcher = botocore.utils.ContainerMetadataFetcher()
    task = fetcher.retrieve_full_uri(f"{aws.url}/task", headers={"Authorization": fake.TASK_TOKEN})
    assert (task["AccessKeyId"], task["SecretAccessKey"], task["Token"]) == ("ASIAROLEOFTHETESTS04", "secret", "token")
    with pytest.raises(botocore.exceptions.MetadataRetrievalError):
        fetcher.retrieve_full_uri(f"{aws.url}/task", headers={"Authorization": "another"})
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED", raising=False)
    config = {"ec2_metadata_service_endpoint": aws.url}
    instance = botocore.utils.InstanceMetadataFetcher(num_attempts=1, config=config).retrieve_iam_role_credentials()
    assert (instance["access_key"], instance["secret_key"], instance["token"]) == ("ASIAROLEOFTHETESTS04", "secret", "token")
    assert instance["role_name"] == "the-role"
    end = datetime.datetime.fromisoformat(instance["expiry_time"])
    assert 3500 < (end - datetime.datetime.now(datetime.UTC)).total_seconds() < 3700


# --- what a test may order ---------------------------------------------------------------------------------------


def test_roles_are_given_to_those_who_prove_who_they_are(client, aws):
    aws.set(keys={fake.KEY_ID: {"secret": fake.SECRET}, "ASIAROLEOFTHETESTS04": {"secret": "s", "token": "t"}})
    aws.set(role={"key": "ASIAROLEOFTHETESTS04", "lives": 900})
    role = {"RoleArn": aws_identity.ROLE_ARN, "RoleSessionName": "boto3"}
    sts = client("sts")
    for given in (
        sts.assume_role(**role, DurationSeconds=900),
        sts.assume_role_with_web_identity(**role, WebIdentityToken="web.identity.token"),
    ):
        found = given["Credentials"]
        assert (found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"]) == ("ASIAROLEOFTHETESTS04", "s", "t")
        assert 800 < (found["Expiration"] - datetime.datetime.now(datetime.UTC)).total_seconds() <= 900
    sso = {"roleName": aws_identity.ROLE_NAME, "accountId": aws_identity.ACCOUNT}
    found = client("sso").get_role_credentials(**sso, accessToken="sso-access-token")["roleCredentials"]
    assert (found["accessKeyId"], found["secretAccessKey"], found["sessionToken"]) == ("ASIAROLEOFTHETESTS04", "s", "t")

    wrong = client("sts", secret="wrong")
    assert refused(wrong.assume_role, **role)[:2] == ("InvalidSignatureException", 403)
    told = refused(sts.assume_role_with_web_identity, **role, WebIdentityToken="wrong")
    assert told[:2] == ("InvalidIdentityToken", 400)
    assert refused(sts.assume_role, **role | {"RoleArn": "arn:aws:iam::1:role/other"})[:2] == ("AccessDenied", 403)
    told = refused(client("sso").get_role_credentials, **sso, accessToken="wrong")
    assert told[:2] == ("UnauthorizedException", 401)


def modelled(service, operation):
    return [shape.name for shape in aws_model.SERVICES[service].operation_model(operation).error_shapes]


@pytest.mark.parametrize("name", modelled("bedrock-runtime", "ConverseStream"))
def test_each_modelled_exception_of_bedrock(client, aws, name):
    shape = aws_model.SERVICES["bedrock-runtime"].shape_for(name)
    more = {"originalStatusCode": 500} if name == "ModelErrorException" else {}
    aws.on(refuse={"name": name, "message": "for the test", "more": more})
    for call in (client().converse, client().converse_stream):
        code, status, text = refused(call, modelId=CLAUDE, messages=said())
        assert (code, status, text) == (name, shape.metadata["error"]["httpStatusCode"], "for the test")
    assert isinstance(getattr(client().exceptions, name), type)


@pytest.mark.parametrize("name", modelled("sagemaker-runtime", "InvokeEndpoint"))
def test_each_modelled_exception_of_sagemaker(client, aws, name):
    shape = aws_model.SERVICES["sagemaker-runtime"].shape_for(name)
    aws.on(refuse={"name": name, "message": "for the test"})
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        endpoint(client, "vllm", VLLM)
    answer = raised.value.response
    assert answer["Error"] == {"Code": name, "Message": "for the test"}
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == shape.metadata["error"]["httpStatusCode"]


def test_an_exception_without_a_model_and_an_answer_of_something_else(client, aws):
    aws.on("one", unmodelled={"name": "ThrottlingException", "status": 429, "message": "Rate exceeded"})
    aws.on("two", refuse={"status": 503, "headers": {"content-type": "text/html"}, "body": "<html>503</html>"})
    call = {"EndpointName": "vllm", "ContentType": "application/json"}
    sagemaker = client("sagemaker-runtime")
    assert refused(sagemaker.invoke_endpoint, Body=b'"one"', **call) == ("ThrottlingException", 429, "Rate exceeded")
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        sagemaker.invoke_endpoint(Body=b'"two"', **call)
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503


def test_a_rule_counts_and_concerns_those_that_it_names(client, aws, unique):
    aws.on(unique, times=2, refuse={"name": "ThrottlingException"})
    assert client().converse(modelId=CLAUDE, messages=said())["stopReason"]
    for _ in range(2):
        assert refused(client().converse, modelId=CLAUDE, messages=said(unique))[1] == 429
    assert client().converse(modelId=CLAUDE, messages=said(unique))["stopReason"]
    assert [seen.status for seen in aws.seen(unique)] == [429, 429, 200]


EXCEPTIONS = [
    kind
    for kind, shape in aws_model.SERVICES["bedrock-runtime"]
    .operation_model("ConverseStream")
    .get_event_stream_output()
    .members.items()
    if shape.metadata.get("exception")
]


@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize("kind", EXCEPTIONS)
def test_each_exception_inside_a_stream(client, aws, kind, after):
    aws.on(fault={"after": after, "exception": kind, "message": "broken within"})
    stream = client().converse_stream(modelId=CLAUDE, messages=said("one two three"))["stream"]
    seen = 0
    with pytest.raises(botocore.exceptions.EventStreamError) as raised:
        for _ in stream:
            seen += 1
    assert seen == after
    assert raised.value.response["Error"]["Code"] == kind
    assert raised.value.response["Error"]["Message"] == "broken within"


@pytest.mark.parametrize("kind", ["ModelStreamError", "InternalStreamFailure"])
def test_each_exception_inside_a_stream_of_sagemaker(client, aws, kind):
    aws.on(fault={"after": 2, "exception": kind, "message": "broken within"})
    stream = endpoint(client, "vllm", VLLM | {"stream": True}, stream=True)["Body"]
    seen = 0
    with pytest.raises(botocore.exceptions.EventStreamError) as raised:
        for _ in stream:
            seen += 1
    assert seen == 2 and raised.value.response["Error"] == {"Code": kind, "Message": "broken within"}


def test_a_frame_that_is_an_error(client, aws):
    aws.on(fault={"after": 1, "error": "InternalFailure", "message": "broken within"})
    stream = client().converse_stream(modelId=CLAUDE, messages=said())["stream"]
    with pytest.raises(botocore.exceptions.EventStreamError) as raised:
        list(stream)
    assert raised.value.response["Error"] == {"Code": "InternalFailure", "Message": "broken within"}


def raw(aws, rule):
    """The bytes of a stream, and how it ended."""
    aws.reset()
    aws.on(**rule)
    body = json.dumps({"messages": said("grüße 日本")}).encode()
    headers = {"authorization": f"Bearer {fake.BEARER}"}
    with kit.Wire(aws.url, 5) as wire:
        wire.send("POST", converse() + "-stream", headers, body)
        wire.head()
        found = []
        try:
            found += wire.pieces()
        except (ConnectionError, TimeoutError) as error:
            return found, type(error).__name__
        return found, None


def test_a_stream_is_cut_changed_and_divided_where_a_test_wants_it(aws):
    whole, end = raw(aws, {})
    data = b"".join(whole)
    assert end is None
    for piece in whole:
        assert int.from_bytes(piece[:4], "big") == len(piece)
    for rule, expected in (
        ({"cut": 50}, data[:50]),
        ({"cut": -1}, data[:-1]),
        ({"chunk": 9}, data),
        ({"flip": 20}, data[:20] + bytes([data[20] ^ 1]) + data[21:]),
    ):
        found, end = raw(aws, rule)
        assert end is None and b"".join(found) == expected
        assert "chunk" not in rule or {len(piece) for piece in found[:-1]} == {9}


def test_a_stream_is_reset(aws, client):
    aws.on(cut=50, how="reset")
    with pytest.raises(urllib3.exceptions.ProtocolError):
        list(client().converse_stream(modelId=CLAUDE, messages=said())["stream"])


def test_a_changed_byte_is_a_wrong_checksum(client, aws):
    aws.on(flip=120)
    with pytest.raises(botocore.eventstream.ChecksumMismatch):
        list(client().converse_stream(modelId=CLAUDE, messages=said())["stream"])


def test_a_stream_stalls_and_the_peers_leaving_is_noted(aws, unique):
    aws.on(unique, stall=2)
    headers = {"authorization": f"Bearer {fake.BEARER}"}
    with kit.Wire(aws.url) as wire:
        wire.send("POST", converse() + "-stream", headers, {"messages": said(unique)})
        wire.head()
        pieces = wire.pieces()
        assert len([next(pieces), next(pieces)]) == 2
        assert aws.one(unique).left is None
    seen = kit.wait_until(lambda: aws.one(unique).left and aws.one(unique), 30, "the leaving")
    assert not seen.ended


# --- the frames, made without our code, read by botocore's --------------------------------------------------------


def test_botocores_reader_reads_every_frame_at_every_cut():
    stamp = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    headers = {":message-type": "event", "yes": True, "no": False, "long": -5, "bytes": b"\x00\xff", "at": stamp, "ü": "日本"}
    data = aws_model.message(headers, b"payload") + aws_model.message({}, b"") + aws_model.message({":x": ""}, b"\x00" * 100)
    for cut in range(len(data)):
        buffer = botocore.eventstream.EventStreamBuffer()
        found = []
        for part in (data[:cut], data[cut:]):
            buffer.add_data(part)
            found += list(buffer)
        assert [message.payload for message in found] == [b"payload", b"", b"\x00" * 100]
    assert found[0].headers == headers | {"at": int(stamp.timestamp() * 1000)}


def test_botocores_reader_reads_the_streams_that_are_fixtures_of_the_adapter():
    """What our decoder is held against is what AWS's own reader takes as well."""
    files = sorted(pathlib.Path(kit.ROOT / "tests/fixtures/upstream/bedrock").glob("*.bin"))
    assert files
    for file in files:
        buffer = botocore.eventstream.EventStreamBuffer()
        buffer.add_data(file.read_bytes())
        assert all(":message-type" in message.headers for message in buffer), file


# --- S3 ----------------------------------------------------------------------------------------------------------


def test_an_object_of_a_bucket(client, aws):
    aws.set(buckets={"stored": {"team/a b/grüß.json": "größe"}})
    s3 = client("s3")
    assert s3.get_object(Bucket="stored", Key="team/a b/grüß.json")["Body"].read().decode() == "größe"
    for bucket, key, code in [("stored", "none", "NoSuchKey"), ("other", "none", "NoSuchBucket")]:
        with pytest.raises(botocore.exceptions.ClientError) as raised:
            s3.get_object(Bucket=bucket, Key=key)
        assert raised.value.response["Error"]["Code"] == code
    for wrong, code in [({"secret": "wrong"}, "SignatureDoesNotMatch"), ({"key": "AKIDNONE"}, "InvalidAccessKeyId")]:
        with pytest.raises(botocore.exceptions.ClientError) as raised:
            client("s3", **wrong).get_object(Bucket="stored", Key="none")
        error = raised.value.response
        assert (error["Error"]["Code"], error["ResponseMetadata"]["HTTPStatusCode"]) == (code, 403)
