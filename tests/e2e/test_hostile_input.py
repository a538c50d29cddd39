"""Requests that no honest client sends: a clear 400 with the place at fault, soon, and the next request is served."""

import time

import pytest

import kit
from test_gateway import minimal

pytestmark = pytest.mark.gateway_only

MESSAGES = b'"messages":[{"role":"user","content":"hello"}]'


def send(gateway, body, path="/v1/chat/completions"):
    """A 4xx soon, on a slow machine too, and a gateway that lives."""
    began = time.monotonic()
    answer = gateway.post(path, body)
    took = time.monotonic() - began
    assert took < 20, f"took {took:.1f} s"
    assert gateway.chat("double/ok").status == 200
    return answer


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"model":"tiny",}',
        b'{"model":"tiny",' + MESSAGES + b"} trailing",
        b'{"model":"tiny",' + MESSAGES + b',"temperature":NaN}',
        b'{"model":"tiny",' + MESSAGES + b',"temperature":01}',
        b'{"model":"tiny","messages":[{"role":"user","content":"\x01"}]}',
        b'{"model":"tiny","messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"model":"tiny","messages":[{"role":"user","content":"\\u12"}]}',
        b"[]",
        b'"text"',
        b"null",
        b"\xef\xbb\xbf{}",
        b"\x00" * 100,
    ],
)
def test_bad_json_is_a_400(gateway, body):
    answer = send(gateway, body)
    assert answer.status == 400, answer.text
    assert answer.error["type"] == "invalid_request_error" and answer.error["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": 7, "messages": [{"role": "user", "content": "x"}]}, "model"),
        ({"model": "tiny"}, "messages"),
        ({"model": "tiny", "messages": "x"}, "messages"),
        ({"model": "tiny", "messages": {}}, "messages"),
        ({"model": "tiny", "messages": ["x"]}, "messages[0]"),
        ({"model": "tiny", "messages": [{"role": "user", "content": "x"}, {"content": "x"}]}, "messages[1].role"),
        ({"model": "tiny", "messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"model": "tiny", "messages": [{"role": "user", "content": [7]}]}, "messages[0].content[0]"),
        (
            {"model": "tiny", "messages": [{"role": "user", "content": [{"type": "text", "text": 7}]}]},
            "messages[0].content[0].text",
        ),
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": "two"}, "n"),
        ({"stop": 7}, "stop"),
        ({"stop": ["a", 7]}, "stop[1]"),
        ({"stream": "yes"}, "stream"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"seed": 1.5}, "seed"),
        ({"logprobs": 1}, "logprobs"),
    ],
)
def test_a_wrong_type_is_a_400_that_names_its_path(gateway, body, param):
    if "messages" not in str(body) and param != "messages":
        body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}]} | body
    answer = send(gateway, body)
    assert answer.status == 400, answer.text
    assert answer.error["param"] == param
    assert param.split(".")[-1].split("[")[0] in answer.error["message"]


def test_no_model_where_none_is_the_default_is_said(gateway):
    """400 or 404: a request may leave it out where the configuration has a default."""
    answer = send(gateway, {"messages": [{"role": "user", "content": "x"}]})
    assert answer.status in (400, 404) and answer.error["param"] == "model", answer.text


@pytest.mark.parametrize(
    "nested",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 5_000 + b"]" * 5_000,
        b'{"a":' * 1_000 + b"1" + b"}" * 1_000,
    ],
    ids=["open-arrays", "open-objects", "arrays", "objects"],
)
def test_deep_nesting_is_a_400(gateway, nested):
    for body in (nested, b'{"model":"tiny",' + MESSAGES + b',"deep":' + nested + b"}"):
        answer = send(gateway, body)
        assert answer.status == 400, answer.text[:300]
    for body in (b'{"model":"tiny","messages":' + nested + b"}", b'{"model":"tiny","tools":' + nested + b"," + MESSAGES + b"}"):
        assert send(gateway, body).status == 400


