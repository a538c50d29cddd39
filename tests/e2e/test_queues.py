"""Requests that come from queues: Amazon SQS as the tests play it (boto3 looks at that first), and streams of a real Redis."""

import contextlib
import http.server
import json
import shutil
import signal
import socket
import threading
import time

import boto3
import botocore.config
import botocore.exceptions
import pytest

import aws as fake
import aws_sqs
import kit

KEY = "key-of-the-queue"


# --- the fake itself, looked at by boto3 ---------------------------------------------------------------------------


@pytest.fixture
def sqs(aws):
    """boto3's client, and the URLs of queues."""
    aws.set(queues={
        "requests": {"visibility": 2, "max_receives": 3, "dead": "dead"}, "dead": {}, "plain": {}, "answers": {}, "answers.fifo": {},
    })  # fmt: skip
    config = botocore.config.Config(retries={"max_attempts": 0}, read_timeout=60)
    client = boto3.session.Session().client(
        "sqs", fake.REGION, endpoint_url=aws.url, config=config,
        aws_access_key_id=fake.KEY_ID, aws_secret_access_key=fake.SECRET,
    )  # fmt: skip
    return Sqs(client, aws)


class Sqs:
    def __init__(self, client, aws):
        self.client, self.aws = client, aws

    def url(self, name):
        return f"{self.aws.url}/{aws_sqs.ACCOUNT}/{name}"

    def send(self, body, name="requests", **more):
        body = body if isinstance(body, str) else json.dumps(body)
        return self.client.send_message(QueueUrl=self.url(name), MessageBody=body, **more)["MessageId"]

    def receive(self, name="requests", **more):
        more = {"MaxNumberOfMessages": 10, "MessageAttributeNames": ["All"], "AttributeNames": ["All"]} | more
        return self.client.receive_message(QueueUrl=self.url(name), **more).get("Messages", [])

    def counts(self, name="requests"):
        """The messages that can be received, and those in somebody's hand."""
        found = self.client.get_queue_attributes(QueueUrl=self.url(name), AttributeNames=["All"])["Attributes"]
        return int(found["ApproximateNumberOfMessages"]), int(found["ApproximateNumberOfMessagesNotVisible"])

    def take(self, count, name="answers", timeout=90):
        """So many messages, received and deleted: by the id of the message that they answer."""
        found = []
        end = time.monotonic() + timeout
        while len(found) < count:
            assert time.monotonic() < end, f"{len(found)} of {count} came"
            for message in self.receive(name, WaitTimeSeconds=1):
                self.client.delete_message(QueueUrl=self.url(name), ReceiptHandle=message["ReceiptHandle"])
                found.append(message)
        return found


def attribute(message, name):
    return message["MessageAttributes"][name]["StringValue"]


class TestTheFake:
    def test_a_message_is_sent_received_hidden_and_deleted(self, sqs):
        more = {"MessageAttributes": {"a": {"DataType": "String", "StringValue": "b"}}}
        id = sqs.send("grüße 日本", **more)
        (message,) = sqs.receive(VisibilityTimeout=60)
        assert (message["MessageId"], message["Body"], attribute(message, "a")) == (id, "grüße 日本", "b")
        assert message["Attributes"]["ApproximateReceiveCount"] == "1"
        assert sqs.receive() == [] and sqs.counts() == (0, 1)
        begun = time.monotonic()
        receipt = {"QueueUrl": sqs.url("requests"), "ReceiptHandle": message["ReceiptHandle"]}
        sqs.client.change_message_visibility(VisibilityTimeout=1, **receipt)
        (again,) = sqs.receive(WaitTimeSeconds=20, VisibilityTimeout=60)
        assert time.monotonic() - begun >= 1 and again["Attributes"]["ApproximateReceiveCount"] == "2"
        receipt = {"QueueUrl": sqs.url("requests"), "ReceiptHandle": again["ReceiptHandle"]}
        sqs.client.change_message_visibility(VisibilityTimeout=0, **receipt)
        (third,) = sqs.receive(VisibilityTimeout=60)
        # The receipt of an earlier receive deletes nothing.
        sqs.client.delete_message(**receipt)
        assert sqs.counts() == (0, 1)
        sqs.client.delete_message(QueueUrl=sqs.url("requests"), ReceiptHandle=third["ReceiptHandle"])
        assert sqs.counts() == (0, 0)

    def test_what_is_received_too_often_goes_where_the_redrive_policy_says(self, sqs):
        sqs.send("poison")
        for _ in range(3):
            assert len(sqs.receive(VisibilityTimeout=0)) == 1
        assert sqs.receive() == []
        assert [message["Body"] for message in sqs.receive("dead")] == ["poison"]

    def test_a_fifo_queue_takes_one_of_what_is_sent_twice(self, sqs):
        for _ in range(2):
            sqs.send("one", "answers.fifo", MessageGroupId="g", MessageDeduplicationId="d")
        assert len(sqs.receive("answers.fifo")) == 1

    def test_what_is_wrong_is_refused_by_its_name(self, sqs):
        def refused(call, **more):
            with pytest.raises(botocore.exceptions.ClientError) as raised:
                call(**more)
            return raised.value.response["Error"]["Code"]

        client, url = sqs.client, sqs.url("requests")
        assert "NonExistentQueue" in refused(client.receive_message, QueueUrl=sqs.url("nope"))
        assert refused(client.delete_message, QueueUrl=url, ReceiptHandle="x") == "ReceiptHandleIsInvalid"
        assert refused(client.send_message, QueueUrl=url, MessageBody="\x01") == "InvalidMessageContents"
        other = boto3.session.Session().client(
            "sqs", fake.REGION, endpoint_url=sqs.aws.url, aws_access_key_id=fake.KEY_ID, aws_secret_access_key="wrong"
        )
        assert refused(other.receive_message, QueueUrl=url) == "InvalidSignatureException"


