"""`witgate compose`: its component serves on a host that has nothing of Spin's."""

import subprocess

import pytest

import kit
import shapes

pytestmark = pytest.mark.gateway_only


def compose(folder, config, variables, *arguments):
    (folder / "witgate.toml").write_text(kit.toml(config))
    return subprocess.run(
        [shapes.BINARY, "compose", "-o", "out", *arguments],
        cwd=folder,
        env=shapes.environment(variables),
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_composed_configuration_serves_with_its_own_variables_and_no_file(shape, tmp_path):
    if shape != "wasi":
        pytest.skip("one component, one run")
    if lacks := shapes.missing("host"):
        pytest.skip(lacks)
    config = {
        "server": {"api_keys": ["${CLIENT_KEY}"]},
        "adapters": {"loud": {"path": str(kit.ROOT / "target/components/adapter-shout.wasm")}},
        "providers": {"stub": {"adapter": "stub"}, "local": {"adapter": "loud", "endpoint": "${LLM_URL}"}},
        "models": {"*": {"target": "stub"}},
    }
    url = "http://127.0.0.1:9"
    made = compose(tmp_path, config, {"LLM_URL": url}, "--for", "wasi")
    assert made.returncode == 0, made.stderr
    assert f"calls    {url}\n" in made.stdout
    port = kit.free_port()
    command = [shapes.RUNNER, tmp_path / "out/witgate.wasm", "--plain", "--listen", f"127.0.0.1:{port}"]
    command += ["--var=CLIENT_KEY=sesame", f"--var=LLM_URL={url}"]
    process = kit.Process(command, tmp_path, "composed", shapes.environment())
    try:
        process.wait_listening(port)
        body = {"model": "m", "messages": [{"role": "user", "content": "hello there"}]}
        chat = f"http://127.0.0.1:{port}/v1/chat/completions"
        assert kit.http("POST", chat, body).status == 401
        answer = kit.http("POST", chat, body, {"authorization": "Bearer sesame"})
        assert answer.status == 200, answer.body
        assert answer.json()["choices"][0]["message"]["content"] == "[stub] hello there"
        # The adapter of one's own is in its slot: what fails is its backend, which is not there.
        answer = kit.http("POST", chat, body | {"model": "local/m"}, {"authorization": "Bearer sesame"})
        assert answer.status == 502 and "connect" in answer.json()["error"]["message"], answer.body
    finally:
        process.stop()
