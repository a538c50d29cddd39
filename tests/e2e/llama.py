"""A real llama-server with one of the small models."""

import os
import subprocess
import sys

import kit

sys.path.insert(0, str(kit.ROOT / "tests" / "tools"))
import make_tiny_gguf  # noqa: E402

# What each model's server is started with. One thread each: the machine may have two cores in all.
ARGUMENTS = {
    # Two slots for `n: 2`, of 1,024 tokens each, so that a long prompt does not fit.
    "tiny": ["--ctx-size", "2048", "--parallel", "2", "--no-kv-unified"],
    "tools": ["--ctx-size", "4096", "--parallel", "1"],
    # Prompts in small batches: llama-server looks for a cancelled request between two batches only.
    "slow": ["--ctx-size", "16384", "--parallel", "1", "--batch-size", "32", "--ubatch-size", "32"],
}
# A fixed seed where a request brings none: by another one in some hundreds an answer may end before it begins.
COMMON = ["--seed", "7", "--threads", "1", "--threads-batch", "1", "--slots", "--no-cache-idle-slots", "--cache-ram", "0"]


def binary():
    """Path of llama-server, as tests/tools/fetch-llama-server finds or builds it."""
    if "LLAMA_SERVER" not in os.environ:
        fetch = [sys.executable, str(kit.ROOT / "tests" / "tools" / "fetch-llama-server")]
        os.environ["LLAMA_SERVER"] = subprocess.run(fetch, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    return os.environ["LLAMA_SERVER"]


def model(variant):
    """Path of a model."""
    return make_tiny_gguf.cached(kit.CACHE / "models", variant)


class LlamaServer:
    """One llama-server process."""

    def __init__(self, variant, folder, port=None, key=None, extra=(), wait=True):
        self.variant = variant
        self.port = port or kit.free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.key = key
        command = [binary(), "--model", model(variant), "--host", "127.0.0.1", "--port", self.port]
        command += ARGUMENTS[variant] + COMMON + list(extra)
        if key:
            command += ["--api-key", key]
        self.process = kit.Process(command, folder, f"llama-{variant}-{self.port}")
        if wait:
            self.process.wait_listening(self.port)

    def get(self, path):
        return kit.http("GET", self.url + path, headers={"authorization": f"Bearer {self.key}"} if self.key else None)

    def busy(self):
        """How many slots work now."""
        return sum(slot["is_processing"] for slot in self.get("/slots").json())

    def stop(self):
        self.process.stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


