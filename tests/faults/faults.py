"""The fault suite: see `run`. Prints figures, and exits 1 where a client saw a failure or the accounts disagree."""

import argparse
import collections
import http.client
import json
import pathlib
import re
import signal
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))
import kit  # noqa: E402
import llama  # noqa: E402
import shapes  # noqa: E402

# Seconds of each fault, and of the rest behind it.
FAULT, REST = 6, 3
MAX_TOKENS = 12


class Backend:
    """One of ours."""

    def __init__(self, name, folder):
        self.name, self.folder = name, folder
        self.port = kit.free_port()
        self.counts = folder / f"{name}.counts"
        self.start()

    def start(self):
        command = [sys.executable, HERE / "backend.py", self.port, self.counts]
        self.process = kit.Process(command, self.folder, self.name)
        self.process.wait_listening(self.port)

    def kill(self):
        self.process.signal(signal.SIGKILL)
        self.process.wait(30)

    def mode(self, mode):
        kit.http("POST", f"http://127.0.0.1:{self.port}/mode/{mode}", b"")

    def stop(self):
        self.process.stop()

    def counted(self):
        lines = self.counts.read_text().split() if self.counts.exists() else []
        return len(lines), sum(map(int, lines))


class Llama:
    """The real one. It counts what it has generated to the end in its log."""

    name = "llama"

    def __init__(self, folder):
        self.server = llama.LlamaServer("tiny", folder)
        self.process, self.port = self.server.process, self.server.port

    def stop(self):
        self.server.stop()

    def counted(self):
        found = re.findall(r"^.*(?<!prompt )eval time =.*?/\s*(\d+) (?:tokens|runs)", self.process.output(), re.M)
        return len(found), sum(map(int, found))


class Load:
    """Steady requests, open loop: each at its time, whatever became of those before."""

    def __init__(self, port, rate, kinds):
        self.port, self.kinds = port, kinds
        self.gap = 1 / rate
        self.ends = collections.Counter()
        self.failures = []
        self.tokens = 0
        self.slowest = 0.0
        self.lock = threading.Lock()
        self.running = True
        self.threads = []
        self.pacer = threading.Thread(target=self.pace, daemon=True)
        self.pacer.start()

    def pace(self):
        at, number = time.monotonic(), 0
        while self.running:
            thread = threading.Thread(target=self.one, args=(number,), daemon=True)
            thread.start()
            self.threads.append(thread)
            number += 1
            at += self.gap
            time.sleep(max(0, at - time.monotonic()))

    def one(self, number):
        begun = time.monotonic()
        stream = self.kinds[number % len(self.kinds)] == "stream"
        try:
            end, tokens = self.ask(number, stream), 0
            if isinstance(end, int):
                end, tokens = "complete", end
        except OSError as error:
            end, tokens = f"{type(error).__name__}: {error}", 0
        with self.lock:
            self.ends[("stream" if stream else "whole", end == "complete")] += 1
            self.tokens += tokens
            self.slowest = max(self.slowest, time.monotonic() - begun)
            if end != "complete":
                self.failures.append(f"{time.strftime('%H:%M:%S')} request {number} ({stream=}): {end[:400]}")

    def ask(self, number, stream):
        """The tokens that the client is told, or what went wrong."""
        body = {"model": "m", "stream": stream, "max_tokens": MAX_TOKENS, "temperature": 0.7}
        body["messages"] = [{"role": "user", "content": f"Say something about the number {number}."}]
        if stream:
            body["stream_options"] = {"include_usage": True}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=90)
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        if answer.status != 200:
            return f"{answer.status} {text}"
        if not stream:
            return json.loads(text)["usage"]["completion_tokens"]
        events = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
        if not events or events[-1] != "[DONE]" or any('"error"' in event for event in events):
            return f"a stream that was cut: …{text[-300:]}"
        usages = [json.loads(event).get("usage") for event in events[:-1]]
        return [usage for usage in usages if usage][-1]["completion_tokens"]

    def end(self):
        self.running = False
        self.pacer.join()
        for thread in self.threads:
            thread.join(100)


def config(port, backends, hedged):
    providers = {
        b.name: {
            "adapter": "llama-cpp" if b.name == "llama" else "openai",
            "endpoint": f"http://127.0.0.1:{b.port}" + ("" if b.name == "llama" else "/v1"),
        }
        for b in backends
    }
    model = {"targets": [f"{b.name}/m" for b in backends], "strategy": "round-robin"}
    health = {"failures": 2, "rest": "2s"}
    if hedged:
        model["hedge"] = {"after": "1s", "max_percent": 100}
        health["probe_interval"] = "500ms"
    return kit.toml(
        {
            "server": {"listen": f"127.0.0.1:{port}"},
            "limits": {"max_concurrent_requests": 10000},
            "timeouts": {"connect": "1s", "first_token": "2s", "idle": "60s", "total": "60s"},
            # An outage of a third of the backends for a tenth of the time is what is tested, not what the budget is for.
            "retry": {"budget": 100, "reserve": 1000},
            "health": health,
            "providers": providers,
            "models": {"m": model},
        }
    )


