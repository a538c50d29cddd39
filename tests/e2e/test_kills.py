"""kill -9 in the middle of everything: a gateway that runs jobs, batches and callbacks is killed again and again, at moments
from a seed, and started anew over the same state. No job is lost, none is charged twice, none is answered or called back in
two ways.

    WITGATE_KILLS=50         how often for each store
    WITGATE_KILLS_SEED=…     the moments and the load of a run before, which it has printed
"""

import collections
import http.server
import json
import os
import random
import threading
import time

import kit
import pytest
import redis_server
import shapes

pytestmark = pytest.mark.host_only

KILLS = int(os.environ.get("WITGATE_KILLS", "50"))
SEED = int(os.environ.get("WITGATE_KILLS_SEED") or random.SystemRandom().randrange(1 << 32))
CHAT = "/v1/chat/completions"
# What a token costs: of the prompt and of the answer, in nano-dollars.
INPUT, OUTPUT = 1_000, 4_000


class Backend(http.server.BaseHTTPRequestHandler):
    """Answers with a number that no other answer has, and counts tokens by it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        with self.server.lock:
            self.server.answers += 1
            number = self.server.answers
        time.sleep(number * 37 % 100 / 1_000)
        usage = {"prompt_tokens": 3, "completion_tokens": 1 + number % 40, "total_tokens": 4 + number % 40}
        message = {"role": "assistant", "content": f"answer {number}"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        answer = {"id": f"chatcmpl-{number}", "object": "chat.completion", "created": 1, "model": "m"}
        body = json.dumps(answer | {"choices": [choice], "usage": usage}).encode()
        try:
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.close_connection = True

    def log_message(self, *_):
        pass


class Receiver(Backend):
    """Takes callbacks."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        with self.server.lock:
            self.server.got[self.headers["webhook-id"]].append(body)
        try:
            self.send_response(204)
            self.send_header("content-length", "0")
            self.end_headers()
        except OSError:
            self.close_connection = True


def serve(handler):
    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True
        # Who has to wait for a place in a short queue tries again a second later.
        request_queue_size = 128

        def handle_error(self, *_):
            """A gateway that was killed has left."""

    server = Server(("127.0.0.1", 0), handler)
    server.lock, server.answers, server.got = threading.Lock(), 0, collections.defaultdict(list)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class Gateway:
    """One that is killed and started anew."""

    def __init__(self, folder, name, config):
        self.folder, self.name = folder, name
        self.port = kit.free_port()
        config["server"] = {"listen": f"127.0.0.1:{self.port}"}
        self.path = folder / f"{name}.toml"
        self.path.write_text(kit.toml(config))
        self.process = None

    def start(self):
        self.process = shapes.launch("host", self.path, self.port, self.folder, self.name)

    def http(self, method, path, body=None, key="alice-key", timeout=10, **headers):
        headers = {"authorization": f"Bearer {key}"} | {k.replace("_", "-"): v for k, v in headers.items()}
        return kit.http(method, f"http://127.0.0.1:{self.port}{path}", body, headers, timeout)

    def get(self, path, **more):
        answer = self.http("GET", path, timeout=60, **more)
        assert answer.status == 200, (path, answer)
        return answer.json()