# --- the gateway ---------------------------------------------------------------------------------------------------


class Backend(http.server.BaseHTTPRequestHandler):
    """Answers each prompt with itself; what its words say happens before."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        prompt = body["messages"][-1]["content"]
        with self.server.lock:
            self.server.asked.append(prompt)
        for word in prompt.split():
            if word.startswith("slow:"):
                time.sleep(float(word[5:]))
        failed = "poison" in prompt
        message = {"role": "assistant", "content": f"echo: {prompt}"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        answer = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "usage": usage}
        answer["choices"] = [{"index": 0, "message": message, "finish_reason": "stop"}]
        data = json.dumps({"error": {"message": "fell over", "type": "server_error"}} if failed else answer).encode()
        with contextlib.suppress(OSError):
            self.send_response(500 if failed else 200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    # Who has to wait for a place in a short queue tries again a second later.
    request_queue_size = 128


@pytest.fixture
def backend():
    server = Server(("127.0.0.1", 0), Backend)
    server.asked, server.lock, server.daemon_threads = [], threading.Lock(), True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def config(backend, queue, **more):
    return {
        "server": {"api_keys": [KEY], "shutdown_timeout": "10s"},
        "retry": {"attempts": 1},
        "health": {"rest": "0s"},
        "providers": {"own": {"adapter": "openai", "endpoint": f"http://127.0.0.1:{backend.server_port}/v1", "api_key": "x"}},
        "jobs": {"lease": "3s"},
        "queues": {"q": {"key": "server.0"} | queue},
    } | more


def chat(prompt):
    return json.dumps({"model": "own/m", "messages": [{"role": "user", "content": prompt}]})


def text(body):
    return json.loads(body)["choices"][0]["message"]["content"]


def sqs_queue(sqs, answers="answers", **more):
    queue = {"kind": "sqs", "url": sqs.url("requests"), "region": fake.REGION, "answers": answers and sqs.url(answers)}
    queue |= {"access_key_id": fake.KEY_ID, "secret_access_key": fake.SECRET, "visibility": "5s"}
    return queue | more


@pytest.fixture
def redis(folder):
    """A redis-server of this test's own, and its port."""
    if not shutil.which("redis-server"):
        pytest.fail("redis-server is not installed")
    port = kit.free_port()
    command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = kit.Process(command, folder, f"redis-{port}")
    server = Redis(port)
    kit.wait_until(server.up, 60, "redis-server")
    yield server
    process.kill()


class Redis:
    """A client of few words."""

    def __init__(self, port):
        self.port, self.url = port, f"redis://127.0.0.1:{port}"

    def up(self):
        with contextlib.suppress(OSError):
            return self.call("PING") == "PONG"

    def call(self, *words):
        with socket.create_connection(("127.0.0.1", self.port), 10) as s:
            parts = [str(word).encode() for word in words]
            s.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts))
            with s.makefile("rb") as stream:
                return self.read(stream)

    def read(self, stream):
        line = stream.readline().rstrip(b"\r\n")
        kind, rest = line[:1], line[1:].decode()
        if kind == b"-":
            raise RuntimeError(rest)
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == "-1" else stream.read(int(rest) + 2)[:-2].decode()
        if kind == b"*":
            return [self.read(stream) for _ in range(int(rest))]
        return rest

    def add(self, body, stream="requests"):
        return self.call("XADD", stream, "*", "body", body)

    def entries(self, stream="answers"):
        return [(id, dict(zip(of[::2], of[1::2], strict=True))) for id, of in self.call("XRANGE", stream, "-", "+")]

    def pending(self):
        return self.call("XPENDING", "requests", "witgate")[0]


