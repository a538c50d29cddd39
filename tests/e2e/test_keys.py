"""`witgate keys`: what operators type, against a gateway that runs."""

import json
import subprocess
import time

import pytest

import kit
import shapes
from test_gateway import minimal

pytestmark = [pytest.mark.gateway_only, pytest.mark.host_only]

ADMIN = "admin-key"


@pytest.fixture
def keys(start, double):
    """A gateway with an admin API, and what runs the command for it."""
    gateway = start(minimal(double.url) | {"admin": {"key": ADMIN}, "keys": {"batch": {"secret": "sk-batch"}}})

    def run(*arguments, url=gateway.url, key=ADMIN):
        environment = shapes.environment({"WITGATE_URL": url} | ({"WITGATE_ADMIN_KEY": key} if key else {}))
        command = [shapes.BINARY, "keys", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)

    def done(*arguments):
        ended = run(*arguments)
        assert (ended.returncode, ended.stderr) == (0, ""), ended
        return ended.stdout

    run.done = done
    return gateway, run


def status(gateway, secret, model="local/ok"):
    return gateway.chat(model, headers={"authorization": f"Bearer {secret}"}).status


def test_a_key_is_made_with_its_terms_listed_rotated_and_revoked(keys):
    gateway, run = keys
    expires = int(time.time()) + 86_400
    terms = ["--tenant", "research", "--model", "local/ok*", "--route", "openai-*", "--metadata", "owner=ada"]
    limits = ["--requests-per-minute", "1000", "--tokens-per-minute", "900000", "--concurrent-requests", "7"]
    budget = ["--budget-day", "0.5", "--budget-month", "10", "--budget-total", "100", "--expires", str(expires)]
    made = json.loads(run.done("create", "ci", *terms, *limits, *budget))
    assert made["key"].startswith("sk-wg-") and made["name"] == "ci"
    shown = json.loads(run.done("list", "--json"))
    [one] = [key for key in shown if key["id"] == made["id"]]
    assert made["key"] not in json.dumps(shown), "the secret is told once"
    assert (one["tenant"], one["models"], one["routes"]) == ("research", ["local/ok*"], ["openai-*"])
    assert (one["metadata"], one["expires"]) == ({"owner": "ada"}, expires)
    assert one["quota"] == {"requests_per_minute": 1000, "tokens_per_minute": 900000, "concurrent_requests": 7}
    assert one["budget"] == {"day": 0.5, "month": 10, "total": 100}
    lines = run.done("list").splitlines()
    assert f"{made['id']}\tresearch\tvalid\tci" in lines and "batch\t-\tconfigured\tbatch" in lines

    assert (status(gateway, made["key"]), status(gateway, made["key"], "local/drip")) == (200, 403)
    plain = json.loads(run.done("create", "plain"))
    assert status(gateway, plain["key"]) == 200
    new = json.loads(run.done("rotate", plain["id"], "--grace-seconds", "600"))["key"]
    assert (status(gateway, plain["key"]), status(gateway, new)) == (200, 200)
    last = json.loads(run.done("rotate", plain["id"], "--grace-seconds", "0"))["key"]
    assert (status(gateway, new), status(gateway, last)) == (401, 200)
    run.done("revoke", plain["id"])
    assert status(gateway, last) == 401
    assert f"{plain['id']}\t-\trevoked\tplain" in run.done("list").splitlines()


def test_a_key_whose_time_is_over_is_listed_as_expired(keys):
    gateway, run = keys
    expires = int(time.time()) + 3
    made = json.loads(run.done("create", "brief", "--expires", str(expires)))
    kit.wait_until(lambda: time.time() > expires + 1)
    assert f"{made['id']}\t-\texpired\tbrief" in run.done("list").splitlines()
    assert status(gateway, made["key"]) == 401


def test_a_list_of_more_keys_than_a_page_has_is_whole(keys):
    gateway, run = keys
    headers = {"authorization": f"Bearer {ADMIN}"}
    for number in range(1_005):
        answer = kit.http("POST", f"{gateway.url}/admin/keys", {"name": f"k{number}"}, headers)
        assert answer.status == 201, answer.text
    names = [line.split("\t")[3] for line in run.done("list").splitlines()]
    assert sorted(names) == sorted([f"k{number}" for number in range(1_005)] + ["batch"])


def test_what_goes_wrong_is_said_with_what_would_be_right(keys, start, double):
    _, run = keys
    bare = start(minimal(double.url))
    nobody = f"http://127.0.0.1:{kit.free_port()}"
    cases = [
        (run("list", key=None), "set WITGATE_ADMIN_KEY to the gateway's admin key"),
        (run("list", key="wrong"), "(401)"),
        (run("list", url=bare.url), "has no admin API: set [admin] key in its configuration"),
        (run("list", url=nobody), nobody),
        (run("revoke", "../keys"), 'an id is letters, digits, "_" and "-"'),
        (run("revoke", "nobody-s"), "(404)"),
        (run("create", "x", "--tenant", "no such"), "(400)"),
    ]
    for ended, told in cases:
        assert ended.returncode == 1 and ended.stdout == "", ended
        assert told in ended.stderr and "wrong" not in ended.stderr, ended