class Load:
    """What clients want. They submit again, with the same key, until they are told that it has been taken."""

    def __init__(self, gateway, chance, callback):
        self.gateway, self.chance, self.callback = gateway, chance, callback
        self.wanted, self.jobs, self.batches, self.seen = [], {}, {}, {}
        self.wrong = []

    def more(self):
        """Some further wishes."""
        for _ in range(self.chance.randrange(1, 6)):
            number = len(self.wanted) + len(self.jobs) + len(self.batches)
            lines = self.chance.randrange(1, 8) if self.chance.random() < 0.2 else 0
            wish = {"key": f"key-{number}", "lines": lines, "file": None}
            wish["callback"] = self.chance.random() < 0.5
            self.wanted.append(wish)

    def run(self, until):
        """Submits and looks, until it is done or the gateway is no longer there."""
        try:
            while time.monotonic() < until:
                if self.wanted:
                    self.submit(self.wanted[0])
                elif self.jobs:
                    self.look(self.chance.choice(list(self.jobs)))
        except (OSError, ValueError, IndexError):
            # It was killed, perhaps in the midst of an answer.
            pass

    def submit(self, wish):
        body = {"model": "m", "messages": [{"role": "user", "content": wish["key"]}]}
        headers = {"idempotency_key": wish["key"]}
        if wish["callback"]:
            headers["x_witgate_callback"] = self.callback
        if not wish["lines"]:
            answer = self.gateway.http("POST", CHAT, body, prefer="respond-async", **headers)
            if answer.status in (200, 202):
                self.jobs[answer.headers["location"].rsplit("/", 1)[1]] = wish
                self.wanted.remove(wish)
                return
        else:
            if not wish["file"]:
                lines = [{"custom_id": f"{wish['key']}-{n}", "method": "POST", "url": CHAT, "body": body} for n in range(wish["lines"])]
                text = "\n".join(map(json.dumps, lines))
                form = (
                    '--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b\r\ncontent-disposition: form-data; '
                    f'name="file"; filename="in.jsonl"\r\n\r\n{text}\r\n--b--\r\n'
                )
                answer = self.gateway.http("POST", "/v1/files", form.encode(), content_type="multipart/form-data; boundary=b")
                if answer.status == 200:
                    wish["file"] = answer.json()["id"]
                elif answer.status != 503:
                    self.wrong.append(f"a file: {answer}")
                return
            asked = {"input_file_id": wish["file"], "endpoint": CHAT, "completion_window": "24h"}
            answer = self.gateway.http("POST", "/v1/batches", asked, **headers)
            if answer.status == 200:
                self.batches[answer.json()["id"]] = wish
                self.wanted.remove(wish)
                return
        if answer.status != 503:
            self.wrong.append(f"{wish}: {answer}")
            self.wanted.remove(wish)

    def look(self, id):
        """An answer that was there stays as it is."""
        answer = self.gateway.http("GET", f"/v1/jobs/{id}/result")
        if answer.status == 200 and self.seen.setdefault(id, answer.body) != answer.body:
            self.wrong.append(f"{id} had another answer before: {self.seen[id]!r}, {answer.body!r}")


def config(store, backend, folder, redis):
    state = {"store": "file", "path": str(folder / "kills.redb")} if store == "file" else {"store": "redis", "url": redis.url}
    secret = "whsec_" + "QSBzZWNyZXQgb2YgdGhlIHN1aXRlLCAzMiBieXRlcy4="
    return {
        "admin": {"key": "root"},
        "keys": {"alice": {"secret": "alice-key", "budget": {"total": 1000}, "quota": {"concurrent_requests": 1000}}},
        "prices": {"b/*": {"input": INPUT / 1_000, "output": OUTPUT / 1_000}},
        "providers": {"b": {"adapter": "openai", "endpoint": f"http://127.0.0.1:{backend.server_port}/v1"}},
        "models": {"*": {"target": "b/m"}},
        "timeouts": {"connect": "2s", "first_token": "5s", "idle": "5s", "total": "5s"},
        "jobs": {"lease": "3s", "attempts": 100, "callback_secret": secret, "allow_private_callbacks": True},
        "state": state | {"timeout": "5s"},
    }


