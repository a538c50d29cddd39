"""AWS, as far as the gateway talks to it: bedrock-runtime, sagemaker-runtime, S3 and SQS (aws_sqs.py) on one port.

    aws_server.py PORT CONTROL        the service, and where tests tell it what to do

What a request may hold, what an answer holds and what a signature had to be is AWS's own code (aws_model.py); what the
models say is in aws_replies.py. Which one is asked for shows the path, as at AWS. On the same port it is what gives credentials
to programs on ECS (`/task`) and on EC2 (`/latest`, with a session of its own), and to those who prove who they are (STS and
SSO: aws_identity.py).

Tests speak to CONTROL: `POST /rule` says what befalls the requests that hold a text (in their path, headers or body),
`POST /set` changes the server's clock, keys and regions, `POST /seen` gives what came in, `POST /reset` forgets all rules and
changes. Nothing in a request itself makes the server do anything but answer it.

A rule has `match` (a text; none for all requests), `times` (how often; none for always), and of these what is to happen:

    say         what the model says: `text`, `calls`, `finish` (aws_replies.reply)
    refuse      an answer in place of the model's: `name` of a modelled exception, with `message` and `more` members;
                or any other, as `status`, `headers` and `body`
    unmodelled  with `name`, `status` and `message`: an exception that the service's model does not have
    headers     more headers of the answer
    wait        seconds before anything is sent
    pause       seconds before each frame
    stall       after that many frames nothing more comes
    fault       `after` that many frames comes another and then the end: a modelled `exception` with `message` and `more`, or
                an `error` frame with that code, or a frame with just these `headers` and `payload`
    cut         the body ends after that many bytes (negative: from its end); `how`: "reset" (as it is) or "end"
    flip        the byte at this place is changed
    chunk       the body is sent in pieces of that many bytes, and not by frames
    part        SageMaker's PayloadParts have that many bytes
"""

import asyncio
import base64
import contextlib
import dataclasses
import datetime
import email.utils
import hmac
import os
import re
import sys
import time
import traceback
import urllib.parse
import uuid
import xml.sax.saxutils

import aws_identity
import aws_model
import aws_replies
import aws_sqs
import double
from aws_model import Refused, dump, invalid

HIDDEN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
OPENAI_PATH = "/openai/v1/chat/completions"

# Whose models they are, by how their ids begin.
VENDORS = {
    "anthropic.claude-": "anthropic", "meta.llama": "llama", "amazon.titan-embed-text-v": "titan", "cohere.embed-": "cohere",
    "openai.gpt-oss-": "openai", "amazon.nova-": "nova",
}  # fmt: skip
PROFILE_ONLY = re.compile(r"anthropic\.claude-(sonnet|opus|haiku)-4-[5-9]")
GEOGRAPHY = re.compile(r"(us|us-gov|eu|apac|jp|au|global)\.")
ARN = re.compile(r"arn:aws[a-z-]*:(bedrock|sagemaker):([a-z0-9-]+):([0-9]{12})?:([a-z-]+)/(.+)")


@dataclasses.dataclass
class Key:
    """What belongs to an access key."""

    secret: str
    token: str | None = None
    # When its token ends, in seconds since 1970.
    expires: float | None = None


@dataclasses.dataclass
class Asked(double.Seen):
    """A request, what was found in it, and what became of it."""

    query: str = ""
    operation: str | None = None
    params: dict | None = None
    # The access key and the region it was signed for; "bearer" where it brought the key of the API.
    key: str | None = None
    region: str | None = None
    signed_headers: list = dataclasses.field(default_factory=list)
    status: int | None = None
    error: str | None = None

    def holds(self, text):
        head = urllib.parse.unquote(self.path) + "".join(f"\n{name}: {value}" for name, value in self.header_list)
        return text in head or text.encode() in self.body

    def shown(self):
        value = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return value | {"body": base64.b64encode(self.body).decode(), "params": None}


