"""AWS's own code, turned round: requests are read, signatures checked and answers written by botocore's service models.

botocore is a client: it writes requests and reads answers. Here the same models say what a request may hold and what an
answer must, botocore's signer says what the signature had to be, and its validator looks at both directions.
"""

import base64
import binascii
import datetime
import hashlib
import hmac
import json
import re
import struct
import sys
import urllib.parse

import botocore
import botocore.auth
import botocore.awsrequest
import botocore.credentials
import botocore.loaders
import botocore.model
import botocore.validate

import kit

sys.path.insert(0, str(kit.ROOT / "tests/fixtures/upstream/bedrock"))
import check_requests  # noqa: E402

# How far a signature's time may be from the server's, in seconds.
SKEW = 300
STAMP = "%Y%m%dT%H%M%SZ"


class Refused(Exception):
    """An answer that is an error: AWS's name for it, its status and its body."""

    def __init__(self, status, code, body, headers=None):
        super().__init__(f"{status} {code}: {body}")
        self.status = status
        self.code = code
        self.body = body
        self.headers = headers or {}


def service(name):
    """A service's model, its patterns in Python's dialect."""
    data = botocore.loaders.Loader().load_service_model(name, "service-2")
    for shape in data["shapes"].values():
        if "pattern" in shape:
            text = shape["pattern"].replace(r"\p{ASCII}", r"[\x00-\x7f]").replace(r"\p{Print}", r"\x20-\x7e")
            shape["pattern"] = text.replace(r"\z", r"\Z")
    return botocore.model.ServiceModel(data, name)


SERVICES = {name: service(name) for name in ("bedrock-runtime", "sagemaker-runtime")}
SERVED = {
    "bedrock-runtime": ("Converse", "ConverseStream", "InvokeModel", "InvokeModelWithResponseStream", "CountTokens"),
    "sagemaker-runtime": ("InvokeEndpoint", "InvokeEndpointWithResponseStream"),
}


def _routes():
    for name, operations in SERVED.items():
        for operation in map(SERVICES[name].operation_model, operations):
            path = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", operation.http["requestUri"])
            yield operation.http["method"], re.compile(path), operation


ROUTES = list(_routes())


def route(method, path):
    """The operation that a path (as it came, undecoded) names, and the members that are in the path."""
    for verb, pattern, operation in ROUTES:
        if verb == method and (found := pattern.fullmatch(path)):
            return operation, {name: urllib.parse.unquote(text) for name, text in found.groupdict().items()}
    return None, {}


# --- requests ----------------------------------------------------------------------------------------------------


def invalid(message):
    return Refused(400, "ValidationException", {"message": message})


def malformed(message):
    text = f"Malformed input request: {message}, please reformat your input and try again."
    return invalid(f"The model returned the following errors: {text}")


def only(value, names):
    """Refuses the members of a model's own body that it does not have."""
    for name in value:
        if name not in names:
            raise malformed(f"#: extraneous key [{name}] is not permitted")


def unique_members(pairs):
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError(f"a member stands twice in {[name for name, _ in pairs]}")
    return found


def load(body):
    """JSON that is JSON: no member twice, no NaN."""

    def refuse(name):
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(body, object_pairs_hook=unique_members, parse_constant=refuse)
    except ValueError as error:
        raise Refused(400, "SerializationException", {"message": f"Could not parse the request body: {error}"}) from None


def extraneous(shape, value, at="#"):
    """Where the first member stands that the model does not have."""
    if shape.type_name == "structure" and not shape.is_document_type and isinstance(value, dict):
        for name, item in value.items():
            if name not in shape.members or "location" in shape.members[name].serialization:
                return f"{at}: extraneous key [{name}] is not permitted"
            if found := extraneous(shape.members[name], item, f"{at}/{name}"):
                return found
    elif shape.type_name in ("list", "map") and isinstance(value, (list, dict)):
        inner = shape.member if shape.type_name == "list" else shape.value
        items = enumerate(value) if isinstance(value, list) else value.items()
        for name, item in items:
            if found := extraneous(inner, item, f"{at}/{name}"):
                return found
    return None


def read(operation, uri, query, headers, body):
    """A request's members as botocore's callers would give them. What the model does not allow is refused."""
    shape = operation.input_shape
    payload = shape.serialization.get("payload")
    params = {}
    for name, member in shape.members.items():
        where, key = member.serialization.get("location"), member.serialization.get("name", name)
        source = {"uri": uri, "querystring": query, "header": headers}.get(where, {})
        key = key.lower() if where == "header" else key
        if key in source:
            params[name] = source[key]
    if payload and shape.members[payload].type_name == "blob":
        params[payload] = body
    elif body:
        value = load(body)
        if not isinstance(value, dict):
            raise Refused(400, "SerializationException", {"message": "The request body is no JSON object"})
        if found := extraneous(shape, value):
            raise malformed(found)
        params |= value
        try:
            params = check_requests.decoded(shape, params, "")
        except (TypeError, ValueError) as error:
            raise Refused(400, "SerializationException", {"message": f"Not base64: {error}"}) from None
    validate(shape, params)
    return params


