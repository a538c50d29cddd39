"""What the gateway answers by itself: health, readiness, models, keys, routes, ids, and its log."""

import concurrent.futures
import contextlib
import re
import socket
import threading
import time

import openai
import pytest

import kit
import llama
from conftest import KEY, UPSTREAM_KEY

pytestmark = pytest.mark.gateway_only

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def minimal(url, **more):
    """A configuration with one provider."""
    provider = {"adapter": "llama-cpp", "endpoint": url} | more
    return {
        "server": {"api_keys": [KEY]},
        "retry": {"attempts": 1},
        "health": {"rest": "0s"},
        "providers": {"local": provider},
        "models": {"tiny": {"target": "local/tiny"}},
    }


def test_health_is_200_and_needs_no_key(gateway):
    answer = kit.http("GET", gateway.url + "/health")
    assert answer.status == 200 and answer.json() == {"status": "ok"}
    assert answer.headers["content-type"].startswith("application/json")


def test_a_browser_finds_a_page_that_asks_nobody_else_and_others_a_line(gateway):
    page = kit.http("GET", gateway.url + "/", headers={"accept": "text/html,*/*;q=0.8"})
    assert page.status == 200 and page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "/v1/chat/completions" in page.body.decode() and KEY not in page.body.decode()
    line = kit.http("GET", gateway.url + "/")
    assert line.status == 200 and line.body == b"witgate is running\n"


def test_ready_is_200_where_a_backend_serves(gateway):
    answer = kit.http("GET", gateway.url + "/ready")
    assert answer.status == 200
    assert answer.json()["status"] == "ready"


def test_ready_is_503_where_no_backend_serves_and_200_again_later(start, double):
    """And health is 200 all the while. The server that comes up is a real listener on the same port."""
    port = kit.free_port()
    gateway = start(minimal(f"http://127.0.0.1:{port}"))
    answer = kit.http("GET", gateway.url + "/ready")
    assert answer.status == 503
    assert kit.http("GET", gateway.url + "/health").status == 200
    with forward(port, double.port):
        kit.wait_until(lambda: kit.http("GET", gateway.url + "/ready").status == 200, what="/ready to turn 200")


@contextlib.contextmanager
def forward(port, to):
    """A listener that passes connections on, while the context lasts."""
    listener = socket.create_server(("127.0.0.1", port))

    def copy(a, b):
        with contextlib.suppress(OSError):
            while data := a.recv(65536):
                b.sendall(data)
            b.shutdown(socket.SHUT_WR)

    def serve():
        with contextlib.suppress(OSError):
            while True:
                a, _ = listener.accept()
                b = socket.create_connection(("127.0.0.1", to))
                for pair in ((a, b), (b, a)):
                    threading.Thread(target=copy, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_ready_and_chat_say_503_while_the_model_loads(start, folder):
    """A real llama-server, asked from before it listens until it serves."""
    port = kit.free_port()
    gateway = start(minimal(f"http://127.0.0.1:{port}"))

    def check():
        seen_ready, seen_chat, errors = [], [], []
        # It reads and checks 80 MB before it serves: some tenths of a second, which a machine that stalls may miss.
        with llama.LlamaServer("slow", folder, port=port, extra=["--check-tensors"], wait=False) as server:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                answer = gateway.chat("tiny", max_tokens=1)
                seen_chat.append(answer.status)
                if answer.status == 503:
                    errors.append(answer)
                    seen_ready.append(kit.http("GET", gateway.url + "/ready").status)
                if answer.status == 200:
                    break
                assert server.process.alive(), server.process.output()
            # What a probe learnt counts for a second.
            kit.wait_until(lambda: kit.http("GET", gateway.url + "/ready").status == 200, what="/ready to turn 200")
        assert seen_chat[-1] == 200, seen_chat
        # Refused (502) until it listens, 503 while it loads, then 200.
        assert errors, f"the model was never seen loading: {seen_chat}"
        assert list(dict.fromkeys(seen_chat)) in ([502, 503, 200], [503, 200]), seen_chat
        assert "loading" in errors[0].error["message"].lower()
        assert int(errors[0].headers["retry-after"]) >= 1
        assert 503 in seen_ready

    kit.tries(check)


def test_models_are_the_aliases(gateway, client):
    listed = list(client.models.list())
    assert {m.id for m in listed} >= {"tiny", "tools", "slow", "second"}
    assert {m.object for m in listed} == {"model"}
    owners = {m.id: m.owned_by for m in listed}
    assert owners["tiny"] == "local" and owners["slow"] == "slow"
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError) as raised:
        client.models.retrieve("tinny")
    assert "tiny" in str(raised.value)