class World:
    """All that a test may change."""

    def __init__(self):
        self.requests, self.faults = [], []
        self.reset()

    def reset(self):
        self.rules = []
        self.cache = set()
        # How far the server's clock is ahead, and the name under which it refuses a wrong time.
        self.ahead, self.time_code = 0.0, None
        self.regions = ["us-east-1", "eu-central-1"]
        self.keys = {"AKIAFAKEAWSOFTESTS01": Key("fake+secret/of/the/tests0123456789abcdef")}
        self.bearer = "bedrock-api-key-of-the-tests"
        # What the machine's own role gives: an access key of `keys`, and for how long; none where it has no role.
        self.role = None
        # The tokens for which STS and the SSO portal give it too.
        self.web_token, self.sso_token = "web.identity.token", "sso-access-token"
        # Application inference profiles, and what they stand for.
        self.profiles = {"a1b2c3d4e5f6": "anthropic.claude-3-haiku-20240307-v1:0"}
        # SageMaker's endpoints: what runs there, under which name.
        # SQS's queues, by name (aws_sqs.Queue).
        self.queues = {}
        # S3's buckets: the text of each object, by its key.
        self.buckets = {}
        self.endpoints = {"vllm": ("vllm", "served"), "tgi": ("tgi", ""), "base": ("base", "")}

    def set(self, **values):
        for name, value in values.items():
            assert name in vars(self), name
            kind = {"keys": Key, "queues": aws_sqs.Queue}.get(name)
            setattr(self, name, {key: kind(**item) for key, item in value.items()} if kind else value)

    def rule(self, **rule):
        self.rules.append(rule)

    def seen(self, match=None):
        return [asked.shown() for asked in self.requests if match is None or asked.holds(match)]

    def wrong(self):
        """What went wrong in the server itself, told once."""
        faults, self.faults = self.faults, []
        return faults

    def now(self):
        return time.time() + self.ahead

    def rules_of(self, asked):
        """The rules for a request, as one."""
        found = {}
        for rule in self.rules:
            match, times = rule.get("match"), rule.get("times")
            if times != 0 and (match is None or asked.holds(match)):
                found |= rule
                if times is not None:
                    rule["times"] -= 1
        return found


@dataclasses.dataclass
class Reply:
    """An answer: its body, or its frames."""

    status: int
    headers: dict
    body: bytes | None = None
    frames: list | None = None


def service_error(error, asked):
    """How a refusal looks: its name in a header, as AWS writes it, and its words in a body."""
    if error.code is None:
        return Reply(error.status, error.headers, error.body if isinstance(error.body, bytes) else dump(error.body))
    # Of the two forms one is the front door's, the other the service's own.
    front = error.status == 403
    kind = f"{error.code}:http://internal.amazon.com/coral/com.amazon.coral.service/" if front else error.code
    headers = {"content-type": "application/json", "x-amzn-errortype": kind} | error.headers
    return Reply(error.status, headers, dump(error.body))


def openai_error(error):
    message = error.body.get("message") or error.body.get("Message") or "failed"
    code = {401: "invalid_api_key", 403: "invalid_api_key", 404: "model_not_found"}.get(error.status)
    kind = {429: "rate_limit_error"}.get(error.status, "server_error" if error.status >= 500 else "invalid_request_error")
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return Reply(error.status, {"content-type": "application/json"} | error.headers, dump(body))


ROLE = "/latest/meta-data/iam/security-credentials/"
TASK_TOKEN, SESSION = "token-of-the-task", "session-of-the-instance"


