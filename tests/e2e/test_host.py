"""The native binary: its command line, its signals, and the llama-server that it starts itself."""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import time

import openai
import pytest

import kit
import llama
import shapes
from conftest import KEY, UPSTREAM_KEY, Gateway
from test_gateway import minimal

pytestmark = [pytest.mark.gateway_only, pytest.mark.host_only]


def witgate(*arguments, cwd, stdin=None, timeout=120):
    """Runs a subcommand to its end."""
    return subprocess.run(
        [shapes.BINARY, *map(str, arguments)],
        cwd=cwd,
        env=shapes.environment(),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def write(tmp_path, config):
    path = tmp_path / "witgate.toml"
    path.write_text(config if isinstance(config, str) else kit.toml(config))
    return path


# Shutdown.


def test_sigterm_lets_a_stream_finish_then_ends_with_0(shape, start, slow):
    gateway = start(minimal(slow.url, api_key=UPSTREAM_KEY))
    with kit.Wire(gateway.url) as kept, gateway.open_chat("tiny", max_tokens=250) as wire:
        kept.send("GET", "/health")
        assert kept.answer().status == 200
        assert wire.head()[0] == 200
        events = kit.frames(wire)
        for _ in range(5):
            next(events)
        gateway.process.signal(signal.SIGTERM)
        # Not ready any more: told to whoever asks, or the door is shut.
        kit.wait_until(lambda: not_ready(gateway), what="/ready to turn 503")
        rest = list(events)
        assert rest[-1].data == "[DONE]", "the stream was cut"
        assert sum('"content"' in (e.data or "") for e in rest) > 100
    assert gateway.process.wait(20) == 0
    with pytest.raises(ConnectionError):
        kit.http("GET", gateway.url + "/health")


def test_ready_says_503_at_once_while_it_drains(start, double):
    gateway = start(minimal(double.url))
    with gateway.open_chat("local/stall") as wire:
        wire.head()
        assert kit.http("GET", gateway.url + "/ready").status == 200
        gateway.process.signal(signal.SIGTERM)
        began = time.monotonic()
        kit.wait_until(lambda: not_ready(gateway), what="/ready to turn 503")
        assert time.monotonic() - began < 0.1 + kit.SLACK
        assert gateway.process.alive()


def not_ready(gateway):
    try:
        return kit.http("GET", gateway.url + "/ready").status == 503
    except ConnectionError:
        return True


def test_an_idle_gateway_ends_at_once(start, double):
    for number in (signal.SIGTERM, signal.SIGINT):
        gateway = start(minimal(double.url))
        with kit.Wire(gateway.url) as kept:
            # A connection that is kept open without a request does not hold it back.
            kept.send("GET", "/health")
            assert kept.answer().status == 200
            gateway.process.signal(number)
            assert gateway.process.wait(20) == 0


def test_draining_has_a_limit(start, double):
    config = minimal(double.url)
    config["server"]["shutdown_timeout"] = "500ms"
    gateway = start(config)
    with gateway.open_chat("local/drip") as wire:
        wire.head()
        began = time.monotonic()
        gateway.process.signal(signal.SIGTERM)
        gateway.process.wait(60)
        # By the setting, and not by its default of 30 s.
        assert 0.4 < time.monotonic() - began < 20


def test_a_second_start_uses_what_the_first_one_compiled(start, double):
    for _ in range(2):
        gateway = start(minimal(double.url))
        assert gateway.chat("local/ok").status == 200
        gateway.process.stop()


# A llama-server of its own.


def children(pid):
    found = []
    for status in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            text = status.read_text()
            # The name, in parentheses, may hold anything.
            if int(text.rpartition(")")[2].split()[1]) == pid:
                found.append(int(status.parent.name))
    return found


@pytest.fixture
def supervised(folder):
    """`witgate serve --model FILE.gguf --llama-server PATH`."""
    port = kit.free_port()
    arguments = ["--model", llama.model("tiny"), "--llama-server", llama.binary()]
    process = shapes.launch("host", None, port, folder, f"supervised-{port}", arguments=arguments)
    try:
        process.wait_listening(port)
        url = f"http://127.0.0.1:{port}"
        kit.wait_until(lambda: kit.http("GET", url + "/ready").status == 200, 60, "the model to be loaded")
        yield Gateway("host", url, "none", process)
    finally:
        left = children(process.pid)
        process.stop()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_a_model_file_is_served_by_a_llama_server_of_its_own(shape, supervised):
    name = supervised.client.models.list().data[0].id
    messages = [{"role": "user", "content": "hello"}]
    answer = supervised.client.chat.completions.create(model=name, messages=messages, max_tokens=10)
    assert answer.choices[0].message.content is not None
    # No more than a model's name in a request: whatever it is, the one model answers.
    assert supervised.chat("gpt-4o", max_tokens=3).status == 200


def test_a_llama_server_that_dies_is_started_again(shape, supervised):
    (first,) = children(supervised.process.pid)

    def killed_until_not_ready():
        # What a probe learnt counts for a second, in which a small model is up again: so it is killed more than once.
        for child in children(supervised.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        return kit.http("GET", supervised.url + "/ready").status == 503

    kit.wait_until(killed_until_not_ready, 60, "/ready to turn 503", every=0.1)
    assert kit.http("GET", supervised.url + "/health").status == 200
    kit.wait_until(lambda: kit.http("GET", supervised.url + "/ready").status == 200, 90, "/ready to turn 200")
    (again,) = children(supervised.process.pid)
    assert again != first
    name = supervised.client.models.list().data[0].id
    assert supervised.chat(name, max_tokens=3).status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_its_llama_server_ends_with_it(shape, supervised, number):
    (child,) = children(supervised.process.pid)
    supervised.process.signal(number)
    supervised.process.wait(30)
    kit.wait_until(lambda: not running(child), what="llama-server to end")


def running(pid):
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_a_model_file_that_is_not_there_is_said_at_once(shape, folder):
    done = witgate("serve", "--listen", "127.0.0.1:0", "--model", "/no/such/file.gguf", cwd=folder)
    assert done.returncode not in (0, 101) and "/no/such/file.gguf" in done.stderr


# The other subcommands.


def test_check_is_content_with_a_good_file(shape, tmp_path, double):
    done = witgate("check", "--config", write(tmp_path, minimal(double.url)), cwd=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('[server]\nlissten = "127.0.0.1:1"\n', 2, ["lissten", "listen"]),
        ('[providers.a]\nadaptor = "stub"\n', 2, ["adaptor", "adapter"]),
        ('[providers.a]\nadapter = "lama-cpp"\nendpoint = "http://127.0.0.1:1"\n', 2, ["lama-cpp", "llama-cpp"]),
        ('[providers.a]\nadapter = "stub"\n[models.m]\ntarget = "b/x"\n', 4, ["b", '"a"']),
        ('[timeouts]\nidle = "soon"\n', 2, ["timeouts.idle", "soon"]),
        ('[limits]\nmax_body_bytes = -1\n', 2, ["max_body_bytes"]),
        ('[server\nlisten = 1\n', 1, []),
        ('[providers.a]\nadapter = "llama-cpp"\nendpoint = "ftp://x"\n', 3, ["endpoint"]),
    ],
)
def test_check_names_file_line_column_key_and_what_would_be_right(shape, tmp_path, text, line, words):
    path = write(tmp_path, text)
    done = witgate("check", "--config", path, cwd=tmp_path)
    said = done.stderr + done.stdout
    assert done.returncode == 1, said
    assert f"witgate.toml:{line}:" in said, said
    column = said.partition(f"witgate.toml:{line}:")[2].partition(":")[0].partition(" ")[0]
    assert column.isdigit() and int(column) >= 1, said
    for word in words:
        assert word in said


def test_serve_refuses_what_check_refuses(shape, tmp_path):
    path = write(tmp_path, '[server]\nlissten = "127.0.0.1:1"\n')
    done = witgate("serve", "--config", path, cwd=tmp_path)
    assert done.returncode not in (0, 101) and "witgate.toml:2:" in done.stderr and "listen" in done.stderr


def test_check_shows_no_secret(shape, tmp_path):
    text = '[providers.a]\nadapter = "llama-cpp"\nendpoint = "http://127.0.0.1:1"\napi_key = "sk-very-secret"\nx = 1\n'
    done = witgate("check", "--config", write(tmp_path, text), cwd=tmp_path)
    assert done.returncode == 1 and "sk-very-secret" not in done.stderr + done.stdout


def test_adapters_tells_what_is_loaded(shape, tmp_path):
    done = witgate("adapters", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("llama-cpp", "openai", "stub", "bedrock"):
        assert name in done.stdout
    assert "0.1.0" in done.stdout and "chat" in done.stdout and "completion" in done.stdout
    # The digest of each component, and that it imports nothing.
    assert len(re.findall(r"\b(?:sha256:)?[0-9a-f]{12,64}\b", done.stdout)) >= 4, done.stdout
    assert "import" in done.stdout.lower()


def test_adapters_tells_of_a_third_partys_adapter_too(shape, tmp_path, example_adapter, double):
    config = minimal(double.url)
    config["providers"]["third"] = {"adapter": str(example_adapter), "endpoint": double.url}
    done = witgate("adapters", "--config", write(tmp_path, config), cwd=tmp_path)
    assert done.returncode == 0 and "shout" in done.stdout, done.stderr + done.stdout


def test_invoke_answers_a_request_from_stdin_and_from_a_file(shape, tmp_path, tiny):
    config = write(tmp_path, minimal(tiny.url, api_key=UPSTREAM_KEY))
    body = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5})
    done = witgate("invoke", "--config", config, cwd=tmp_path, stdin=body)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["object"] == "chat.completion"
    (tmp_path / "request.json").write_text(body)
    done = witgate("invoke", "--config", config, "request.json", cwd=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout)["choices"], done.stderr