@pytest.mark.parametrize("bad", [b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\xc0\xaf"])
def test_invalid_utf8_is_a_400(gateway, bad):
    answer = send(gateway, b'{"model":"tiny","messages":[{"role":"user","content":"' + bad + b'"}]}')
    assert answer.status == 400 and "UTF-8" in answer.error["message"], answer.text


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"model":"tiny","model":"tools",' + MESSAGES + b"}", "model"),
        (b'{"model":"tiny",' + MESSAGES + b"," + MESSAGES + b"}", "messages"),
        (b'{"model":"tiny","messages":[{"role":"user","role":"system","content":"x"}]}', "messages[0].role"),
        (b'{"model":"tiny",' + MESSAGES + b',"m\\u006fdel":"tools"}', "model"),
    ],
)
def test_a_duplicate_key_is_a_400_that_names_it(gateway, body, param):
    answer = send(gateway, body)
    assert answer.status == 400 and answer.error["param"] == param, answer.text
    assert param.split(".")[-1] in answer.error["message"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_ten_mebibytes_of_backslashes_are_refused_soon(gateway, path):
    """Just below the limit: even and uneven, so once a valid string (which the backend refuses), once not."""
    size = (10 << 20) - 200
    for count in (size, size + 1):
        text = b"\\" * count
        body = b'{"model":"tinny","messages":[{"role":"user","content":"' + text + b'"}],"prompt":"' + b'"}'
        answer = send(gateway, body, path)
        assert answer.status in (400, 404), answer.text[:300]


def test_a_large_valid_request_is_served(gateway):
    """5 MiB of text, escaped and not."""
    for content in ("x" * (5 << 20), "\\\n\"" * (1 << 20), "ü" * (1 << 20)):
        began = time.monotonic()
        answer = gateway.chat("double/ok", content)
        assert answer.status == 200, answer.text[:300]
        assert time.monotonic() - began < 20


def test_a_body_over_the_limit_is_a_413(gateway):
    body = b'{"model":"tiny","messages":[{"role":"user","content":"' + b"x" * (10 << 20) + b'"}]}'
    answer = gateway.post("/v1/chat/completions", body)
    assert answer.status == 413 and "10" in answer.error["message"], answer.text
    # Without a length: the same, as soon as the limit is passed.
    with kit.Wire(gateway.url) as wire:
        wire.send("POST", "/v1/chat/completions", gateway.headers({"transfer-encoding": "chunked"}))
        try:
            for _ in range(12 * 16):
                wire.socket.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            wire.socket.sendall(b"0\r\n\r\n")
        except OSError:
            pass  # refused while it was still coming
        assert wire.answer().status == 413
    assert gateway.chat("double/ok").status == 200


def test_a_smaller_limit_can_be_set(start, double):
    config = minimal(double.url) | {"limits": {"max_body_bytes": "2KiB"}}
    config["models"]["tiny"]["target"] = "local/ok"
    gateway = start(config)
    assert gateway.chat("tiny", "x" * 1000).status == 200
    answer = gateway.chat("tiny", "x" * 3000)
    assert answer.status == 413 and "2048" in answer.error["message"]


def test_a_body_that_never_comes_does_not_hold_the_gateway(gateway):
    with kit.Wire(gateway.url) as wire:
        wire.send("POST", "/v1/chat/completions", gateway.headers({"content-length": "1000"}))
        wire.socket.sendall(b'{"model":')
        assert gateway.chat("double/ok").status == 200


def test_large_headers_are_refused(gateway):
    answer = gateway.http("GET", "/v1/models", headers={"x-large": "x" * (1 << 20)})
    assert answer.status in (400, 431)
    assert kit.http("GET", gateway.url + "/health").status == 200


@pytest.mark.parametrize("model", ["../../v1/models", "local/../x", "local/", "/", "", "local/a?b#c%2f", "x" * 10_000, "\n\r"])
def test_an_odd_model_name_is_harmless(gateway, model):
    answer = gateway.chat(model)
    assert answer.status in (200, 400, 404), answer.text[:300]
    assert len(answer.body) < 20_000


def test_nonsense_on_the_wire_is_refused(gateway):
    for data in (b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/9.9\r\n\r\n", b"\r\n" * 100 + b"x\r\n\r\n"):
        with kit.Wire(gateway.url) as wire:
            wire.socket.sendall(data)
            try:
                received = wire.socket.recv(1000)
            except ConnectionError:
                received = b""
            assert received == b"" or b" 400 " in received or b" 505 " in received
    assert kit.http("GET", gateway.url + "/health").status == 200