def role_credentials(world, asked):
    """The metadata services of ECS and EC2."""

    def said(body, status=200, **headers):
        body = body.encode() if isinstance(body, str) else dump(body)
        return Reply(status, {"content-type": "text/plain", **headers}, body)

    asked.operation = "TaskRole" if asked.path == "/task" else "InstanceRole"
    if asked.path == "/latest/api/token":
        ttl = asked.headers.get("x-aws-ec2-metadata-token-ttl-seconds")
        if asked.method != "PUT" or not ttl:
            return said("", 400)
        return said(SESSION, **{"x-aws-ec2-metadata-token-ttl-seconds": ttl})
    name, token = ("authorization", TASK_TOKEN) if asked.path == "/task" else ("x-aws-ec2-metadata-token", SESSION)
    if asked.method != "GET" or asked.headers.get(name) != token:
        return said("", 401)
    if world.role is None or asked.path not in ("/task", ROLE, f"{ROLE}the-role"):
        return said("", 404)
    if asked.path == ROLE:
        return said("the-role")
    key = world.keys[world.role["key"]]

    def stamp(seconds):
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    found = {"AccessKeyId": world.role["key"], "SecretAccessKey": key.secret, "Token": key.token}
    found["Expiration"] = stamp(world.now() + world.role["lives"])
    if asked.path != "/task":
        found |= {"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": stamp(world.now())}
    return said(found)


# What S3 calls a refusal that others call otherwise.
S3_CODES = {
    "InvalidSignatureException": "SignatureDoesNotMatch",
    "UnrecognizedClientException": "InvalidAccessKeyId",
    "MissingAuthenticationTokenException": "AccessDenied",
    "ExpiredTokenException": "ExpiredToken",
}


def s3(world, asked, rule):
    """GetObject, of a bucket that stands in the path."""
    asked.operation = "GetObject"
    _, bucket, *rest = asked.path.split("/")
    key = urllib.parse.unquote("/".join(rest))
    try:
        authorise(world, asked, "s3")
        if "refuse" in rule:
            raise refusal(None, **rule["refuse"])
        if bucket not in world.buckets:
            raise Refused(404, "NoSuchBucket", {"message": "The specified bucket does not exist"})
        if key not in world.buckets[bucket]:
            raise Refused(404, "NoSuchKey", {"message": "The specified key does not exist."})
    except Refused as error:
        asked.error = S3_CODES.get(error.code, error.code)
        message = xml.sax.saxutils.escape((error.body or {}).get("message", "") if isinstance(error.body, dict) else "")
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{asked.error}</Code><Message>{message}</Message></Error>'
        return Reply(error.status, {"content-type": "application/xml"}, body.encode())
    return Reply(200, {"content-type": "binary/octet-stream"}, world.buckets[bucket][key].encode())


def respond(world, asked, rule):
    """The answer to a request: made whole, before its first byte is sent."""
    if asked.path == "/task" or asked.path.startswith("/latest/"):
        return role_credentials(world, asked)
    if aws_sqs.is_asked(asked):
        return Reply(*aws_sqs.respond(world, asked, lambda service: authorise(world, asked, service)))
    if aws_identity.is_asked(asked):
        return Reply(*aws_identity.respond(world, asked, lambda service: authorise(world, asked, service)))
    if asked.method == "GET" and "/s3/aws4_request" in asked.headers.get("authorization", ""):
        return s3(world, asked, rule)
    operation, places = aws_model.route(asked.method, asked.path)
    openai = (asked.method, asked.path) == ("POST", OPENAI_PATH)
    asked.operation = "ChatCompletions" if openai else operation and operation.name
    try:
        if not asked.operation:
            body = {"Output": {"__type": "com.amazon.coral.service#UnknownOperationException"}, "Version": "1.0"}
            raise Refused(404, "UnknownOperationException", body)
        service = "bedrock" if openai else operation.service_model.signing_name
        authorise(world, asked, service)
        if "refuse" in rule:
            raise refusal(operation, **rule["refuse"])
        if "unmodelled" in rule:
            given = rule["unmodelled"]
            raise Refused(given["status"], given["name"], {"message": given.get("message")})
        if openai:
            return chat_completions(asked, rule)
        params = aws_model.read(operation, places, {}, asked.headers, asked.body)
        asked.params = params
        return {"bedrock": bedrock, "sagemaker": sagemaker}[service](world, asked, operation, params, rule)
    except Refused as error:
        asked.error = error.code
        if openai and error.code:
            return openai_error(error)
        if operation and operation.service_model.signing_name == "sagemaker" and error.code == "ValidationException":
            error = aws_model.error(operation, "ValidationError", error.body["message"])
            asked.error = error.code
        return service_error(error, asked)


