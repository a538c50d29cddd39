"""AWS's standard chain of credentials, as the native binary follows it: environment, profile, ECS, EC2; and its renewal."""

import threading
import time

import pytest

import aws as fake
import kit
from conftest import KEY
from test_bedrock import CLAUDE, text_of

pytestmark = [pytest.mark.gateway_only, pytest.mark.host_only]

KEYS = {
    "ASIAONE": {"secret": "the/secret+of/one", "token": "the/token+of/one"},
    "ASIATWO": {"secret": "the/secret+of/two", "token": "the/token+of/two"},
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
    one = KEYS["ASIAONE"]
    names = {"AWS_ACCESS_KEY_ID": "ASIAONE", "AWS_SECRET_ACCESS_KEY": one["secret"], "AWS_SESSION_TOKEN": one["token"]}
    assert text_of(chain(**names).chat("claude", unique)) == f"echo: {unique}"
    assert keys_of(aws, unique) == ["ASIAONE"]


def test_a_profile(chain, aws, unique, folder):
    path = folder / "credentials"
    lines = ["aws_access_key_id = ASIATWO", f"aws_secret_access_key = {KEYS['ASIATWO']['secret']}"]
    lines += [f"aws_session_token = {KEYS['ASIATWO']['token']}"]
    path.write_text("\n".join(["[default]", "aws_access_key_id = A", "aws_secret_access_key = B", "[other]", *lines, ""]))
    gateway = chain(AWS_SHARED_CREDENTIALS_FILE=str(path), AWS_PROFILE="other")
    assert gateway.chat("claude", unique).status == 200 and keys_of(aws, unique) == ["ASIATWO"]


@pytest.mark.parametrize("source", [task, instance])
def test_a_role_is_asked_for_once_for_all_requests(chain, aws, unique, source):
    aws.set(role={"key": "ASIAONE", "lives": 3600})
    before = given(aws)
    gateway = chain(**source(aws))
    found = []
    threads = [threading.Thread(target=lambda: found.append(gateway.chat("claude", unique).status)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [200] * 8 and keys_of(aws, unique) == ["ASIAONE"] * 8
    assert given(aws) == before + 1


@pytest.mark.parametrize("source", [task, instance])
def test_credentials_that_are_about_to_end_are_asked_for_anew(chain, aws, unique, source):
    """Those that live for less than five minutes; nobody is refused meanwhile."""
    aws.set(role={"key": "ASIAONE", "lives": 120})
    gateway = chain(**source(aws))
    assert gateway.chat("claude", unique).status == 200
    aws.set(role={"key": "ASIATWO", "lives": 3600})
    for _ in range(3):
        assert gateway.chat("claude", unique).status == 200
    assert keys_of(aws, unique) == ["ASIAONE", "ASIATWO", "ASIATWO", "ASIATWO"]


def test_the_old_ones_serve_while_there_are_no_new_ones(chain, aws, unique):
    aws.set(role={"key": "ASIAONE", "lives": 120})
    gateway = chain(**task(aws))
    assert gateway.chat("claude", unique).status == 200
    aws.set(role=None)
    assert gateway.chat("claude", unique).status == 200
    assert keys_of(aws, unique) == ["ASIAONE"] * 2


def test_without_credentials_a_request_fails_and_says_why(chain, aws, unique):
    gateway = chain(**task(aws))
    for stream in (False, True):
        answer = gateway.chat("claude", unique, stream=stream)
        assert answer.status == 502 and answer.error["provider"] == "aws", answer.text
        assert answer.error["code"] == "aws_credentials" and "credentials" in answer.error["message"]
    assert aws.seen(unique) == []
    # A service that fails is not asked for each request, and once it gives them requests are served again.
    aws.set(role={"key": "ASIAONE", "lives": 3600})
    kit.wait_until(lambda: gateway.chat("claude", unique).status == 200, 15, "credentials", every=0.5)
    assert fake.TASK_TOKEN not in gateway.process.output()


def test_a_service_of_credentials_that_hangs_does_not_hang_the_gateway(chain, aws, unique):
    aws.on("/task", wait=60)
    gateway = chain(**task(aws))
    began = time.monotonic()
    answer = gateway.chat("claude", unique)
    assert answer.status == 502 and time.monotonic() - began < 20
    assert kit.http("GET", gateway.url + "/health").status == 200
