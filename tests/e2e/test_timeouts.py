"""The four timeouts and the keep-alive, each by the double's scripts."""

import time

import pytest

import kit
from conftest import KEY, UPSTREAM_KEY, start_gateway

pytestmark = pytest.mark.gateway_only


def timed(call):
    began = time.monotonic()
    answer = call()
    return answer, time.monotonic() - began


def is_504(answer, name, took, limit):
    assert answer.status == 504, answer.text
    assert f"`{name}`" in answer.error["message"] or name in answer.error["message"]
    assert limit - 0.02 <= took < limit + 0.15 + kit.SLACK, f"took {took:.2f} s"


@pytest.mark.parametrize("stream", [False, True])
def test_connect(gateway, stream):
    answer, took = timed(lambda: gateway.chat("stuck/x", stream=stream))
    is_504(answer, "connect", took, 0.4)
    assert answer.error["provider"] == "stuck"


@pytest.mark.parametrize("script", ["silent", "head_only", "comments", "role_only"])
def test_first_token_of_a_stream(gateway, script):
    """Neither the head, nor comments, nor a chunk without a token stop this clock."""
    answer, took = timed(lambda: gateway.chat(f"double-first/{script}", stream=True))
    is_504(answer, "first_token", took, 0.4)


def test_idle_between_two_pieces_of_an_answer_that_is_not_streamed(gateway):
    answer, took = timed(lambda: gateway.chat("double-idle/half"))
    is_504(answer, "idle", took, 0.4)


@pytest.mark.parametrize("script", ["silent", "head_only"])
def test_an_answer_that_is_not_streamed_has_the_total_alone(gateway, script):
    """Its first token cannot be told from its last one."""
    answer, took = timed(lambda: gateway.chat(f"double-total/{script}"))
    is_504(answer, "total", took, 0.9)


def test_first_token_and_idle_do_not_end_an_answer_that_is_not_streamed(gateway):
    """It takes 1.2 s; the provider's limits on a stream are 400 ms."""
    for provider in ("double-first", "double-idle"):
        assert gateway.chat(f"{provider}/late").status == 200


@pytest.mark.parametrize("script", ["stall", "stall_comments"])
def test_idle_between_tokens(gateway, script):
    """Comments of the backend don't count. The client has tokens already: the error is inside the stream."""
    (status, events), took = timed(lambda: gateway.stream(f"double-idle/{script}"))
    assert status == 200
    error = events[-1].json()["error"]
    assert "idle" in error["message"] and not any(e.data == "[DONE]" for e in events)
    assert 0.38 <= took < 0.55 + kit.SLACK, f"took {took:.2f} s"


def test_idle_does_not_end_a_stream_that_moves(gateway):
    def check():
        with gateway.open_chat("double-idle/drip") as wire:
            wire.head()
            count = 0
            for event in kit.frames(wire):
                assert "error" not in event.json()
                count += 1
                if count > 10:
                    break

    kit.tries(check)


def test_total_before_the_first_token(gateway):
    answer, took = timed(lambda: gateway.chat("double-total/silent", stream=True))
    is_504(answer, "total", took, 0.9)


def test_total_of_a_stream_that_moves(gateway):
    def check():
        (status, events), took = timed(lambda: gateway.stream("double-total/drip"))
        assert status == 200 and "total" in events[-1].json()["error"]["message"]
        assert sum("drip" in (e.data or "") for e in events) >= 5
        assert 0.88 <= took < 1.05 + kit.SLACK, f"took {took:.2f} s"

    kit.tries(check)


@pytest.mark.parametrize("script", ["double-first/silent", "double-idle/stall", "double-total/drip"])
def test_a_timeout_ends_the_backends_request(gateway, double, unique, script):
    with gateway.open_chat(script, unique) as wire:
        wire.answer()
        ended = time.monotonic()
    (seen,) = kit.wait_until(lambda: double.of(unique), what="the request to arrive")
    kit.wait_until(lambda: seen.left, what="the gateway to leave its backend")
    assert seen.left - ended < 0.1 + kit.SLACK