def refusal(operation, name=None, message="refused for the test", more=None, status=None, headers=None, body=b""):
    if name:
        return aws_model.error(operation, name, message, **(more or {}))
    return Refused(status, None, body.encode() if isinstance(body, str) else body, headers)


def authorise(world, asked, service):
    scheme, _, key = asked.headers.get("authorization", "").partition(" ")
    if scheme == "Bearer" and service == "bedrock":
        if not hmac.compare_digest(key, world.bearer):
            text = "Authentication failed: Please make sure your API Key is valid."
            raise Refused(403, "AccessDeniedException", {"Message": text})
        asked.key = "bearer"
        return
    signed = aws_model.check_signature(asked, service, world.keys, world.now(), world.time_code)
    if signed.region not in world.regions:
        raise aws_model.wrong_signature("Credential should be scoped to a valid region. ")
    asked.key, asked.region, asked.signed_headers = signed.key, signed.region, signed.headers


# --- Bedrock -----------------------------------------------------------------------------------------------------


def base_model(world, asked, model):
    """A model's own id, of one that may be an ARN or a profile; and whether a profile was named."""
    profile = False
    if arn := ARN.fullmatch(model):
        _, region, _, kind, model = arn.groups()
        if asked.region not in (None, region):
            raise invalid("The provided model identifier is invalid.")
        if kind == "application-inference-profile":
            if model not in world.profiles:
                raise Refused(404, "ResourceNotFoundException", {"message": "The provided inference profile was not found."})
            model = world.profiles[model]
        profile = kind in ("inference-profile", "application-inference-profile")
    if found := GEOGRAPHY.match(model):
        model, profile = model[found.end() :], True
    return model, profile


def vendor(world, asked, id):
    model, profile = base_model(world, asked, id)
    found = next((name for start, name in VENDORS.items() if model.startswith(start)), None)
    if found is None:
        raise invalid("The provided model identifier is invalid.")
    if PROFILE_ONLY.match(model) and not profile and asked.operation != "CountTokens":
        raise invalid(
            f"Invocation of model ID {id} with on-demand throughput isn’t supported. Retry your request with the ID or ARN of"
            " an inference profile that contains this model."
        )
    return model, found


def bedrock(world, asked, operation, params, rule):
    model, whose = vendor(world, asked, params["modelId"])
    if operation.name == "CountTokens":
        given = params["input"]
        words = aws_replies.count(str(given.get("converse") or given["invokeModel"]["body"]))
        return Reply(200, *aws_model.answer(operation, {"inputTokens": words}))
    if operation.name.startswith("Converse"):
        if whose in ("titan", "cohere"):
            text = "This action doesn't support the model that you provided."
            raise invalid(f"{text} Try again with a supported text or chat model.")
        said = aws_replies.reply(aws_replies.converse_ask(params, model, world.cache), rule.get("say"))
        if operation.name == "Converse":
            return Reply(200, *aws_model.answer(operation, aws_replies.converse_answer(said, params)))
        events = aws_replies.converse_events(said, params)
        return stream(operation, [(kind, {k: v for k, v in value.items() if v is not None}) for kind, value in events], rule)
    return invoke(operation, params, model, whose, rule)