def test_invoke_takes_the_event_of_a_lambda_function(shape, tmp_path):
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    event = {"httpMethod": "POST", "path": "/v1/chat/completions", "body": json.dumps(body)}
    done = witgate("invoke", cwd=tmp_path, stdin=json.dumps(event))
    answer = json.loads(done.stdout)
    assert done.returncode == 0 and answer["statusCode"] == 200
    assert json.loads(answer["body"])["choices"][0]["message"]["content"] == "[stub] hello"
    # Said where it goes, the request is its own body.
    done = witgate("invoke", "--path", "/v1/chat/completions", cwd=tmp_path, stdin=json.dumps(event))
    assert done.returncode != 0 and "statusCode" not in done.stdout


def test_invoke_shows_an_error_and_fails(shape, tmp_path, tiny):
    config = write(tmp_path, minimal(tiny.url, api_key=UPSTREAM_KEY))
    body = json.dumps({"model": "tinny", "messages": [{"role": "user", "content": "hello"}]})
    done = witgate("invoke", "--config", config, cwd=tmp_path, stdin=body)
    assert done.returncode != 0 and "tiny" in done.stdout + done.stderr


def test_help_names_the_subcommands(shape, tmp_path):
    done = witgate("--help", cwd=tmp_path)
    assert done.returncode == 0
    for name in ("serve", "check", "adapters", "invoke"):
        assert name in done.stdout


def test_a_port_that_is_taken_is_said(shape, start, double, tmp_path):
    gateway = start(minimal(double.url))
    config = minimal(double.url)
    config["server"]["listen"] = gateway.url.removeprefix("http://")
    done = witgate("serve", "--config", write(tmp_path, config), cwd=tmp_path)
    assert done.returncode not in (0, 101) and config["server"]["listen"] in done.stderr


def test_a_client_that_needs_no_key_needs_none(start, double):
    config = minimal(double.url)
    del config["server"]["api_keys"]
    gateway = start(config)
    client = openai.OpenAI(base_url=gateway.url + "/v1", api_key="whatever", max_retries=0)
    assert client.chat.completions.create(model="local/ok", messages=[{"role": "user", "content": "x"}]).choices
    assert KEY not in gateway.process.output()