@pytest.fixture(scope="module")
def keep_alive(shape, folder, double):
    """A gateway that sends a comment every 300 ms."""
    provider = {"adapter": "llama-cpp", "endpoint": double.url, "api_key": UPSTREAM_KEY}
    config = {
        "server": {"api_keys": [KEY], "keep_alive": "300ms"},
        "timeouts": {"first_token": "20s"},
        "providers": {"double": provider, "double-first": provider | {"timeouts": {"first_token": "1s"}}},
        "models": {"*": {"targets": ["double"]}},
    }
    gateway = start_gateway(shape, config, folder)
    yield gateway
    gateway.process.stop()


def test_a_waiting_stream_gets_comments(keep_alive):
    """The double's first token comes after 1.2 s: three comments before it, then the answer, whole."""

    def check():
        began = time.monotonic()
        with keep_alive.open_chat("double/late") as wire:
            status, headers = wire.head()
            assert status == 200 and headers["content-type"].startswith("text/event-stream")
            assert 0.25 < time.monotonic() - began < 0.3 + 0.1 + kit.SLACK
            events = list(kit.frames(wire))
        before = [e for e in events if e.comment is not None]
        assert len(before) >= 2 and before[-1].at - began > len(before) * 0.3 - 0.05
        assert events[: len(before)] == before and events[-1].data == "[DONE]"
        assert any("late" in (e.data or "") for e in events)

    kit.tries(check)


def test_the_official_client_does_not_see_the_comments(keep_alive):
    stream = keep_alive.client.chat.completions.create(
        model="double/late", messages=[{"role": "user", "content": "hello"}], stream=True
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices) == "late"


def test_a_stalled_stream_gets_comments(keep_alive):
    began = time.monotonic()
    with keep_alive.open_chat("double/stall") as wire:
        wire.head()
        comments = []
        for event in kit.frames(wire):
            if event.comment is not None:
                comments.append(event.at)
            if len(comments) == 3:
                break
    # No more of them than there is time for; whoever reads late finds several at once.
    assert 3 * 0.3 - 0.05 < comments[-1] - began < 3 * 0.4 + kit.SLACK, [at - began for at in comments]


def test_a_timeout_after_the_first_comment_is_told_in_the_stream(keep_alive):
    def check():
        (status, events), took = timed(lambda: keep_alive.stream("double-first/silent"))
        assert status == 200 and "first_token" in events[-1].json()["error"]["message"]
        assert 0.98 <= took < 1.15 + kit.SLACK
        assert not any(e.data == "[DONE]" for e in events)

    kit.tries(check)


def test_an_answer_that_is_not_streamed_gets_none(keep_alive):
    answer = keep_alive.chat("double/late")
    assert answer.status == 200 and answer.json()["choices"][0]["message"]["content"] == "late"


def test_a_busy_stream_gets_none(keep_alive):
    def check():
        with keep_alive.open_chat("double/drip") as wire:
            wire.head()
            for count, event in enumerate(kit.frames(wire)):
                assert event.comment is None
                if count > 8:
                    break

    kit.tries(check)


@pytest.mark.parametrize("script", ["silent", "head_only"])
def test_a_client_that_leaves_before_the_first_token_is_noticed_with_the_first_comment(keep_alive, double, unique, script):
    """At the latest: see test_cancellation.py for where it is noticed at once."""
    wire = keep_alive.open_chat(f"double/{script}", unique)
    seen = kit.wait_until(lambda: next(iter(double.of(unique)), None), what="the request to arrive")
    wire.close()
    kit.wait_until(lambda: seen.left, what="the gateway to leave its backend")
    assert seen.left - seen.at < 2 * 0.3 + 0.1 + kit.SLACK
