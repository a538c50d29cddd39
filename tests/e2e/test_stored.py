"""Stored configurations in a bucket: signed as botocore would, found by key and version, missing ones told."""

import pytest

import aws as fake
from conftest import KEY

pytestmark = pytest.mark.gateway_only

STORED = '{"provider": "stub", "model": "m", "message": [{"role": "user", "content": "Say {{a}}"}]}'


@pytest.fixture
def gateway(start, aws):
    aws.set(buckets={"stored": {"team/a b/grüß.2.json": STORED, "team/a b/wrong.latest.json": "{"}})

    def begin(secret=fake.SECRET):
        bucket = {"bucket": "stored", "prefix": "team", "region": fake.REGION, "endpoint": aws.url}
        bucket |= {"access_key_id": fake.KEY_ID, "secret_access_key": secret}
        return start(
            {"server": {"api_keys": [KEY]}, "providers": {"stub": {"adapter": "stub"}}, "documents": {"s3": bucket}}
        )

    return begin


def invoke(gateway, **payload):
    return gateway.http("POST", "/invoke", payload)


def test_one_of_a_bucket(gateway, aws):
    server = gateway()
    answer = invoke(server, key="a b/grüß", version="2", data={"a": "A"})
    assert answer.status == 200 and "Say A" in answer.body.decode(), answer
    asked = [seen for seen in aws.seen() if seen.operation == "GetObject" and seen.status == 200]
    assert {(seen.key, seen.region) for seen in asked} == {(fake.KEY_ID, fake.REGION)}
    assert invoke(server, key="a b/grüß", data={}).status == 404
    assert invoke(server, key="a b/wrong", data={}).status == 400


def test_one_that_the_bucket_refuses(gateway):
    answer = invoke(gateway("wrong"), key="a b/grüß", version="2", data={"a": "A"})
    assert answer.status == 503 and "SignatureDoesNotMatch" in answer.body.decode(), answer
