"""The native binary's configuration read anew while it serves: the file, SIGHUP, the admin API, `adapters top`."""

import json
import pathlib
import signal
import subprocess

import pytest

import kit
import shapes
from conftest import UPSTREAM_KEY
from test_gateway import minimal

pytestmark = [pytest.mark.gateway_only, pytest.mark.host_only]

ADMIN = {"authorization": "Bearer admin-key"}


@pytest.fixture
def served(start, folder):
    """A gateway with an admin API, and what writes its configuration anew."""

    def begin(config):
        config["admin"] = {"key": "admin-key"}
        before = set(pathlib.Path(folder).glob("*.toml"))
        gateway = start(config)
        [path] = set(pathlib.Path(folder).glob("*.toml")) - before
        listen = gateway.url.removeprefix("http://")

        def write(config):
            if isinstance(config, str):
                return path.write_text(config)
            config["admin"] = {"key": "admin-key"}
            config["server"]["listen"] = listen
            return path.write_text(kit.toml(config))

        return gateway, write

    return begin


def asked(gateway, method, path):
    return kit.http(method, f"{gateway.url}/admin/{path}", headers=ADMIN)


def aliases(config, *names):
    config["models"] = {name: {"target": "local/tiny"} for name in names}
    return config


def test_a_stream_ends_whole_on_the_old_configuration_while_the_new_one_serves(served, slow):
    config = minimal(slow.url, api_key=UPSTREAM_KEY)
    gateway, write = served(config)
    with gateway.open_chat("tiny", max_tokens=250) as wire:
        assert wire.head()[0] == 200
        events = kit.frames(wire)
        for _ in range(5):
            next(events)
        write(aliases(minimal(slow.url, api_key=UPSTREAM_KEY), "renamed"))
        kit.wait_until(lambda: gateway.chat("tiny", max_tokens=1).status == 404, 60, "the file to be taken over")
        rest = list(events)
        assert rest[-1].data == "[DONE]", "the stream was cut"
        assert sum('"content"' in (e.data or "") for e in rest) > 100
    assert gateway.chat("renamed", max_tokens=1).status == 200
    assert gateway.process.alive()


def test_a_file_that_is_wrong_leaves_the_old_one_and_says_why(served, double):
    config = minimal(double.url)
    config["server"]["reload_interval"] = "0s"
    gateway, write = served(config)
    write("[providers.local]\nadapter = 7\n")
    answer = asked(gateway, "POST", "reload")
    assert answer.status == 422 and answer.error["code"] == "configuration_refused"
    assert "providers.local" in answer.error["message"]
    assert gateway.chat("local/ok").status == 200
    state = asked(gateway, "GET", "configuration").json()
    assert state["refusals"] == 1 and state["refused"]["problems"] == answer.error["message"].split("\n")

    def logged():
        lines = [line for line in gateway.log() if line.get("target") == "witgate::reload"]
        return any("providers.local" in line.get("problem", "") for line in lines)

    kit.wait_until(logged, what="the log line")

    write(aliases(minimal(double.url), "again"))
    gateway.process.signal(signal.SIGHUP)
    kit.wait_until(lambda: asked(gateway, "GET", "configuration").json()["reloads"] == 1, 60, "SIGHUP to be heard")
    assert asked(gateway, "GET", "configuration").json()["refused"] is None


def test_a_listen_address_that_changes_is_refused(served, double):
    gateway, write = served(minimal(double.url))
    changed = minimal(double.url)
    changed["admin"] = {"key": "admin-key"}
    changed["server"]["listen"] = "127.0.0.1:1"
    write(kit.toml(changed))
    answer = asked(gateway, "POST", "reload")
    assert answer.status == 422 and "server.listen" in answer.error["message"] and "restart" in answer.error["message"]


def test_top_shows_what_the_adapters_do(served, double):
    gateway, _ = served(minimal(double.url))
    for _ in range(3):
        assert gateway.chat("local/ok").status == 200
    environment = shapes.environment({"WITGATE_ADMIN_KEY": "admin-key", "WITGATE_URL": gateway.url})

    def top(*arguments):
        command = [shapes.BINARY, "adapters", "top", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    lines = top().splitlines()
    assert lines[0].split()[:3] == ["KIND", "NAME", "CALLS"]
    assert any(line.split()[:2] == ["adapter", "llama-cpp"] for line in lines)
    [adapter] = [one for one in json.loads(top("--json")) if one["name"] == "llama-cpp"]
    assert adapter["calls"]["encode"]["count"] == 3 and adapter["calls"]["encode"]["p99_us"] > 0
    assert adapter["failures"] == {"memory": 0, "output": 0, "start": 0, "time": 0, "trap": 0}