@pytest.mark.parametrize("store", ["file", "redis"])
def test_killed_at_any_moment_no_job_is_lost_charged_twice_or_answered_twice(store, folder, shape):
    chance = random.Random(f"{SEED} {store}")
    print(f"\nWITGATE_KILLS_SEED={SEED} WITGATE_KILLS={KILLS}, over {store}")
    backend, receiver = serve(Backend), serve(Receiver)
    redis = redis_server.RedisServer(folder, "redis-kills") if store == "redis" else None
    gateway = Gateway(folder, f"kills-{store}", config(store, backend, folder, redis))
    load = Load(gateway, chance, f"http://127.0.0.1:{receiver.server_port}/done")
    try:
        for _ in range(KILLS):
            load.more()
            gateway.start()
            if chance.random() < 0.1:
                # While it starts.
                time.sleep(chance.random() * 0.2)
            else:
                gateway.process.wait_listening(gateway.port, 120)
                moment = time.monotonic() + chance.random() * 0.6
                client = threading.Thread(target=load.run, args=(moment + 1,))
                client.start()
                time.sleep(max(0, moment - time.monotonic()))
                gateway.process.kill()
                client.join()
                continue
            gateway.process.kill()
        gateway.start()
        gateway.process.wait_listening(gateway.port, 120)
        kit.wait_until(lambda: load.wanted == [] or load.run(time.monotonic() + 0.2), 120, "the last submissions")
        accounts(gateway, load, receiver)
    finally:
        if gateway.process:
            gateway.process.stop()
        if redis:
            redis.stop()
        for server in (backend, receiver):
            server.shutdown()


def accounts(gateway, load, receiver):
    """Everything has ended, and agrees."""
    texts, tokens = collections.Counter(), collections.Counter()

    def count(body):
        texts[body["choices"][0]["message"]["content"]] += 1
        tokens["requests"] += 1
        tokens["input"] += body["usage"]["prompt_tokens"]
        tokens["output"] += body["usage"]["completion_tokens"]

    def ended(id):
        job = gateway.get(f"/v1/jobs/{id}?wait=30s")
        return job if job["status"] not in ("queued", "running") else None

    for id in load.jobs:
        job = kit.wait_until(lambda: ended(id), 180, f"the end of {id}")
        assert job["status"] == "done", job
        load.look(id)
        count(json.loads(load.seen[id]))
    for id, wish in load.batches.items():
        batch = kit.wait_until(
            lambda: (now := gateway.get(f"/v1/batches/{id}"))["status"] == "completed" and now, 180, f"the end of {id}", 0.1
        )
        assert batch["request_counts"] == {"total": wish["lines"], "completed": wish["lines"], "failed": 0}, batch
        output = gateway.http("GET", f"/v1/files/{batch['output_file_id']}/content").text.splitlines()
        lines = [json.loads(line) for line in output]
        assert [line["custom_id"] for line in lines] == [f"{wish['key']}-{n}" for n in range(wish["lines"])]
        for line in lines:
            count(line["response"]["body"])
    assert load.wrong == []
    # Each has an answer of its own.
    assert set(texts.values()) <= {1}, texts
    # One idempotency key has made one job.
    known, after = [], ""
    while page := gateway.get(f"/v1/jobs?limit=100{after}")["data"]:
        known += [job["id"] for job in page if job["path"] == CHAT]
        after = f"&after={page[-1]['id']}"
    assert sorted(known) == sorted(load.jobs)

    def called():
        waiting = [id for id, wish in load.jobs.items() if wish["callback"] and f"msg_{id}" not in receiver.got]
        return not waiting

    kit.wait_until(called, 120, "the callbacks", every=0.2)
    for id, bodies in receiver.got.items():
        told = [json.loads(body) for body in bodies]
        for one in told:
            # How often it was sent before is no part of what is told.
            one["data"].pop("callback", None)
        assert all(one == told[0] for one in told), (id, bodies)
    wanted = {
        "requests": tokens["requests"],
        "input_tokens": tokens["input"],
        "output_tokens": tokens["output"],
        "cost_nano_usd": tokens["input"] * INPUT + tokens["output"] * OUTPUT,
    }

    def spend():
        total = gateway.get("/admin/spend", key="root")["total"]
        return {name: total[name] for name in wanted}

    # What a killed process has left to settle, another one does when its lease has ended.
    until = time.monotonic() + 60
    while spend() != wanted and time.monotonic() < until:
        time.sleep(0.2)
    assert spend() == wanted
    time.sleep(3)
    assert spend() == wanted
    sent = sum(map(len, receiver.got.values()))
    print(f"{len(load.jobs)} jobs, {len(load.batches)} batches, {sent} callbacks of {len(receiver.got)}, {wanted}")