def invoke(operation, params, model, whose, rule):
    if params.get("contentType", "application/json") != "application/json":
        raise invalid("The provided Content Type is invalid or not supported for this model.")
    body, streamed = params["body"], operation.name != "InvokeModel"
    say = rule.get("say")
    if whose in ("titan", "cohere"):
        if streamed:
            raise invalid("The model is unsupported for streaming.")
        return (titan if whose == "titan" else cohere)(operation, aws_model.load(body), model)
    if whose == "anthropic":
        said = aws_replies.reply(aws_replies.anthropic_ask(body, model), say)
        whole, events = aws_replies.anthropic_answer(said, model), aws_replies.anthropic_events(said, model)
    elif whose == "llama":
        said = aws_replies.reply(aws_replies.llama_ask(body), say)
        whole, events = aws_replies.llama_answer(said), aws_replies.llama_events(said)
    else:
        raise invalid("This model is not served through InvokeModel here.")
    if streamed:
        return stream(operation, [("chunk", {"bytes": dump(event)}) for event in events], rule)
    reply = Reply(200, *aws_model.answer(operation, {"body": dump(whole), "contentType": "application/json"}))
    tokens = {"input": said.usage["in"], "output": said.usage["out"]}
    reply.headers |= {f"x-amzn-bedrock-{name}-token-count": str(count) for name, count in tokens.items()}
    return reply


def vector(text, size):
    """It tells one text from another."""
    return [((len(text) * 31 + place * ord(text[place % len(text)])) % 199 - 99) / 100 for place in range(size)]


def titan(operation, value, model):
    second = "-v2" in model
    aws_model.only(value, {"inputText"} | ({"dimensions", "normalize", "embeddingTypes"} if second else set()))
    text, size = value.get("inputText"), value.get("dimensions", 1024 if second else 1536)
    if not isinstance(text, str):
        raise aws_model.malformed("#: required key [inputText] not found")
    if not text:
        raise aws_model.malformed("expected minLength: 1, actual: 0")
    if second and size not in (256, 512, 1024):
        raise aws_model.malformed(f"#/dimensions: {size} is not a valid enum value")
    found = {"embedding": vector(text, size), "inputTextTokenCount": aws_replies.count(text)}
    if second:
        found["embeddingsByType"] = {"float": found["embedding"]}
    return Reply(200, *aws_model.answer(operation, {"body": dump(found), "contentType": "application/json"}))


def cohere(operation, value, model):
    fourth = {"output_dimension", "max_tokens"} if "-v4" in model else set()
    aws_model.only(value, {"texts", "input_type", "truncate", "embedding_types"} | fourth)
    texts, size = value.get("texts"), value.get("output_dimension", 1536 if "-v4" in model else 1024)
    if not isinstance(texts, list) or not 1 <= len(texts) <= 96 or not all(isinstance(text, str) and text for text in texts):
        raise aws_model.malformed("#/texts: expected 1 to 96 texts")
    if value.get("input_type") not in ("search_document", "search_query", "classification", "clustering"):
        raise aws_model.malformed(f"#/input_type: {value.get('input_type')} is not a valid enum value")
    vectors = [vector(text, size) for text in texts]
    kinds = value.get("embedding_types")
    if kinds not in (None, ["float"]):
        raise aws_model.malformed("#/embedding_types: only float here")
    found = {"id": str(uuid.uuid4()), "texts": texts, "response_type": "embeddings_by_type" if kinds else "embeddings_floats"}
    found["embeddings"] = {"float": vectors} if kinds else vectors
    reply = Reply(200, *aws_model.answer(operation, {"body": dump(found), "contentType": "application/json"}))
    reply.headers["x-amzn-bedrock-input-token-count"] = str(sum(map(aws_replies.count, texts)))
    return reply


def stream(operation, events, rule):
    """A stream of events. What hides the lengths of words stands in each, as AWS does it."""
    frames = [
        aws_model.event(operation, kind, value, padding=HIDDEN[: 1 + number * 7 % len(HIDDEN)])
        for number, (kind, value) in enumerate(events)
    ]
    if fault := rule.get("fault"):
        frames = [*frames[: fault["after"]], faulty(operation, **fault)]
    value = {}
    if "contentType" in operation.output_shape.members:
        value["contentType"] = "application/json"
    return Reply(200, *aws_model.answer(operation, value)[:1], frames=frames)


