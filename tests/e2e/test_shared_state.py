"""Gateways that share a state: what a key may use is exact over all of them, and nobody waits for a server that hangs or is
gone. Natively four processes share a real redis-server; at the edge the instances of one component share its key-value store."""

import collections
import concurrent.futures
import itertools
import json
import time

import kit
import pytest
import redis_server
from test_jobs import SECRET, receiver, signed  # noqa: F401

pytestmark = pytest.mark.gateway_only

GATEWAYS = 4
CHAT = "/v1/chat/completions"
# The double counts 3 and 2 tokens: at a thousandth of a dollar each an answer costs half a cent.
COST = 0.005


@pytest.fixture
def redis(folder):
    server = redis_server.RedisServer(folder, f"redis-{time.monotonic_ns()}")
    yield server
    server.stop()


@pytest.fixture
def sharing(shape, start, double, request):
    """Starts gateways that share a state, for keys with these terms."""

    def begin(more=None, **keys):
        if shape == "host":
            store = over(request.getfixturevalue("redis"))
            return [start(config(store, double, keys) | (more or {})) for _ in range(GATEWAYS)]
        # One process, whose many instances share nothing else.
        return [start(config({"store": "key-value"}, double, keys) | (more or {}))] * GATEWAYS

    return begin


def over(redis, **more):
    return {"store": "redis", "url": redis.url, "timeout": "5s"} | more


def config(store, double, keys):
    return {
        "server": {"api_keys": ["unlimited"]},
        "admin": {"key": "root"},
        "providers": {"d": {"adapter": "llama-cpp", "endpoint": double.url}},
        "models": {"*": {"target": "d/ok"}, "drip": {"target": "d/drip"}},
        "prices": {"d/*": {"input": 1_000, "output": 1_000}},
        "keys": {name: {"secret": name} | terms for name, terms in keys.items()},
        "state": store,
    }


def ask(gateway, key, headers=None, **more):
    """The status, the code of the error, and how long it took."""
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2} | more
    begun = time.monotonic()
    answer = kit.http("POST", gateway.url + CHAT, body, {"authorization": f"Bearer {key}"} | (headers or {}), 60)
    return answer.status, answer.json().get("error", {}).get("code"), time.monotonic() - begun


def load(gateways, key, requests, threads=32, **more):
    """How often which answer came, of requests through all gateways at once."""
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        turns = itertools.islice(itertools.cycle(gateways), requests)
        done = list(pool.map(lambda gateway: ask(gateway, key, **more), turns))
    return collections.Counter((status, code) for status, code, _ in done)


def one_by_one(gateways, key, refusal):
    """How many requests are let through until they are refused for good: what was reserved and not used is there again soon
    after nothing runs any more."""
    passed = refused = 0
    while refused < 4:
        status, _, _ = ask(gateways[passed % GATEWAYS], key)
        if status == 200:
            passed, refused = passed + 1, 0
            time.sleep(0.05)
        else:
            assert status == refusal
            refused += 1
            time.sleep(0.4)
    return passed


def early_in_a_minute(seconds):
    """Windows slide by the shares of whole minutes: within one a limit is a number."""
    left = 60 - time.time() % 60
    if left < seconds:
        time.sleep(left + 0.1)


def test_together_they_let_exactly_as_many_requests_through_as_a_key_may_make(sharing):
    # A machine that is too slow for one minute has another one, with a key that nobody has used.
    tries = range(3)
    keys = {f"minute{n}": {"quota": {"requests_per_minute": 150}} for n in tries}
    gateways = sharing(**keys, **{f"tokens{n}": {"quota": {"tokens_per_minute": 500}} for n in tries})

    def within_a_minute(what):
        for n in tries:
            early_in_a_minute(30)
            minute = time.time() // 60
            found = what(n)
            if time.time() // 60 == minute:
                return found
        raise AssertionError("the machine was too slow for one minute")

    counts = within_a_minute(lambda n: load(gateways, f"minute{n}", 400))
    assert counts == {(200, None): 150, (429, "rate_limit_exceeded"): 250}

    def tokens(n):
        # Each takes 5 in the end, and more while it runs.
        counts = collections.Counter()
        while counts[429, "rate_limit_exceeded"] < 200:
            counts += load(gateways, f"tokens{n}", 100)
        passed = counts.pop((200, None))
        assert set(counts) == {(429, "rate_limit_exceeded")}
        return passed + one_by_one(gateways, f"tokens{n}", 429)

    passed = within_a_minute(tokens)
    # What a request reserves: a quarter of its bytes, and its bound.
    assert 500 - 60 < passed * 5 <= 500, passed