def validate(shape, params):
    report = botocore.validate.ParamValidator().validate(params, shape)
    wrong = report.generate_report().splitlines() if report.has_errors() else []
    if not wrong:
        check_requests.strict(shape, params, "", wrong)
    if wrong:
        noun = "error" if len(wrong) == 1 else "errors"
        raise invalid(f"{len(wrong)} validation {noun} detected: {'; '.join(wrong)}")


# --- answers -----------------------------------------------------------------------------------------------------


def plain(shape, value):
    """A value as JSON has it. What the model does not say is a fault of the server's own."""
    if shape.type_name == "structure" and not shape.is_document_type:
        assert set(value) <= set(shape.members), f"{shape.name} has no {set(value) - set(shape.members)}"
        return {name: plain(shape.members[name], item) for name, item in value.items() if item is not None}
    if shape.type_name == "list":
        return [plain(shape.member, item) for item in value]
    if shape.type_name == "map":
        return {name: plain(shape.value, item) for name, item in value.items()}
    return base64.b64encode(value).decode() if shape.type_name == "blob" else value


def dump(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def checked(shape, value):
    """`value` without its None, held against the model."""
    value = {name: item for name, item in value.items() if item is not None}
    report = botocore.validate.ParamValidator().validate(value, shape)
    assert not report.has_errors(), report.generate_report()
    return value


def answer(operation, value):
    """Headers and body of a success; the body is empty where it is an event stream."""
    shape = operation.output_shape
    stream = operation.get_event_stream_output()
    payload = shape.serialization.get("payload")
    headers = {"content-type": "application/json"}
    inside = {}
    for name, item in value.items():
        member = shape.members[name]
        if item is not None and member.serialization.get("location") == "header":
            headers[member.serialization.get("name", name).lower()] = item
        elif item is not None:
            inside[name] = item
    if stream is not None:
        assert not inside
        return headers | {"content-type": "application/vnd.amazon.eventstream"}, b""
    if payload:
        return headers, inside[payload]
    return headers, dump(plain(shape, checked(shape, value)))


def error(operation, name, message, **more):
    """One of the exceptions that the model gives to the operation."""
    (shape,) = [shape for shape in operation.error_shapes if shape.name == name]
    named = {member.lower(): member for member in shape.members}
    body = plain(shape, checked(shape, {named["message"]: message} | more))
    # The two of SageMaker's streams have no status of their own; in front of the stream they are plain failures.
    return Refused(shape.metadata.get("error", {}).get("httpStatusCode", 500), name, body)


# --- event streams -----------------------------------------------------------------------------------------------


def header(name, value):
    """One header of a message: its name, its type, its value."""
    name = name.encode()
    head = struct.pack("!B", len(name)) + name
    if isinstance(value, bool):
        return head + (b"\x00" if value else b"\x01")
    if isinstance(value, int):
        return head + b"\x05" + struct.pack("!q", value)
    if isinstance(value, datetime.datetime):
        return head + b"\x08" + struct.pack("!q", round(value.timestamp() * 1000))
    kind, value = (b"\x07", value.encode()) if isinstance(value, str) else (b"\x06", value)
    return head + kind + struct.pack("!H", len(value)) + value


def message(headers, payload):
    """One message: prelude with its checksum, headers, payload, checksum of all."""
    head = b"".join(header(*pair) for pair in headers.items())
    prelude = struct.pack("!II", 16 + len(head) + len(payload), len(head))
    data = prelude + struct.pack("!I", binascii.crc32(prelude)) + head + payload
    return data + struct.pack("!I", binascii.crc32(data))


def event(operation, kind, value, padding=None):
    """A modelled event or exception of the operation's stream. `padding`: what AWS puts into `p` to hide lengths."""
    stream = operation.get_event_stream_output()
    shape = stream.members[kind]
    value = checked(shape, value)
    kinds = ("exception", ":exception-type") if shape.metadata.get("exception") else ("event", ":event-type")
    payload = next((name for name, item in shape.members.items() if item.serialization.get("eventpayload")), None)
    if payload:
        content, body = "application/octet-stream", value[payload]
    else:
        content, body = "application/json", plain(shape, value)
        body = dump(body | ({"p": padding} if padding else {}))
    return message({kinds[1]: kind, ":content-type": content, ":message-type": kinds[0]}, body)


# --- signatures --------------------------------------------------------------------------------------------------

MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and"
    " signing method. Consult the service documentation for details."
)
# What proxies change, add or take away: it must not be signed.
NEVER_SIGNED = {"authorization", "traceparent", "tracestate", "connection", "transfer-encoding", "user-agent", "x-request-id"}


def unsigned(code, message):
    return Refused(403, code, {"message": message})


def wrong_signature(message):
    return unsigned("InvalidSignatureException", message)


