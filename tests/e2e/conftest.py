"""Fixtures: the real backends, the double, and a gateway in front of them in each shape that was asked for."""

import copy
import itertools
import pathlib
import signal
import socket
import uuid

import openai
import pytest

import aws as aws_module
import double as double_module
import kit
import llama
import replay as replay_module
import shapes

KEY = "test-key-of-the-suite"
UPSTREAM_KEY = double_module.SECRET

_not_run = []


def pytest_generate_tests(metafunc):
    if "shape" in metafunc.fixturenames:
        metafunc.parametrize("shape", shapes.chosen(), indirect=True, scope="session")


def pytest_collection_modifyitems(config, items):
    lacking = {name: shapes.missing(name) for name in shapes.chosen()}
    for name, reason in lacking.items():
        if reason and name == "spin":
            _not_run.append((name, reason))
        elif reason:
            raise pytest.UsageError(f"shape {name}: {reason}")
    kept, dropped = [], []
    for item in items:
        shape = getattr(item, "callspec", None) and item.callspec.params.get("shape")
        allowed = True
        if shape:
            if item.get_closest_marker("host_only"):
                allowed = shape == "host"
            elif item.get_closest_marker("gateway_only"):
                allowed = shape != "direct"
            if marker := item.get_closest_marker("shapes"):
                allowed = allowed and shape in marker.args
            allowed = allowed and not lacking[shape]
        if (marker := item.get_closest_marker("blind")) and shape in marker.args:
            item.add_marker(pytest.mark.xfail(strict=True, **marker.kwargs))
        (kept if allowed else dropped).append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept


def pytest_terminal_summary(terminalreporter):
    for name, reason in _not_run:
        line = f"  THE SUITE DID NOT RUN OVER THE SHAPE `{name}`: {reason}.  "
        terminalreporter.write_line("!" * len(line), red=True, bold=True)
        terminalreporter.write_line(line, red=True, bold=True)
        terminalreporter.write_line("!" * len(line), red=True, bold=True)