def test_together_they_exceed_a_budget_by_one_request_s_worth_at_most(sharing):
    budget = 0.5
    gateways = sharing(spender={"budget": {"total": budget}})
    counts = collections.Counter()
    while counts[402, "budget_exceeded"] < 200:
        counts += load(gateways, "spender", 100)
    passed = counts.pop((200, None))
    assert set(counts) == {(402, "budget_exceeded")}
    passed += one_by_one(gateways, "spender", 402)
    # None of it is out of reach, and at most one request is beyond it.
    assert budget <= passed * COST < budget + COST, passed

    def spent():
        total = gateways[0].http("GET", "/admin/spend?key=spender", headers={"authorization": "Bearer root"}).json()["total"]
        return (total["requests"], total["cost_nano_usd"])

    kit.wait_until(lambda: spent() == (passed, passed * 5_000_000), what="the last settlements")


def test_together_they_tell_the_webhook_of_each_threshold_once(sharing, shape, receiver):  # noqa: F811
    receiver.failures = 1
    hook = {"webhook": f"http://127.0.0.1:{receiver.server_port}/budget", "webhook_secret": f"whsec_{SECRET}"}
    accounting = {"accounting": hook | {"allow_private_webhook": True}}
    gateways = sharing(accounting, spender={"budget": {"total": 20 * COST}})
    counts = load(gateways, "spender", 60)
    assert counts[402, "budget_exceeded"] > 0
    # The first message was refused: it comes again, natively by itself, at the edge with another request.
    if shape != "host":
        kit.wait_until(lambda: ask(gateways[0], "unlimited") and len(receiver.got) >= 4, 60, "the second try", every=0.5)
    kit.wait_until(lambda: len(receiver.got) >= 4, 60, "three thresholds, one of them twice")
    time.sleep(2)
    told = collections.Counter()
    for headers, body in receiver.got:
        assert signed(headers, body)
        message = json.loads(body)
        assert (message["type"], message["data"]["owner"]) == ("budget.threshold", "spender")
        told[message["data"]["percent"]] += 1
    assert sorted(told) == [50, 80, 100] and sum(told.values()) == 4, told


def test_together_they_hold_no_more_requests_of_a_key_at_once_than_it_may(sharing):
    gateways = sharing(one={"quota": {"concurrent_requests": 3}})
    wires = [gateways[n % GATEWAYS].open_chat("drip", headers={"authorization": "Bearer one"}) for n in range(3)]
    # Before that, one that asks would take a place.
    assert [wire.head()[0] for wire in wires] == [200] * 3

    def refused():
        return all(ask(gateway, "one")[:2] == (429, "concurrency_limit_exceeded") for gateway in gateways)

    kit.wait_until(refused, what="all places to be taken")
    wires[0].close()
    kit.wait_until(lambda: ask(gateways[3], "one")[0] == 200, what="the place of a client that has left")
    # Those of a gateway that was killed come back when their lease is over, no sooner: here not within the test.
    for wire in wires:
        wire.close()


@pytest.mark.host_only
@pytest.mark.parametrize("on_failure", ["open", "closed"])
def test_a_redis_that_hangs_or_is_gone_holds_no_request_up(start, redis, double, shape, on_failure):
    store = over(redis, on_failure=on_failure, timeout="300ms")
    settings = config(store, double, {"limited": {"quota": {"requests_per_minute": 1_000}}})
    gateways = [start(settings) for _ in range(2)]
    expected = {"open": (200, None), "closed": (503, "state_unavailable")}[on_failure]

    def check(what):
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            done = list(pool.map(lambda n: ask(gateways[n % 2], "limited"), range(64)))
        assert {(status, code) for status, code, _ in done} == {expected}, what
        # The store's limit, the double's answer, and what a machine under load adds.
        slowest = max(took for _, _, took in done)
        assert slowest < 0.3 + 10, (what, slowest)
        # Who has no limits does not ask.
        assert ask(gateways[0], "unlimited")[:2] == (200, None), what

    def again(what):
        for gateway in gateways:
            kit.wait_until(lambda: limited(gateway), 60, what)

    def limited(gateway):
        body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
        answer = kit.http("POST", gateway.url + CHAT, body, {"authorization": "Bearer limited"}, 60)
        return "x-ratelimit-limit-requests" in answer.headers

    again("the server to be found")
    redis.hang()
    check("it hangs")
    redis.go_on()
    again("the server that hung to be found again")
    redis.kill()
    check("it is gone")
    redis.start()
    again("the new server to be found")