def faulty(operation, after, exception=None, error=None, message="broken for the test", more=None, headers=None, payload=""):
    """A frame that no good stream has."""
    if exception:
        members = operation.get_event_stream_output().members[exception].members
        name = next(name for name in members if name.lower() == "message")
        return aws_model.event(operation, exception, {name: message} | (more or {}))
    if error:
        return aws_model.message({":message-type": "error", ":error-code": error, ":error-message": message}, b"")
    return aws_model.message(headers, payload.encode())


def chat_completions(asked, rule):
    """Bedrock's endpoint of OpenAI's shape."""
    value = aws_model.load(asked.body)
    # What Bedrock says of OpenAI's members that it does not have.
    for name in ("n", "logit_bias", "logprobs"):
        if name in value:
            raise invalid(f"#: extraneous key [{name}] is not permitted")
    if not str(value.get("model", "")).startswith("openai.gpt-oss-"):
        raise Refused(404, "ResourceNotFoundException", {"message": f"The model '{value.get('model')}' does not exist"})
    try:
        said = aws_replies.reply(aws_replies.openai_ask(value), rule.get("say"))
    except aws_replies.Wrong as wrong:
        raise Refused(400, None, wrong.body, {"content-type": "application/json"}) from None
    if not value.get("stream"):
        return Reply(200, {"content-type": "application/json"}, dump(aws_replies.openai_answer(said, value, tags=True)))
    frames = list(aws_replies.openai_events(said, value, tags=True))
    return Reply(200, {"content-type": "text/event-stream"}, frames=frames)


# --- SageMaker ---------------------------------------------------------------------------------------------------


def sagemaker(world, asked, operation, params, rule):
    name = params["EndpointName"]
    if name not in world.endpoints:
        raise invalid(f"Endpoint {name} of account 123456789012 not found.")
    runs, served = world.endpoints[name]
    value = aws_model.load(params["Body"])
    streamed = operation.name != "InvokeEndpoint"
    try:
        if runs == "vllm":
            content, pieces = vllm(value, served, rule.get("say"))
        else:
            content, pieces = tgi(value, runs, rule.get("say"))
    except (aws_replies.Wrong, aws_replies.TgiWrong, Missing) as wrong:
        status = {aws_replies.Wrong: 400, aws_replies.TgiWrong: 422, Missing: 404}[type(wrong)]
        text = dump(wrong.body).decode()
        raise aws_model.error(
            operation,
            "ModelError",
            f'Received client error ({status}) from primary with message "{text}". See https://console.aws.amazon.com/.',
            OriginalStatusCode=status,
            OriginalMessage=text,
            LogStreamArn=f"arn:aws:logs:us-east-1:123456789012:log-group:/aws/sagemaker/Endpoints/{name}",
        ) from None
    value = {"ContentType": content, "InvokedProductionVariant": "AllTraffic"}
    data = b"".join(pieces)
    if not streamed:
        return Reply(200, *aws_model.answer(operation, value | {"Body": data}))
    size = rule.get("part")
    parts = [data[at : at + size] for at in range(0, len(data), size)] if size else pieces
    reply = stream(operation, [("PayloadPart", {"Bytes": part}) for part in parts], rule)
    reply.headers |= aws_model.answer(operation, value)[0]
    return reply


class Missing(aws_replies.Wrong):
    """A model of another name."""


def vllm(value, served, say):
    if value.get("model", served) != served:
        missing = Missing(f"The model `{value['model']}` does not exist.")
        missing.body["error"] |= {"type": "NotFoundError", "param": "model", "code": 404}
        raise missing
    said = aws_replies.reply(aws_replies.openai_ask(value), say)
    if value.get("stream"):
        return "text/event-stream", list(aws_replies.openai_events(said, value))
    return "application/json", [dump(aws_replies.openai_answer(said, value))]


