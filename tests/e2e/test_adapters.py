"""Adapters from outside, dropped into the native host by one entry of the configuration: a good one and a bad one."""

import time

import pytest

import kit
from conftest import KEY, UPSTREAM_KEY
from test_gateway import minimal
from test_streaming import content

pytestmark = [pytest.mark.gateway_only, pytest.mark.host_only]

HOSTILE = kit.ROOT / "target/components/tests/hostile.wasm"


def test_a_third_partys_adapter_needs_one_entry(start, tiny, example_adapter):
    config = minimal(tiny.url, api_key=UPSTREAM_KEY)
    entry = {"adapter": str(example_adapter), "endpoint": tiny.url, "api_key": UPSTREAM_KEY}
    gateway = start(config | {"providers": config["providers"] | {"loud": entry}})
    fixed = {"temperature": 0, "seed": 1, "max_tokens": 40}
    plain = gateway.chat("local/tiny", **fixed).json()["choices"][0]["message"]["content"]
    answer = gateway.chat("loud/tiny", **fixed)
    assert answer.status == 200, answer.text
    loud = answer.json()["choices"][0]["message"]["content"]
    assert loud == plain.upper() and loud != plain
    status, events = gateway.stream("loud/tiny", **fixed)
    assert status == 200 and content(events) == loud and events[-1].data == "[DONE]"


def test_what_a_third_partys_adapter_cannot_is_refused(start, tiny, example_adapter):
    config = minimal(tiny.url)
    config["providers"]["loud"] = {"adapter": str(example_adapter), "endpoint": tiny.url, "api_key": UPSTREAM_KEY}
    gateway = start(config)
    answer = gateway.chat("loud/tiny", tools=[{"type": "function", "function": {"name": "x"}}])
    assert answer.status == 400 and answer.error["param"] == "tools"
    # Unknown members of the dialect that it speaks reach the backend, which does not mind.
    assert gateway.chat("loud/tiny", surprise=1, max_tokens=4).status == 200


# What the hostile guest of tests/guests does wrong, by its setting `do`.
MISDEEDS = ["trap", "panic", "loop", "grow", "recurse"]


@pytest.mark.parametrize("where", ["", "feed-"])
@pytest.mark.parametrize("deed", MISDEEDS)
def test_invariant_10_what_an_adapter_does_wrong_fails_its_own_request_alone(start, double, deed, where):
    if not HOSTILE.exists():
        pytest.fail(f"{HOSTILE} is not built")
    config = minimal(double.url)
    bad = {"adapter": str(HOSTILE), "endpoint": double.url, "settings": {"do": where + deed}}
    config["providers"]["bad"] = bad
    gateway = start(config)
    # A stream of a good adapter, before, during and after.
    with gateway.open_chat("local/drip") as other:
        other.head()
        events = kit.frames(other)
        for _ in range(2):
            began = time.monotonic()
            answer = gateway.chat("bad/ok")
            assert answer.status == 502, answer.text
            assert "hostile" in answer.error["message"] or "bad" in answer.error["message"]
            assert time.monotonic() - began < 20
            assert gateway.chat("local/ok").status == 200
        for _ in range(5):
            assert "error" not in next(events).json()
    assert KEY not in gateway.process.output()
