"""AWS's standard chain of credentials, as the native binary follows it: environment, profile, a role that is assumed, SSO, web
identity, ECS, EC2; and its renewal."""

import datetime
import hashlib
import json
import threading
import time

import pytest

import aws as fake
import aws_identity
import kit
from conftest import KEY
from test_bedrock import CLAUDE, text_of

pytestmark = [pytest.mark.gateway_only, pytest.mark.host_only]

KEYS = {
    "ASIAONEOFTHETESTS001": {"secret": "the/secret+of/one", "token": "the/token+of/one"},
    "ASIATWOOFTHETESTS002": {"secret": "the/secret+of/two", "token": "the/token+of/two"},
}


@pytest.fixture
def chain(start, aws, folder):
    """Starts a gateway whose only credentials are those of its environment."""
    aws.set(keys=KEYS)
    nothing = str(folder / "nothing")

    def begin(**variables):
        provider = {"adapter": "bedrock", "endpoint": aws.url, "settings": {"region": fake.REGION}}
        config = {"server": {"api_keys": [KEY]}, "providers": {"aws": provider}}
        config["models"] = {"claude": {"target": f"aws/{CLAUDE}"}}
        # Nothing of the machine that the tests run on.
        none = {"AWS_CONFIG_FILE": nothing, "AWS_SHARED_CREDENTIALS_FILE": nothing, "AWS_EC2_METADATA_DISABLED": "true"}
        return start(config, variables=none | variables)

    return begin


