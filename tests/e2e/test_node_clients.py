"""Clients of JavaScript, unmodified: the official `openai` package, and Vercel's `ai` with its provider of OpenAI."""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess

import pytest

import kit

pytestmark = pytest.mark.gateway_only

HERE = pathlib.Path(__file__).with_name("node")


def command(name):
    path = shutil.which(name)
    assert path, f"`{name}` is not on PATH: the suite needs Node.js 18 or newer with npm"
    return path


@pytest.fixture(scope="session")
def installed():
    """A folder with the scripts, and with the packages of package-lock.json: one for each state of that file."""
    wanted = [HERE / "package.json", HERE / "package-lock.json"]
    key = hashlib.sha256(b"".join(path.read_bytes() for path in wanted)).hexdigest()[:16]
    folder = kit.CACHE / f"node-{key}"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for path in wanted:
            shutil.copy(path, folder)
        install = [command("npm"), "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        (folder / "complete").touch()
    for script in HERE.glob("*.js"):
        shutil.copy(script, folder)
    return folder


@pytest.fixture
def run(installed, backends, replay, aws):
    """Runs a script against the gateway, and gives what it saw."""

    def script(name, **variables):
        environment = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "TMPDIR", "LANG")} | variables
        program = [command("node"), name, backends.url, backends.key]
        done = subprocess.run(program, cwd=installed, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return json.loads(done.stdout.splitlines()[-1])

    return script


TEXTS = {"openai/text": "Hello!", "anthropic/text": "Hi! Grüße 🦀"}


def test_openai(run):
    seen = run("openai.js")
    assert len(seen["chats"]) == 5
    for model, chat in seen["chats"].items():
        assert chat["whole"] and chat["streamed"] and chat["accumulated"] and chat["tokens"] > 0, model
        assert chat["whole"] == TEXTS.get(model, chat["whole"])
    assert seen["call"]["name"] == "get_weather" and json.loads(seen["call"]["arguments"])["city"] in ("Paris", "Rome")
    assert seen["parsed"]["city"] in ("Paris", "Rome") and isinstance(seen["parsed"]["sunny"], bool)
    assert all(len(sizes) == 2 and min(sizes) >= 3 for sizes in seen["embeddings"].values())
    assert {"tiny", "claude"} <= set(seen["models"])


def test_openai_responses(run, backends):
    keeps = backends.shape == "host"
    seen = run("responses.js", KEEPS=str(int(keeps)))
    assert len(seen["responses"]) == 5
    for model, response in seen["responses"].items():
        assert response["whole"] and response["streamed"] and response["accumulated"] and response["tokens"] > 0, model
    assert seen["call"]["name"] == "get_weather" and json.loads(seen["call"]["arguments"])["city"] in ("Paris", "Rome")
    assert seen["parsed"]["city"] in ("Paris", "Rome") and isinstance(seen["parsed"]["sunny"], bool)
    assert seen.get("items") == (["user", "assistant", "user"] if keeps else None)


def test_ai_sdk(run, aws, unique):
    aws.on(unique, say={"calls": [["#0", {"city": "Rome"}]]})
    seen = run("ai.js", CALL_PROMPT=unique)
    assert len(seen["chats"]) == 5
    for model, chat in seen["chats"].items():
        assert chat["whole"] and chat["streamed"] and chat["tokens"] > 0, model
        assert chat["whole"] == TEXTS.get(model, chat["whole"])
    assert seen["called"]["claude"] == [["get_weather", {"city": "Rome"}, "21 degrees"]]
    assert seen["called"]["tools"][0][0] == "get_weather" and seen["called"]["tools"][0][2] == "21 degrees"
    assert seen["object"]["city"] in ("Paris", "Rome") and isinstance(seen["object"]["sunny"], bool)
    assert all(len(sizes) == 2 and min(sizes) >= 3 for sizes in seen["embeddings"].values())