def tgi(value, runs, say):
    if runs == "tgi" and "messages" in value:
        return vllm(value, value.get("model"), say)
    said = aws_replies.reply(aws_replies.tgi_ask(value), say)
    if runs == "base":
        # Hugging Face's toolkit: the prompt stands in front of the text, unless that is refused; no streams.
        prompt = value["inputs"] if (value.get("parameters") or {}).get("return_full_text", True) else ""
        return "application/json", [dump([{"generated_text": prompt + said.text}])]
    # TGI gives back the stop sequence that it met.
    said.text += said.stopped_by or ""
    if value.get("stream"):
        return "text/event-stream", list(aws_replies.tgi_events(said, value))
    return "application/json", [dump(aws_replies.tgi_answer(said, value))]


# --- the server --------------------------------------------------------------------------------------------------


class Server:
    def __init__(self, world):
        self.world = world

    async def serve(self, reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self.request(reader, writer):
                pass
        writer.transport.abort()

    async def request(self, reader, writer):
        seen = await double.receive(reader)
        path, _, query = seen.path.partition("?")
        asked = Asked(**(vars(seen) | {"path": path, "query": query}))
        self.world.requests.append(asked)
        rule = self.world.rules_of(asked)
        # What nobody waits for any more is not received.
        if aws_sqs.is_asked(asked) and not await double.attend(reader, asked, aws_sqs.wait(self.world, asked)):
            return False
        try:
            reply = respond(self.world, asked, rule)
        except Exception:
            self.world.faults.append(traceback.format_exc())
            reply = Reply(500, {}, b"the fake AWS is wrong here")
        asked.status = reply.status
        work = self.answer(double.Connection(writer, asked), reply, rule)
        return await double.attend(reader, asked, work) and not writer.transport.is_closing()

    async def answer(self, connection, reply, rule):
        if "wait" in rule:
            await asyncio.sleep(rule["wait"])
        headers = reply.headers | {
            "date": email.utils.formatdate(self.world.now(), usegmt=True),
            "x-amzn-requestid": str(uuid.uuid4()),
        } | rule.get("headers", {})  # fmt: skip
        data = reply.body if reply.frames is None else b"".join(reply.frames)
        pieces = [reply.body] if reply.frames is None else reply.frames
        if "stall" in rule:
            pieces = pieces[: rule["stall"]]
        if {"cut", "flip", "chunk"} & set(rule):
            data = bytearray(b"".join(pieces)[: rule.get("cut")])
            if "flip" in rule:
                data[rule["flip"]] ^= 1
            size = rule.get("chunk", len(data) or 1)
            pieces = [bytes(data[at : at + size]) for at in range(0, len(data), size)]
        chunked = reply.frames is not None
        headers |= {"transfer-encoding": "chunked"} if chunked else {"content-length": str(len(reply.body))}
        lines = [f"HTTP/1.1 {reply.status} X", *(f"{name}: {value}" for name, value in headers.items())]
        await connection.raw(("\r\n".join(lines) + "\r\n\r\n").encode())
        for piece in filter(None, pieces):
            if "pause" in rule:
                await asyncio.sleep(rule["pause"])
            await (connection.piece if chunked else connection.raw)(piece)
        if "stall" in rule:
            await double.forever()
        if rule.get("cut") is not None and (rule.get("how") == "reset" or not chunked):
            await asyncio.sleep(0.1)
            connection.cut()
        elif chunked:
            await connection.raw(b"0\r\n\r\n")

    async def control(self, reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                seen = await double.receive(reader)
                connection = double.Connection(writer, seen)
                if seen.method == "GET":
                    await connection.whole(200, {"status": "ok"})
                    continue
                try:
                    found = getattr(self.world, seen.path[1:])(**(seen.json if seen.body else {}))
                    await connection.whole(200, {"result": found})
                except Exception:
                    await connection.whole(400, {"error": traceback.format_exc()})
        writer.close()


async def main(port, control):
    server = Server(World())
    # A body may be larger than what a reader holds by default; a head may not.
    await asyncio.start_server(server.serve, "127.0.0.1", port)
    await asyncio.start_server(server.control, "127.0.0.1", control, limit=1 << 24)
    # It ends with the tests that started it.
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(1)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