def faults(a, b, real):
    """What is done to the backends, one after another: in words, how it begins, how it ends."""

    def stop(*backends):
        return lambda: [backend.process.signal(signal.SIGSTOP) for backend in backends]

    def go_on(*backends):
        return lambda: [backend.process.signal(signal.SIGCONT) for backend in backends]

    def mode(backend, mode):
        return lambda: backend.mode(mode)

    def both(*all):
        return lambda: [one() for one in all]

    return [
        ("a killed", a.kill, a.start),
        ("b stopped", stop(b), go_on(b)),
        ("a throttles", mode(a, "throttle"), mode(a, "ok")),
        ("b flaps", mode(b, "flap"), mode(b, "ok")),
        ("llama-server stopped", stop(real), go_on(real)),
        ("a and b killed", both(a.kill, b.kill), both(a.start, b.start)),
        ("llama-server stopped, a flaps", both(stop(real), mode(a, "flap")), both(go_on(real), mode(a, "ok"))),
        ("a stopped, b loads its model", both(stop(a), mode(b, "loading")), both(go_on(a), mode(b, "ok"))),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.3)
    parser.add_argument("--rate", type=float, default=20, help="requests a second")
    parser.add_argument("--witgate", type=pathlib.Path, default=shapes.BINARY)
    parser.add_argument("--streams-only", action="store_true", help="no whole answers, and no hedged requests")
    arguments = parser.parse_args()
    shapes.BINARY = arguments.witgate
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(suite(arguments, pathlib.Path(folder)))


def suite(arguments, folder):
    a, b, real = Backend("a", folder), Backend("b", folder), Llama(folder)
    backends = [a, b, real]
    port = kit.free_port()
    path = folder / "witgate.toml"
    path.write_text(config(port, backends, not arguments.streams_only))
    gateway = shapes.launch("host", path, port, folder, "witgate")
    try:
        gateway.wait_listening(port)
        load = Load(port, arguments.rate, ["stream"] if arguments.streams_only else ["stream", "whole"])
        end = time.monotonic() + arguments.minutes * 60
        done = collections.Counter()
        while time.monotonic() < end:
            for words, begin, stop in faults(a, b, real):
                begin()
                time.sleep(FAULT)
                stop()
                time.sleep(REST)
                done[words] += 1
                if time.monotonic() >= end:
                    break
        load.end()
        # What was given up is known to be so by now.
        time.sleep(1)
        gateway.stop(60)
        lines = [line for line in kit.json_lines(gateway.output()) if line.get("path") == "/v1/chat/completions"]
        return report(arguments, load, lines, backends, done)
    finally:
        for backend in backends:
            backend.process.signal(signal.SIGCONT) if backend.process.alive() else None
            backend.stop()
        gateway.stop()


def settled(backend, answers):
    """What a backend has counted, once it has noted all that was answered: llama-server does that a little later."""
    end = time.monotonic() + 20
    while backend.counted()[0] < answers and time.monotonic() < end:
        time.sleep(0.1)
    return backend.counted()


def report(arguments, load, lines, backends, done):
    """Prints the figures. How many of the accounts are wrong."""
    asked = sum(load.ends.values())
    wrong = list(load.failures)
    print(f"{asked} requests in {arguments.minutes:g} minutes at {arguments.rate:g}/s; faults: ", end="")
    print(", ".join(f"{words} ×{count}" for words, count in done.items()))
    complete = sum(line.get("outcome") == "complete" for line in lines)
    tries = sum(line.get("attempts", 0) for line in lines)
    hedged = sum("hedged" in line for line in lines)
    print(f"client-visible failures: {len(load.failures)}; slowest answer {load.slowest:.1f} s")
    print(f"requests in {asked}, log lines {len(lines)}, complete {complete}; {tries} tries, {hedged} hedged")
    if not asked == len(lines) == complete:
        wrong.append("requests in, log lines and complete answers differ")
    metered = collections.Counter()
    answers = collections.Counter()
    for line in lines:
        metered[line.get("provider")] += line.get("output_tokens", 0)
        answers[line.get("provider")] += 1
    print(f"output tokens told to clients {load.tokens}, metered {sum(metered.values())}")
    if load.tokens != sum(metered.values()):
        wrong.append("what clients were told and what was metered differ")
    for backend in backends:
        name = backend.name
        counted, tokens = settled(backend, answers[name])
        print(f"{name}: answers {answers[name]}, counted by itself {counted}; tokens {metered[name]}, counted {tokens}")
        # llama-server goes on to the end of an answer that was given up while it was stopped: it may count more. Ours do
        # where they are given up at the moment in which they answer, as some are on a machine that stalls.
        given_up = counted - answers[name]
        most, longest = (counted, MAX_TOKENS) if name == "llama" else (asked // 200, 40)
        if not 0 <= given_up <= most or tokens < metered[name]:
            wrong.append(f"the accounts of {name} differ")
        if tokens - metered[name] > given_up * longest:
            wrong.append(f"{name} counts more tokens than those of the answers that were given up")
    for line in wrong[:20]:
        print("WRONG:", line)
    print("FAILED" if wrong else "ok")
    return 1 if wrong else 0


if __name__ == "__main__":
    main()