def redis_queue(redis, **more):
    return {"kind": "redis", "url": redis.url, "stream": "requests", "answers": "answers", "visibility": "5s"} | more


@pytest.mark.host_only
class TestSqs:
    def test_a_message_is_answered_and_deleted(self, start, sqs, backend):
        gateway = start(config(backend, sqs_queue(sqs)))
        ids = {sqs.send(chat(f"hello {n}")): n for n in range(12)}
        answers = sqs.take(12)
        assert {attribute(m, "message_id"): text(m["Body"]) for m in answers} == {id: f"echo: hello {n}" for id, n in ids.items()}
        assert {attribute(m, "status") for m in answers} == {"200"}
        kit.wait_until(lambda: sqs.counts() == (0, 0), what="an empty queue")
        # The job can be asked for too.
        job = gateway.http("GET", f"/v1/jobs/{attribute(answers[0], 'job_id')}").json()
        assert job["status"] == "done" and len(backend.asked) == 12

    def test_a_slow_answer_keeps_its_message_hidden(self, start, sqs, backend):
        start(config(backend, sqs_queue(sqs)))
        sqs.send(chat("slow:12 hello"))
        (answer,) = sqs.take(1)
        assert text(answer["Body"]) == "echo: slow:12 hello" and len(backend.asked) == 1
        kit.wait_until(lambda: sqs.counts() == (0, 0), what="an empty queue")
        extended = [seen for seen in sqs.aws.seen() if seen.operation == "ChangeMessageVisibility"]
        assert len(extended) >= 3 and {seen.status for seen in extended} == {200}

    def test_inv_19_of_a_batch_only_what_failed_comes_back(self, start, sqs, backend):
        start(config(backend, sqs_queue(sqs)))
        for n in range(4):
            sqs.send(chat(f"good {n}"))
        sqs.send(chat("poison"))
        sqs.send("{")
        answers = sqs.take(5)
        assert sorted(attribute(m, "status") for m in answers) == ["200"] * 4 + ["400"]
        # SQS's own policy takes it away at last.
        (dead,) = sqs.take(1, "dead")
        assert dead["Body"] == chat("poison")
        assert backend.asked.count("poison") == 3 and len(backend.asked) == 3 + 4
        kit.wait_until(lambda: sqs.counts() == (0, 0), what="an empty queue")

    def test_inv_19_a_message_that_always_fails_goes_to_the_dead_letters(self, start, sqs, backend):
        start(config(backend, sqs_queue(sqs, dead_letters=sqs.url("plain"), receives=2)))
        id = sqs.send(chat("poison"))
        (dead,) = sqs.take(1, "plain")
        assert (dead["Body"], attribute(dead, "message_id"), attribute(dead, "status")) == (chat("poison"), id, "502")
        # It is sent there before it is deleted here.
        kit.wait_until(lambda: sqs.counts() == (0, 0), what="an empty queue")
        assert (sqs.counts("answers"), len(backend.asked)) == ((0, 0), 2)

    def test_an_answer_that_is_too_large_says_where_it_is(self, start, sqs, backend):
        gateway = start(config(backend, sqs_queue(sqs)))
        sqs.send(chat("x" * 200_000))
        sqs.send(chat("y" * 258_000))
        one, two = sorted(sqs.take(2), key=lambda m: "result" in m["MessageAttributes"])
        assert len(one["Body"]) > 200_000 and json.loads(two["Body"])["status"] == "done"
        assert text(gateway.http("GET", attribute(two, "result")).body) == "echo: " + "y" * 258_000

    def test_whoever_ends_finishes_what_runs_and_gives_back_the_rest(self, start, sqs, backend):
        gateway = start(config(backend, sqs_queue(sqs, concurrency=4, visibility="60s")))
        for n in range(4):
            sqs.send(chat(f"slow:3 {n}"))
        kit.wait_until(lambda: len(backend.asked) == 4, what="requests at the backend")
        for n in range(3):
            sqs.send(chat(f"later {n}"))
        gateway.process.signal(signal.SIGTERM)
        assert gateway.process.wait(30) == 0
        assert len(sqs.take(4)) == 4 and sqs.counts() == (3, 0)

    def test_whose_time_is_over_gives_back_what_is_in_hand(self, start, sqs, backend):
        settings = config(backend, sqs_queue(sqs, visibility="60s"))
        settings["server"]["shutdown_timeout"] = "3s"
        gateway = start(settings)
        sqs.send(chat("slow:30 hello"))
        kit.wait_until(lambda: backend.asked, what="the request at the backend")
        gateway.process.signal(signal.SIGTERM)
        assert gateway.process.wait(25) == 0
        assert sqs.counts() == (1, 0), "for others at once"

    def test_a_killed_gateway_s_messages_are_answered_once_by_another(self, start, sqs, backend, redis):
        settings = config(backend, sqs_queue(sqs, "answers.fifo"), state={"store": "redis", "url": redis.url})
        first = start(settings)
        ids = {sqs.send(chat(f"slow:{n % 5 / 4} hello {n}")) for n in range(30)}
        kit.wait_until(lambda: len(backend.asked) >= 8, what="requests at the backend")
        first.process.kill()
        start(settings)
        answers = sqs.take(30, "answers.fifo")
        assert {attribute(m, "message_id") for m in answers} == ids and len(answers) == 30
        kit.wait_until(lambda: sqs.counts() == (0, 0), what="an empty queue")
        time.sleep(1)
        assert sqs.counts("answers.fifo") == (0, 0), "none is answered twice"


