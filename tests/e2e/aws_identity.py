"""AWS's services that give credentials to those who prove who they are: STS, and the portal of IAM Identity Center (SSO).

What a request may hold and how an answer looks are botocore's models of `sts`, whose protocol is forms and XML, and of `sso`.
AssumeRole must be signed; the other two bring a token. What they give is the world's `role`, as of the metadata services.
"""

import datetime
import urllib.parse
from xml.sax.saxutils import escape

import aws_model
from aws_model import Refused

ROLE_ARN = "arn:aws:iam::123456789012:role/of-the-tests"
ACCOUNT, ROLE_NAME = "123456789012", "role-of-the-tests"

STS = {
    name: operation
    for name in ("AssumeRole", "AssumeRoleWithWebIdentity")
    for operation in [aws_model.service("sts").operation_model(name)]
}
PORTAL = aws_model.service("sso").operation_model("GetRoleCredentials")


def is_asked(asked):
    return (asked.method, asked.path) == ("POST", "/") or asked.path == PORTAL.http["requestUri"]


def respond(world, asked, authorise):
    """Status, headers and body. `authorise` refuses a request whose signature for a service is wrong."""
    if asked.path != "/":
        return portal(world, asked)
    try:
        return 200, {"content-type": "text/xml"}, sts(world, asked, authorise)
    except Refused as error:
        asked.error = error.code
        message = error.body.get("message") or error.body.get("Message") or ""
        fault = f"<Error><Type>Sender</Type><Code>{error.code}</Code><Message>{escape(message)}</Message></Error>"
        body = f'<ErrorResponse xmlns="{namespace()}">{fault}<RequestId>r</RequestId></ErrorResponse>'
        return error.status, {"content-type": "text/xml"}, body.encode()


def sts(world, asked, authorise):
    if asked.headers.get("content-type", "").partition(";")[0] != "application/x-www-form-urlencoded":
        raise Refused(400, "MalformedInput", {"message": "the body of the request is no form"})
    form = urllib.parse.parse_qs(asked.body.decode(), keep_blank_values=True, strict_parsing=True)
    form = {name: value for name, (value,) in form.items()}
    operation = STS.get(form.pop("Action", None))
    if operation is None or form.pop("Version", None) != operation.service_model.api_version:
        raise Refused(400, "InvalidAction", {"message": "Could not find operation or version"})
    asked.operation = operation.name
    shape = operation.input_shape
    if unknown := set(form) - set(shape.members):
        raise Refused(400, "ValidationError", {"message": f"unknown members {sorted(unknown)}"})
    params = {name: int(text) if shape.members[name].type_name == "integer" else text for name, text in form.items()}
    aws_model.validate(shape, params)
    if operation.name == "AssumeRole":
        authorise("sts")
    elif params["WebIdentityToken"] != world.web_token:
        raise named(operation, "InvalidIdentityTokenException", "The web identity token that was passed is not valid.")
    if world.role is None or params["RoleArn"] != ROLE_ARN:
        raise Refused(403, "AccessDenied", {"message": f"Not authorized to perform sts:{operation.name}"})
    key = world.keys[world.role["key"]]
    end = datetime.datetime.fromtimestamp(int(world.now() + world.role["lives"]), datetime.UTC)
    credentials = {"AccessKeyId": world.role["key"], "SecretAccessKey": key.secret, "SessionToken": key.token, "Expiration": end}
    user = {"AssumedRoleId": f"AROA0123456789ABCDEF:{params['RoleSessionName']}"}
    user["Arn"] = f"arn:aws:sts::{ACCOUNT}:assumed-role/of-the-tests/{params['RoleSessionName']}"
    value = aws_model.checked(operation.output_shape, {"Credentials": credentials, "AssumedRoleUser": user})
    result = element(operation.output_shape.serialization["resultWrapper"], operation.output_shape, value)
    name = f"{operation.name}Response"
    more = "<ResponseMetadata><RequestId>r</RequestId></ResponseMetadata>"
    return f'<{name} xmlns="{namespace()}">{result}{more}</{name}>'.encode()


def portal(world, asked):
    asked.operation = PORTAL.name
    try:
        if asked.method != PORTAL.http["method"]:
            raise Refused(403, "UnknownOperationException", {"message": "no such operation"})
        query = dict(urllib.parse.parse_qsl(asked.query, keep_blank_values=True, strict_parsing=True))
        params = aws_model.read(PORTAL, {}, query, asked.headers, asked.body)
        if params["accessToken"] != world.sso_token:
            raise aws_model.error(PORTAL, "UnauthorizedException", "Session token not found or invalid")
        if world.role is None or (params["accountId"], params["roleName"]) != (ACCOUNT, ROLE_NAME):
            raise aws_model.error(PORTAL, "ResourceNotFoundException", "No access")
    except Refused as error:
        asked.error = error.code
        headers = {"content-type": "application/json", "x-amzn-errortype": error.code}
        return error.status, headers, aws_model.dump(error.body)
    key = world.keys[world.role["key"]]
    end = int((world.now() + world.role["lives"]) * 1000)
    given = {"accessKeyId": world.role["key"], "secretAccessKey": key.secret, "sessionToken": key.token, "expiration": end}
    return 200, *aws_model.answer(PORTAL, {"roleCredentials": given})


def named(operation, name, message):
    """One of the operation's exceptions, under the code that the query protocol has for it."""
    (shape,) = [shape for shape in operation.error_shapes if shape.name == name]
    found = shape.metadata["error"]
    return Refused(found["httpStatusCode"], found["code"], {"message": message})


def namespace():
    return STS["AssumeRole"].service_model.metadata["xmlNamespace"]


def element(name, shape, value):
    """A value in the XML of the query protocol; the shapes here are structures of texts, numbers and times."""
    if shape.type_name == "structure":
        inside = "".join(element(key, shape.members[key], item) for key, item in value.items())
    elif shape.type_name == "timestamp":
        inside = value.strftime("%Y-%m-%dT%H:%M:%SZ")
    else:
        inside = escape(str(value))
    return f"<{name}>{inside}</{name}>"