def task(aws):
    return {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{aws.url}/task", "AWS_CONTAINER_AUTHORIZATION_TOKEN": fake.TASK_TOKEN}


def instance(aws):
    return {"AWS_EC2_METADATA_SERVICE_ENDPOINT": aws.url, "AWS_EC2_METADATA_DISABLED": "false"}


def keys_of(aws, text):
    return [seen.key for seen in aws.seen(text)]


def given(aws):
    """How often credentials were given."""
    return sum(seen.status == 200 and seen.path.endswith(("/task", "/the-role")) for seen in aws.seen())


def test_the_environment(chain, aws, unique):
    one = KEYS["ASIAONEOFTHETESTS001"]
    names = {"AWS_ACCESS_KEY_ID": "ASIAONEOFTHETESTS001", "AWS_SECRET_ACCESS_KEY": one["secret"], "AWS_SESSION_TOKEN": one["token"]}
    assert text_of(chain(**names).chat("claude", unique)) == f"echo: {unique}"
    assert keys_of(aws, unique) == ["ASIAONEOFTHETESTS001"]


def test_a_profile(chain, aws, unique, folder):
    path = folder / "credentials"
    lines = ["aws_access_key_id = ASIATWOOFTHETESTS002", f"aws_secret_access_key = {KEYS['ASIATWOOFTHETESTS002']['secret']}"]
    lines += [f"aws_session_token = {KEYS['ASIATWOOFTHETESTS002']['token']}"]
    path.write_text("\n".join(["[default]", "aws_access_key_id = A", "aws_secret_access_key = B", "[other]", *lines, ""]))
    gateway = chain(AWS_SHARED_CREDENTIALS_FILE=str(path), AWS_PROFILE="other")
    assert gateway.chat("claude", unique).status == 200 and keys_of(aws, unique) == ["ASIATWOOFTHETESTS002"]


@pytest.mark.parametrize("source", [task, instance])
def test_a_role_is_asked_for_once_for_all_requests(chain, aws, unique, source):
    aws.set(role={"key": "ASIAONEOFTHETESTS001", "lives": 3600})
    before = given(aws)
    gateway = chain(**source(aws))
    found = []
    threads = [threading.Thread(target=lambda: found.append(gateway.chat("claude", unique).status)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [200] * 8 and keys_of(aws, unique) == ["ASIAONEOFTHETESTS001"] * 8
    assert given(aws) == before + 1


@pytest.mark.parametrize("source", [task, instance])
def test_credentials_that_are_about_to_end_are_asked_for_anew(chain, aws, unique, source):
    """Those that live for less than five minutes; nobody is refused meanwhile."""
    aws.set(role={"key": "ASIAONEOFTHETESTS001", "lives": 120})
    gateway = chain(**source(aws))
    assert gateway.chat("claude", unique).status == 200
    aws.set(role={"key": "ASIATWOOFTHETESTS002", "lives": 3600})
    for _ in range(3):
        assert gateway.chat("claude", unique).status == 200
    assert keys_of(aws, unique) == ["ASIAONEOFTHETESTS001", "ASIATWOOFTHETESTS002", "ASIATWOOFTHETESTS002", "ASIATWOOFTHETESTS002"]


# --- those who prove who they are --------------------------------------------------------------------------------

WEB_TOKEN, SSO_TOKEN = "web.identity.token", "sso-access-token"


def web_identity(aws, folder, token=WEB_TOKEN):
    path = folder / "web-identity"
    path.write_text(token)
    names = {"AWS_WEB_IDENTITY_TOKEN_FILE": str(path), "AWS_ROLE_ARN": aws_identity.ROLE_ARN, "AWS_REGION": fake.REGION}
    return names | {"AWS_ROLE_SESSION_NAME": "of-the-tests", "AWS_ENDPOINT_URL_STS": aws.url}


def calls(aws, operation):
    return [seen for seen in aws.seen() if seen.operation == operation]


def test_a_web_identity(chain, aws, unique, folder):
    aws.set(role={"key": "ASIAONEOFTHETESTS001", "lives": 3600})
    before = len(calls(aws, "AssumeRoleWithWebIdentity"))
    gateway = chain(**web_identity(aws, folder))
    assert text_of(gateway.chat("claude", unique)) == f"echo: {unique}"
    assert gateway.chat("claude", unique).status == 200
    assert keys_of(aws, unique) == ["ASIAONEOFTHETESTS001"] * 2
    (asked,) = calls(aws, "AssumeRoleWithWebIdentity")[before:]
    assert asked.status == 200 and "authorization" not in asked.headers
    assert WEB_TOKEN not in gateway.process.output()


def test_the_token_of_a_web_identity_is_read_anew(chain, aws, unique, folder):
    """What runs the gateway replaces the file before the token in it ends."""
    aws.set(role={"key": "ASIAONEOFTHETESTS001", "lives": 120})
    gateway = chain(**web_identity(aws, folder))
    assert gateway.chat("claude", unique).status == 200
    aws.set(role={"key": "ASIATWOOFTHETESTS002", "lives": 3600}, web_token="another.token")
    web_identity(aws, folder, "another.token")
    assert gateway.chat("claude", unique).status == 200
    assert keys_of(aws, unique) == ["ASIAONEOFTHETESTS001", "ASIATWOOFTHETESTS002"]


def test_a_web_identity_that_is_refused_is_told_and_its_token_is_not(chain, aws, unique, folder):
    aws.set(role={"key": "ASIAONEOFTHETESTS001", "lives": 3600})
    gateway = chain(**web_identity(aws, folder, "a.wrong.token"))
    answer = gateway.chat("claude", unique)
    assert answer.status == 502 and answer.error["code"] == "aws_credentials", answer.text
    assert aws.seen(unique) == []
    assert "a.wrong.token" not in answer.text + gateway.process.output()


def profile(folder, **sections):
    """The file of AWS's configuration."""
    path = folder / "config"
    lines = [line for name, section in sections.items() for line in (f"[{name.replace('_', ' ', 1)}]", *section, "")]
    path.write_text("\n".join(lines))
    return {"AWS_CONFIG_FILE": str(path), "AWS_PROFILE": "dev", "AWS_REGION": fake.REGION}


def test_a_profile_that_assumes_a_role(chain, aws, unique, folder):
    keys = {"AKIASOURCEOFTESTS003": {"secret": "the/secret+of/the/source"}}
    aws.set(keys=KEYS | keys, role={"key": "ASIAONEOFTHETESTS001", "lives": 3600})
    source = ["aws_access_key_id = AKIASOURCEOFTESTS003", "aws_secret_access_key = the/secret+of/the/source"]
    role = [f"role_arn = {aws_identity.ROLE_ARN}", "source_profile = source", "role_session_name = of-the-tests"]
    names = profile(folder, profile_source=source, profile_dev=role) | {"AWS_ENDPOINT_URL_STS": aws.url}
    before = len(calls(aws, "AssumeRole"))
    gateway = chain(**names)
    assert gateway.chat("claude", unique).status == 200
    assert keys_of(aws, unique) == ["ASIAONEOFTHETESTS001"]
    (asked,) = calls(aws, "AssumeRole")[before:]
    assert (asked.status, asked.key, asked.region) == (200, "AKIASOURCEOFTESTS003", fake.REGION)
    # A wrong secret is found out by the signature of that request.
    source[1] = "aws_secret_access_key = another"
    gateway = chain(**names | profile(folder, profile_source=source, profile_dev=role))
    answer = gateway.chat("claude", unique)
    assert answer.status == 502 and answer.error["code"] == "aws_credentials", answer.text


SSO_URL = "https://d-0123456789.awsapps.com/start"
SSO = ["sso_region = us-east-1", f"sso_start_url = {SSO_URL}"]
SSO_ROLE = [f"sso_account_id = {aws_identity.ACCOUNT}", f"sso_role_name = {aws_identity.ROLE_NAME}"]


def signed_in(home, name, token=SSO_TOKEN, hours=1.0):
    """What `aws sso login` leaves."""
    cache = home / ".aws" / "sso" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=hours)
    value = {"accessToken": token, "expiresAt": end.strftime("%Y-%m-%dT%H:%M:%SZ"), "region": "us-east-1", "startUrl": SSO_URL}
    (cache / f"{hashlib.sha1(name.encode()).hexdigest()}.json").write_text(json.dumps(value))


@pytest.mark.parametrize("session", [True, False])
def test_the_token_cache_of_sso(chain, aws, unique, tmp_path, session):
    """Of a session that several profiles share, and of a profile alone."""
    aws.set(role={"key": "ASIAONEOFTHETESTS001", "lives": 3600})
    if session:
        names = profile(tmp_path, profile_dev=["sso_session = work", *SSO_ROLE], **{"sso-session_work": SSO})
        signed_in(tmp_path, "work")
    else:
        names = profile(tmp_path, profile_dev=[*SSO, *SSO_ROLE])
        signed_in(tmp_path, SSO_URL)
    gateway = chain(HOME=str(tmp_path), AWS_ENDPOINT_URL_SSO=aws.url, **names)
    assert text_of(gateway.chat("claude", unique)) == f"echo: {unique}"
    assert keys_of(aws, unique) == ["ASIAONEOFTHETESTS001"]
    assert calls(aws, "GetRoleCredentials")[-1].status == 200
    assert SSO_TOKEN not in gateway.process.output()


@pytest.mark.parametrize("token, hours", [("a-wrong-token", 1.0), (SSO_TOKEN, -1.0), (None, 0.0)])
def test_who_is_not_signed_in_to_sso_is_told(chain, aws, unique, tmp_path, token, hours):
    aws.set(role={"key": "ASIAONEOFTHETESTS001", "lives": 3600})
    names = profile(tmp_path, profile_dev=["sso_session = work", *SSO_ROLE], **{"sso-session_work": SSO})
    if token:
        signed_in(tmp_path, "work", token, hours)
    gateway = chain(HOME=str(tmp_path), AWS_ENDPOINT_URL_SSO=aws.url, **names)
    answer = gateway.chat("claude", unique)
    assert answer.status == 502 and answer.error["code"] == "aws_credentials", answer.text
    assert "a-wrong-token" not in answer.text + gateway.process.output()
    assert aws.seen(unique) == []


def test_the_old_ones_serve_while_there_are_no_new_ones(chain, aws, unique):
    aws.set(role={"key": "ASIAONEOFTHETESTS001", "lives": 120})
    gateway = chain(**task(aws))
    assert gateway.chat("claude", unique).status == 200
    aws.set(role=None)
    assert gateway.chat("claude", unique).status == 200
    assert keys_of(aws, unique) == ["ASIAONEOFTHETESTS001"] * 2


def test_without_credentials_a_request_fails_and_says_why(chain, aws, unique):
    gateway = chain(**task(aws))
    for stream in (False, True):
        answer = gateway.chat("claude", unique, stream=stream)
        assert answer.status == 502 and answer.error["provider"] == "aws", answer.text
        assert answer.error["code"] == "aws_credentials" and "credentials" in answer.error["message"]
    assert aws.seen(unique) == []
    # A service that fails is not asked for each request, and once it gives them requests are served again.
    aws.set(role={"key": "ASIAONEOFTHETESTS001", "lives": 3600})
    kit.wait_until(lambda: gateway.chat("claude", unique).status == 200, 60, "credentials", every=0.5)
    assert fake.TASK_TOKEN not in gateway.process.output()


def test_a_service_of_credentials_that_hangs_does_not_hang_the_gateway(chain, aws, unique):
    aws.on("/task", wait=60)
    gateway = chain(**task(aws))
    began = time.monotonic()
    answer = gateway.chat("claude", unique)
    assert answer.status == 502 and time.monotonic() - began < 40
    assert kit.http("GET", gateway.url + "/health").status == 200