@pytest.mark.host_only
class TestRedisStreams:
    def test_a_message_is_answered_and_gone(self, start, redis, backend):
        ids = {redis.add(chat(f"hello {n}")): n for n in range(12)}
        start(config(backend, redis_queue(redis)))
        answers = [of for _, of in kit.wait_until(lambda: len(redis.entries()) == 12 and redis.entries(), 60, "answers")]
        assert {of["message_id"]: text(of["body"]) for of in answers} == {id: f"echo: hello {n}" for id, n in ids.items()}
        assert (redis.call("XLEN", "requests"), redis.pending()) == (0, 0)
        assert len(backend.asked) == 12

    def test_inv_19_of_a_batch_only_what_failed_comes_back(self, start, redis, backend):
        queue = redis_queue(redis, receives=2, dead_letters="dead")
        for body in (chat("good"), chat("poison"), "{"):
            redis.add(body)
        redis.call("XADD", "requests", "*", "other", "field")
        start(config(backend, queue))
        kit.wait_until(lambda: len(redis.entries()) == 3 and redis.entries("dead"), 90, "answers and the dead letter")
        assert sorted(of["status"] for _, of in redis.entries()) == ["200", "400", "400"]
        ((_, dead),) = redis.entries("dead")
        assert (dead["body"], dead["status"], dead["receives"]) == (chat("poison"), "502", "2")
        assert sorted(backend.asked) == ["good", "poison", "poison"] and redis.pending() == 0

    def test_a_slow_answer_stays_with_its_gateway(self, start, redis, backend):
        settings = config(backend, redis_queue(redis), state={"store": "redis", "url": redis.url})
        start(settings)
        start(settings)
        redis.add(chat("slow:12 hello"))
        ((_, answer),) = kit.wait_until(redis.entries, 90, "the answer")
        assert text(answer["body"]) == "echo: slow:12 hello" and len(backend.asked) == 1

    def test_whoever_ends_gives_back_and_leaves_no_consumer(self, start, redis, backend):
        settings = config(backend, redis_queue(redis, visibility="60s"))
        settings["server"]["shutdown_timeout"] = "3s"
        first = start(settings)
        redis.add(chat("slow:6 hello"))
        kit.wait_until(lambda: backend.asked, what="the request at the backend")
        first.process.signal(signal.SIGTERM)
        assert first.process.wait(30) == 0
        begun = time.monotonic()
        start(settings)
        kit.wait_until(redis.entries, 90, "the answer")
        assert time.monotonic() - begun < 40, "others need not wait for its time to be over"
        names = [dict(zip(c[::2], c[1::2], strict=True))["name"] for c in redis.call("XINFO", "CONSUMERS", "requests", "witgate")]
        assert len([name for name in names if name.startswith("witgate-")]) == 1

    def test_of_two_gateways_one_is_killed_and_each_message_is_answered_once(self, start, redis, backend):
        settings = config(backend, redis_queue(redis), state={"store": "redis", "url": redis.url})
        first, second = start(settings), start(settings)
        ids = {redis.add(chat(f"slow:{n % 5 / 4} hello {n}")) for n in range(60)}
        kit.wait_until(lambda: len(backend.asked) >= 15, what="requests at the backend")
        first.process.kill()
        kit.wait_until(lambda: len(redis.entries()) >= 60, 90, "all answers")
        time.sleep(1)
        answers = [of["message_id"] for _, of in redis.entries()]
        assert len(answers) == 60 and set(answers) == ids
        assert {of["status"] for _, of in redis.entries()} == {"200"}
        assert (redis.call("XLEN", "requests"), redis.pending()) == (0, 0)
        assert second.process.alive()