@pytest.fixture(scope="session", autouse=True)
def ends_with_its_children():
    """A runner that is told to end unwinds its fixtures, so that no server is left behind."""

    def end(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("e2e")


@pytest.fixture(scope="session")
def shape(request):
    return request.param


@pytest.fixture(scope="session")
def state(shape):
    """`[state]` of a gateway that keeps things: the instances of a component share nothing but the runtime's store."""
    return {"store": "memory" if shape == "host" else "key-value"}


@pytest.fixture(scope="session")
def tiny(folder):
    """llama-server with short answers, behind a key."""
    with llama.LlamaServer("tiny", folder, key=UPSTREAM_KEY) as server:
        yield server


@pytest.fixture(scope="session")
def tools(folder):
    """llama-server whose model calls tools."""
    with llama.LlamaServer("tools", folder, key=UPSTREAM_KEY) as server:
        yield server


@pytest.fixture(scope="session")
def slow(folder):
    """llama-server whose answers never end."""
    with llama.LlamaServer("slow", folder, key=UPSTREAM_KEY) as server:
        yield server


@pytest.fixture(scope="session")
def double():
    server = double_module.Double()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def aws_server(folder):
    server = aws_module.Aws(folder)
    yield server
    server.stop()


@pytest.fixture
def aws(aws_server):
    """AWS, as one test has told it to be."""
    yield aws_server
    aws_server.reset()
    assert aws_server.wrong() == []


@pytest.fixture(scope="session")
def embedder(folder):
    """llama-server that embeds texts too."""
    with llama.LlamaServer("tiny", folder, key=UPSTREAM_KEY, extra=["--embeddings", "--pooling", "mean"]) as server:
        yield server


@pytest.fixture(scope="session")
def replay_server():
    server = replay_module.Replay()
    yield server
    server.stop()


@pytest.fixture
def replay(replay_server):
    """The APIs that are replayed. A request that breaks their rules fails the test."""
    replay_server.wrong()
    yield replay_server
    assert replay_server.wrong() == []


@pytest.fixture(scope="session")
def blackhole():
    """An address where connecting neither succeeds nor fails: the queue of a listener that never accepts is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        for _ in range(4):
            s = socket.socket()
            s.setblocking(False)
            s.connect_ex(listener.getsockname())
            waiting.append(s)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        for s in waiting:
            s.close()


class Gateway:
    """A running gateway, or in the shape `direct` what stands in for it."""

    def __init__(self, shape, url, key=KEY, process=None):
        self.shape = shape
        self.url = url
        self.key = key
        self.process = process

    @property
    def client(self):
        return self.client_with()

    def client_with(self, **options):
        options = {"api_key": self.key, "max_retries": 0, "timeout": 60.0} | options
        return openai.OpenAI(base_url=self.url + "/v1", **options)

    def headers(self, headers=None):
        return {"authorization": f"Bearer {self.key}"} | (headers or {})

    def http(self, method, path, body=None, headers=None, timeout=60.0):
        return kit.http(method, self.url + path, body, self.headers(headers), timeout)

    def post(self, path, body, headers=None, timeout=60.0):
        return self.http("POST", path, body, headers, timeout)

    def chat(self, model, prompt="hello", headers=None, timeout=60.0, **more):
        """`POST /v1/chat/completions` by hand."""
        body = {"model": model, "messages": [{"role": "user", "content": prompt}]} | more
        return self.post("/v1/chat/completions", body, headers, timeout)

    def open_chat(self, model, prompt="hello", stream=True, headers=None, **more):
        """A connection on which a chat has been asked for, and nothing read yet."""
        body = {"model": model, "messages": [{"role": "user", "content": prompt}], "stream": stream} | more
        wire = kit.Wire(self.url)
        wire.send("POST", "/v1/chat/completions", self.headers(headers), body)
        return wire

    def stream(self, model, prompt="hello", headers=None, **more):
        """The head's status and all events of a streamed chat."""
        with self.open_chat(model, prompt, True, headers, **more) as wire:
            status, _ = wire.head()
            return status, list(kit.frames(wire))

    def log(self):
        """The JSON lines of its log."""
        return list(kit.json_lines(self.process.output()))

    def log_of(self, request_id):
        """The log lines about one request, when the one that ends it is there."""

        def lines():
            found = [line for line in self.log() if request_id in line.values()]
            return found if any("status" in line for line in found) else None

        return kit.wait_until(lines, 30, f"the log line of request {request_id}")


_count = itertools.count(1)


def start_gateway(shape, config, folder, variables=None, arguments=()):
    """Starts a gateway with a configuration, given as a dictionary without `server.listen`; None for no file."""
    port = kit.free_port()
    name = f"{shape}-{next(_count)}"
    path, key = None, (variables or {}).get("LLM_API_KEY") or KEY
    if config is not None:
        config = copy.deepcopy(config)
        config.setdefault("server", {})["listen"] = f"127.0.0.1:{port}"
        key = (config["server"].get("api_keys") or [KEY])[0]
        path = pathlib.Path(folder) / f"{name}.toml"
        path.write_text(kit.toml(config))
    process = shapes.launch(shape, path, port, folder, name, variables, arguments)
    try:
        process.wait_listening(port)
    except BaseException:
        process.kill()
        raise
    return Gateway(shape, f"http://127.0.0.1:{port}", key, process)


@pytest.fixture
def start(shape, folder):
    """Starts gateways for one test; they end with it."""
    started = []

    def begin(config, **more):
        gateway = start_gateway(shape, config, folder, **more)
        started.append(gateway)
        return gateway

    yield begin
    for gateway in started:
        gateway.process.stop()


def standard_config(tiny, tools, slow, double, blackhole):
    """One gateway for nearly all tests: each provider shows one thing."""

    def provider(url, **more):
        return {"adapter": "llama-cpp", "endpoint": url, "api_key": UPSTREAM_KEY} | more

    return {
        "server": {"api_keys": [KEY, "another-key"], "keep_alive": "15s"},
        # Far from those of single providers, which tests wait for.
        "timeouts": {"connect": "20s", "first_token": "60s", "idle": "60s", "total": "600s"},
        "limits": {"max_body_bytes": "10MiB", "adapter_call_timeout": "10s"},
        # Each test sees what one failure does, whatever failed before it.
        "retry": {"attempts": 1},
        "health": {"rest": "0s"},
        "providers": {
            "local": provider(tiny.url),
            "tools": provider(tools.url),
            "slow": provider(slow.url),
            "badkey": provider(tiny.url, api_key="not-the-key"),
            "gone": provider(f"http://127.0.0.1:{kit.free_port()}"),
            "double": provider(double.url),
            "double-first": provider(double.url, timeouts={"first_token": "400ms"}),
            "double-idle": provider(double.url, timeouts={"idle": "400ms"}),
            "double-total": provider(double.url, timeouts={"total": "900ms"}),
            "stuck": provider(blackhole, timeouts={"connect": "400ms"}),
        },
        "models": {
            "tiny": {"target": "local/tiny"},
            "tools": {"target": "tools/tools"},
            "slow": {"target": "slow/slow"},
            "second": {"targets": ["gone/tiny", "local/tiny"]},
            "second-late": {"targets": ["double/cut", "local/tiny"]},
            "second-early": {"targets": ["double/error_first", "local/tiny"]},
        },
    }


@pytest.fixture(scope="session")
def gateway(shape, folder, request):
    """The gateway with `standard_config`. In the shape `direct`: llama-server itself, `model` being ignored."""
    if shape == "direct":
        server = request.getfixturevalue("tiny")
        yield Gateway(shape, server.url, UPSTREAM_KEY, server.process)
        return
    backends = {name: request.getfixturevalue(name) for name in ("tiny", "tools", "slow", "double", "blackhole")}
    gateway = start_gateway(shape, standard_config(**backends), folder)
    yield gateway
    gateway.process.stop()


def backends_config(state, tiny, tools, embedder, aws_server, replay_server):
    """One gateway in front of every kind of backend, for the clients of others and for the adapters' own tests."""

    def provider(adapter, url, settings=None, api_key=UPSTREAM_KEY):
        return {"adapter": adapter, "endpoint": url, "api_key": api_key, "settings": settings}

    key = {"aws_access_key_id": aws_module.KEY_ID, "aws_secret_access_key": aws_module.SECRET}
    played = {name: f"{replay_server.url}/{name}" for name in replay_module.RULES}
    return {
        "server": {"api_keys": [KEY]},
        "state": state,
        "timeouts": {"first_token": "60s", "idle": "60s"},
        # As in `standard_config`: each test sees what one failure does.
        "retry": {"attempts": 1},
        "health": {"rest": "0s"},
        "providers": {
            "llama": provider("llama-cpp", tiny.url),
            "llama-tools": provider("llama-cpp", tools.url),
            "llama-embedder": provider("llama-cpp", embedder.url),
            # llama-server, as what else it plays.
            "llama-openai": provider("openai", f"{tiny.url}/v1"),
            "llama-openai-tools": provider("openai", f"{tools.url}/v1"),
            "llama-responses": provider("openai", f"{tiny.url}/v1", {"api": "responses"}),
            "llama-responses-tools": provider("openai", f"{tools.url}/v1", {"api": "responses"}),
            "llama-messages": provider("anthropic", tiny.url),
            "llama-messages-tools": provider("anthropic", tools.url),
            "bedrock": {
                "adapter": "bedrock",
                "endpoint": aws_server.url,
                "secrets": key,
                "settings": {"region": aws_module.REGION},
            },
            "anthropic": provider("anthropic", played["anthropic"]),
            "anthropic-key": provider("anthropic", played["anthropic"], api_key="not-the-key"),
            "ollama": provider("ollama", played["ollama"]),
            "openai": provider("openai", played["openai"]),
            "openai-key": provider("openai", played["openai"], api_key="not-the-key"),
            "responses": provider("openai", played["openai"], {"api": "responses"}),
        },
        "models": {
            "tiny": {"target": "llama/tiny"},
            "tools": {"target": "llama-tools/tools"},
            "embedder": {"target": "llama-embedder/tiny"},
            "claude": {"target": "bedrock/anthropic.claude-3-haiku-20240307-v1:0"},
            "titan": {"target": "bedrock/amazon.titan-embed-text-v2:0"},
        },
    }


@pytest.fixture(scope="session")
def backends(shape, state, folder, tiny, tools, embedder, aws_server, replay_server):
    """The gateway with `backends_config`."""
    gateway = start_gateway(shape, backends_config(state, tiny, tools, embedder, aws_server, replay_server), folder)
    yield gateway
    gateway.process.stop()


def _of(shape, gateway, request, name):
    if shape == "direct":
        server = request.getfixturevalue(name)
        return Gateway(shape, server.url, UPSTREAM_KEY, server.process)
    return gateway


@pytest.fixture
def tools_gateway(shape, gateway, request):
    """Where the model `tools` is served."""
    return _of(shape, gateway, request, "tools")


@pytest.fixture
def slow_gateway(shape, gateway, request):
    """Where the model `slow` is served."""
    return _of(shape, gateway, request, "slow")


@pytest.fixture
def client(gateway):
    return gateway.client


@pytest.fixture
def unique():
    """A text that no other test uses."""
    return f"p{uuid.uuid4().hex}"


@pytest.fixture(scope="session", params=["shout", "shout-py", "shout-js"])
def example_adapter(request):
    """The third-party adapter of examples/, built: in Rust, in Python and in JavaScript."""
    path = kit.ROOT / f"target/components/adapter-{request.param}.wasm"
    if not path.exists():
        pytest.fail(f"{path} is not built: `cargo xtask components` and `examples/adapter-*/build` do")
    return path