class Signed:
    """The parts of an Authorization header of SigV4."""

    def __init__(self, text):
        scheme, _, rest = text.partition(" ")
        if scheme != "AWS4-HMAC-SHA256":
            raise unsigned("IncompleteSignatureException", f"'{scheme}' is not a scheme that is known here")
        parts = dict(part.strip().partition("=")[::2] for part in rest.split(","))
        lacking = [name for name in ("Credential", "Signature", "SignedHeaders") if not parts.get(name)]
        if lacking:
            text = " ".join(f"Authorization header requires '{name}' parameter." for name in lacking)
            raise unsigned("IncompleteSignatureException", text)
        scope = parts["Credential"].split("/")
        if len(scope) != 5 or scope[4] != "aws4_request":
            wanted = "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term"
            raise unsigned("IncompleteSignatureException", f"{wanted}, got '{'/'.join(scope)}'")
        self.key, self.date, self.region, self.service, _ = scope
        self.headers = parts["SignedHeaders"].split(";")
        self.signature = parts["Signature"]


def check_signature(seen, service, keys, now, code=None):
    """Refuses a request that is not signed as it must be. Gives the parts of its signature.

    `keys`: access keys with what belongs to each. `now`: the server's time. `code`: the name under which a wrong time is
    refused, where it is not InvalidSignatureException.
    """
    if "authorization" not in seen.headers:
        raise unsigned("MissingAuthenticationTokenException", "Missing Authentication Token")
    signed = Signed(seen.headers["authorization"])
    check_header_list(signed, seen.headers)
    if signed.service != service:
        raise wrong_signature(f"Credential should be scoped to correct service: '{service}'. ")
    check_time(signed, seen.headers, now, code)
    keys = keys.get(signed.key)
    if keys is None or keys.token != seen.headers.get("x-amz-security-token"):
        raise unsigned("UnrecognizedClientException", "The security token included in the request is invalid.")
    if keys.expires is not None and keys.expires <= now:
        raise unsigned("ExpiredTokenException", "The security token included in the request is expired")
    claimed = seen.headers.get("x-amz-content-sha256")
    if service == "s3" and claimed is None:
        raise unsigned("MissingSecurityHeader", "Your request was missing a required header: x-amz-content-sha256")
    if claimed not in (None, hashlib.sha256(seen.body).hexdigest()):
        raise wrong_signature("The value passed in as x-amz-content-sha256 does not match the computed SHA-256 of the payload.")

    # The request as botocore would have built it, with those headers that are said to be signed.
    target = seen.path + (f"?{seen.query}" if seen.query else "")
    request = botocore.awsrequest.AWSRequest(method=seen.method, url=f"http://aws{target}", data=seen.body)
    for name, value in seen.header_list:
        if name.lower() in signed.headers:
            request.headers.add_header(name, value)
    request.context["timestamp"] = seen.headers["x-amz-date"]
    credentials = botocore.credentials.Credentials(signed.key, keys.secret, keys.token)
    # S3 does not encode the path once more.
    signer = (botocore.auth.S3SigV4Auth if service == "s3" else botocore.auth.SigV4Auth)(credentials, service, signed.region)
    canonical = signer.canonical_request(request)
    to_sign = signer.string_to_sign(request, canonical)
    if not hmac.compare_digest(signer.signature(to_sign, request), signed.signature):
        raise wrong_signature(
            f"{MISMATCH}\n\nThe Canonical String for this request should have been\n'{canonical}'"
            f"\n\nThe String-to-Sign should have been\n'{to_sign}'\n"
        )
    return signed


def check_header_list(signed, headers):
    if "host" not in signed.headers:
        raise wrong_signature("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
    if signed.headers != sorted(set(signed.headers)):
        raise wrong_signature("The 'SignedHeaders' of the AWS Authorization are not sorted.")
    for name in headers:
        if (name == "content-type" or name.startswith("x-amz-")) and name not in signed.headers:
            raise wrong_signature(f"'{name}' must be a 'SignedHeader' in the AWS Authorization.")
    for name in signed.headers:
        if name not in headers or name in NEVER_SIGNED:
            raise wrong_signature(f"'{name}' must not be a 'SignedHeader' in the AWS Authorization.")


def check_time(signed, headers, now, code):
    stamp = headers.get("x-amz-date", "")
    try:
        at = datetime.datetime.strptime(stamp, STAMP).replace(tzinfo=datetime.UTC).timestamp()
    except ValueError:
        text = f"Date must be in ISO-8601 'basic format'. Got '{stamp}'. See http://en.wikipedia.org/wiki/ISO_8601"
        raise unsigned("IncompleteSignatureException", text) from None
    if signed.date != stamp[:8]:
        raise wrong_signature(
            f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
            f"'{signed.date}' != '{stamp[:8]}', from '{stamp}'."
        )

    def show(seconds):
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime(STAMP)

    text = None
    if at < now - SKEW:
        text = f"Signature expired: {stamp} is now earlier than {show(now - SKEW)} ({show(now)} - 5 min.)"
    elif at > now + SKEW:
        text = f"Signature not yet current: {stamp} is still later than {show(now + SKEW)} ({show(now)} + 5 min.)"
    if text:
        raise unsigned(code or "InvalidSignatureException", "Request has expired." if code == "RequestExpired" else text)