def test_an_unknown_model_is_a_404_that_names_the_nearest(gateway, client):
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="tinny", messages=[{"role": "user", "content": "hello"}])
    error = raised.value
    assert error.code == "model_not_found" and error.param == "model"
    assert '"tinny"' in error.message and '"tiny"' in error.message


def test_a_missing_or_wrong_key_is_a_401(gateway):
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {KEY}"},
        {"authorization": f"Bearer {KEY}x"},
        {"authorization": f"Bearer {KEY[:-1]}"},
        {"authorization": f"Bearer {UPSTREAM_KEY}"},
    ):
        for method, path in (("POST", "/v1/chat/completions"), ("POST", "/v1/completions"), ("GET", "/v1/models")):
            answer = kit.http(method, gateway.url + path, body if method == "POST" else None, headers)
            assert answer.status == 401, (headers, path)
            assert "bearer" in answer.headers["www-authenticate"].lower()
            assert KEY not in answer.text
    with pytest.raises(openai.AuthenticationError):
        gateway.client_with(api_key="wrong").models.list()


def test_each_configured_key_opens(gateway):
    assert gateway.client_with(api_key="another-key").models.list().data
    assert kit.http("GET", gateway.url + "/v1/models", headers={"authorization": f"bearer {KEY}"}).status == 200


def test_an_unknown_route_is_a_404_that_names_the_nearest(gateway):
    answer = gateway.post("/v1/chat/completion", {})
    assert answer.status == 404 and "/v1/chat/completions" in answer.error["message"]
    assert gateway.http("GET", "/no/such/thing/anywhere").status == 404


def test_a_wrong_method_is_a_405_with_the_right_ones(gateway):
    answer = gateway.http("GET", "/v1/chat/completions")
    assert answer.status == 405 and answer.headers["allow"] == "POST"
    answer = gateway.http("DELETE", "/v1/models")
    assert answer.status == 405 and "GET" in answer.headers["allow"]


def test_errors_have_the_native_body(gateway, unique):
    answer = gateway.chat("nothing", headers={"x-request-id": unique})
    error = answer.error
    assert set(error) >= {"message", "type", "code", "param", "provider", "request_id"}
    assert error["request_id"] == unique and error["provider"] is None
    assert gateway.chat("gone/x").error["provider"] == "gone"


def test_a_request_id_is_made_or_taken(gateway, unique):
    made = [gateway.chat("tiny", max_tokens=1).headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1] and all(re.fullmatch(r"[\x21-\x7e]{8,128}", i) for i in made)
    assert gateway.chat("tiny", max_tokens=1, headers={"x-request-id": unique}).headers["x-request-id"] == unique
    with gateway.open_chat("tiny", headers={"x-request-id": unique + "s"}, max_tokens=1) as wire:
        assert wire.head()[1]["x-request-id"] == unique + "s"
    # What could not be written into a log or a header is replaced.
    for bad in ("a b", "x" * 200):
        assert gateway.chat("tiny", max_tokens=1, headers={"x-request-id": bad}).headers["x-request-id"] != bad


def test_a_traceparent_is_passed_on_with_a_span_of_our_own(gateway, double, unique):
    parent = f"00-{TRACE}-00f067aa0ba902b7-01"
    gateway.chat("double/ok", unique, headers={"traceparent": parent, "x-request-id": unique})
    (seen,) = double.of(unique)
    version, trace, span, flags = seen.headers["traceparent"].split("-")
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert span != "00f067aa0ba902b7" and re.fullmatch("[0-9a-f]{16}", span)
    assert any(TRACE in line.values() for line in gateway.log_of(unique))


def test_one_log_line_tells_all_of_a_request_but_its_content(gateway, unique):
    secret = f"content-{unique}"
    answer = gateway.chat("tiny", secret, headers={"x-request-id": unique}, max_tokens=3, temperature=0)
    lines = [line for line in gateway.log_of(unique) if "status" in line]
    assert len(lines) == 1, lines
    (line,) = lines
    assert line["method"] == "POST" and line["path"] == "/v1/chat/completions" and int(line["status"]) == 200
    assert line["provider"] == "local"
    assert "tiny" in (line.get("model"), line.get("request_model"))
    assert any(key.startswith("latency") and float(value) > 0 for key, value in line.items())
    assert int(line["input_tokens"]) == answer.json()["usage"]["prompt_tokens"]
    assert int(line["output_tokens"]) == answer.json()["usage"]["completion_tokens"]
    assert secret not in gateway.process.output()


def test_a_failed_request_has_its_log_line_too(gateway, unique):
    gateway.chat("gone/x", headers={"x-request-id": unique})
    line = next(line for line in gateway.log_of(unique) if "status" in line)
    assert int(line["status"]) == 502 and line["provider"] == "gone"
    gateway.chat("tinny", headers={"x-request-id": unique + "m"})
    assert int(next(line for line in gateway.log_of(unique + "m") if "status" in line)["status"]) == 404


def test_a_client_that_left_has_its_log_line(gateway, unique):
    with gateway.open_chat("double/stall", headers={"x-request-id": unique}) as wire:
        wire.head()
        next(kit.frames(wire))
    line = next(line for line in gateway.log_of(unique) if "status" in line)
    assert line["outcome"] == "client_gone"


def test_no_secret_is_ever_logged_or_told(gateway, unique):
    """The backend repeats our key in its error; the log and the answer must not."""
    for script in ("repeats_secret", "unauthorized"):
        answer = gateway.chat(f"double/{script}", headers={"x-request-id": unique + script})
        assert answer.status == 502
        assert UPSTREAM_KEY not in answer.text
        gateway.log_of(unique + script)
    gateway.chat("tiny", headers={"authorization": "Bearer wrong-key-of-a-client"})
    output = gateway.process.output()
    assert UPSTREAM_KEY not in output and KEY not in output and "wrong-key-of-a-client" not in output


def test_a_connection_serves_many_requests(gateway):
    with kit.Wire(gateway.url) as wire:
        for _ in range(3):
            wire.send("GET", "/v1/models", gateway.headers())
            assert wire.answer().status == 200
        wire.send("POST", "/v1/chat/completions", gateway.headers(), {"model": "tinny", "messages": []})
        assert wire.answer().status in (400, 404)
        wire.send("GET", "/health")
        assert wire.answer().status == 200


def test_head_is_answered_without_a_body(gateway):
    answer = kit.http("HEAD", gateway.url + "/health")
    assert answer.status == 200


def test_too_many_at_once_are_503_with_retry_after(start, double):
    config = minimal(double.url)
    config["limits"] = {"max_concurrent_requests": 2}
    config["models"] = {"stall": {"target": "local/stall"}, "ok": {"target": "local/ok"}}
    gateway = start(config)
    with contextlib.ExitStack() as held:
        held.enter_context(gateway.open_chat("stall")).head()
        # A wasi:http host may start another instance at any time, and each instance counts its own requests.
        for _ in range(1 if gateway.shape == "host" else 64):
            held.enter_context(gateway.open_chat("stall")).head()
            answer = gateway.chat("ok")
            if answer.status == 503:
                break
        assert answer.status == 503 and int(answer.headers["retry-after"]) >= 1
        assert "2" in answer.error["message"]
        assert kit.http("GET", gateway.url + "/health").status == 200
    # The places are given back when the clients have left.
    kit.wait_until(lambda: gateway.chat("ok").status == 200, what="a free place")


def at_once(count, ask):
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda _: ask(), range(count)))


def test_who_waits_for_a_place_is_woken_by_who_leaves_it(start, double, unique):
    config = minimal(double.url, concurrency={"max": 1, "queue": 8, "wait": "30s"})
    config["models"] = {"late": {"target": "local/late"}}
    gateway = start(config)
    begun = time.monotonic()
    answers = at_once(4, lambda: gateway.chat("late", unique))
    assert [answer.status for answer in answers] == [200] * 4, answers
    assert len(double.of(unique)) == 4
    # A wasi:http host may start another instance at any time, which has places of its own.
    if gateway.shape == "host":
        assert time.monotonic() - begun > 4 * 1.2


def test_who_asks_the_same_at_the_same_time_waits_for_that_answer(start, double, unique):
    config = minimal(double.url)
    config["models"] = {"late": {"target": "local/late"}}
    config["cache"] = {"enabled": True}
    gateway = start(config)
    answers = at_once(6, lambda: gateway.chat("late", unique, temperature=0))
    texts = {answer.json()["choices"][0]["message"]["content"] for answer in answers}
    assert [answer.status for answer in answers] == [200] * 6 and len(texts) == 1
    told = {answer.headers["x-witgate-cache"] for answer in answers}
    assert told <= {"hit", "miss"} and "miss" in told
    if gateway.shape == "host":
        assert len(double.of(unique)) == 1 and told == {"hit", "miss"}


def test_a_fallback_serves_before_the_first_token_and_never_after_it(gateway, unique):
    """invariant_6: both targets are configured alike; what has gone out decides."""
    for model in ("second", "second-early"):
        answer = gateway.chat(model, max_tokens=3, headers={"x-request-id": unique + model})
        assert answer.status == 200, answer.text
        line = next(line for line in gateway.log_of(unique + model) if "status" in line)
        assert line["provider"] == "local" and int(line["attempts"]) == 2
    status, events = gateway.stream("second-early", max_tokens=3)
    assert status == 200 and events[-1].data == "[DONE]"
    status, events = gateway.stream("second-late", max_tokens=3)
    assert status == 200 and "error" in events[-1].json()
    assert not any(e.data == "[DONE]" for e in events)
