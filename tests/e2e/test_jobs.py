"""Asynchronous jobs, files and batches, with the official `openai` package where it has them."""

import base64
import hashlib
import hmac
import http.server
import io
import json
import threading
import time

import kit
import openai
import pytest

pytestmark = pytest.mark.gateway_only

SECRET = base64.b64encode(b"a secret of the suite, 32 bytes.").decode()
LATER = {"prefer": "respond-async"}


def config(state, **jobs):
    return {
        "state": state,
        "server": {"api_keys": ["key-of-one", "key-of-two"]},
        "providers": {"stub": {"adapter": "stub"}},
        "models": {"*": {"target": "stub"}},
        "jobs": {"callback_secret": f"whsec_{SECRET}", "allow_private_callbacks": True} | jobs,
    }


@pytest.fixture
def jobs(start, state, receiver):
    settings = config(state)
    # The component may reach no host but those that its configuration names.
    settings["providers"]["receiver"] = {"adapter": "openai", "endpoint": f"http://127.0.0.1:{receiver.server_port}"}
    return start(settings)


def submit(gateway, prompt="hello", **headers):
    answer = gateway.chat("stub", prompt, headers=LATER | {k.replace("_", "-"): v for k, v in headers.items()})
    assert answer.status == 202, answer
    return answer


def test_bed_r7_a_job_is_submitted_polled_and_its_result_is_what_the_api_answers(jobs):
    answer = submit(jobs, "Hello")
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert answer.headers["preference-applied"] == "respond-async"
    ended = jobs.http("GET", f"/v1/jobs/{job['id']}?wait=30s").json()
    assert ended["status"] == "done"
    result = jobs.http("GET", f"/v1/jobs/{job['id']}/result")
    plain = jobs.chat("stub", "Hello")
    assert (result.status, result.headers["content-type"]) == (plain.status, plain.headers["content-type"])
    assert result.json()["choices"][0]["message"] == plain.json()["choices"][0]["message"]


def test_the_official_client_submits_with_a_header_and_parses_the_result(jobs):
    client = jobs.client_with(api_key="key-of-one", default_headers={"prefer": "respond-async, wait=30"})
    answer = client.chat.completions.create(model="stub", messages=[{"role": "user", "content": "Hello"}])
    assert "Hello" in answer.choices[0].message.content


def test_nobody_else_sees_a_job_and_an_idempotency_key_stands_for_one(jobs):
    first = submit(jobs, idempotency_key="a").json()["id"]
    # It may have ended by now: then its result comes at once.
    again = jobs.chat("stub", "hello", headers=LATER | {"idempotency-key": "a"})
    assert again.status in (200, 202) and again.headers["location"] == f"/v1/jobs/{first}"
    assert jobs.chat("stub", "other", headers=LATER | {"idempotency-key": "a"}).status == 409
    other = kit.http("GET", f"{jobs.url}/v1/jobs/{first}", None, {"authorization": "Bearer key-of-two"}, 10)
    assert other.status == 404


def test_the_official_client_s_responses_in_the_background(jobs):
    client = jobs.client_with(api_key="key-of-one")
    queued = client.responses.create(model="stub", input="Hello", background=True, metadata={"a": "b"})
    assert (queued.status, queued.background, queued.metadata) == ("queued", True, {"a": "b"})
    done = kit.wait_until(lambda: ended(client, queued.id), 60, "the response")
    assert (done.status, done.id, done.created_at) == ("completed", queued.id, queued.created_at)
    assert "Hello" in done.output_text and done.usage.total_tokens > 0
    items = client.responses.input_items.list(queued.id).data
    assert items[0].content[0].text == "Hello"
    again = client.responses.cancel(queued.id)
    assert again.status == "completed", "it has ended already"
    on = client.responses.create(model="stub", input="And then?", previous_response_id=queued.id)
    assert "And then?" in on.output_text
    with pytest.raises(openai.NotFoundError):
        jobs.client_with(api_key="key-of-two").responses.retrieve(queued.id)
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.cancel(on.id)
    assert "synchronous" in str(refused.value)
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model="stub", input="Hello", background=True, store=False)
    client.responses.delete(queued.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(queued.id)


def ended(client, id):
    response = client.responses.retrieve(id)
    return response if response.status not in ("queued", "in_progress") else None


def test_the_official_client_cancels_a_response_in_the_background(start, state, double):
    slow = config(state)
    slow["providers"]["double"] = {"adapter": "openai", "endpoint": double.url}
    slow["models"] = {"slow": {"target": "double/silent"}, "drip": {"target": "double/drip"}}
    client = start(slow).client_with(api_key="key-of-one")
    running = client.responses.create(model="slow", input="Hello", background=True)
    kit.wait_until(lambda: client.responses.retrieve(running.id).status == "in_progress", 60, "the run")
    assert client.responses.cancel(running.id).status == "cancelled"
    assert client.responses.retrieve(running.id).status == "cancelled"

    # A stream that goes on when its client has left, and is followed again from where it was.
    with client.responses.create(model="drip", input="Hello", background=True, stream=True) as stream:
        seen = [event for event, _ in zip(stream, range(12))]
    id = seen[0].response.id
    time.sleep(0.5)
    assert client.responses.retrieve(id).status == "in_progress"
    with client.responses.retrieve(id, stream=True, starting_after=seen[-1].sequence_number) as stream:
        rest = [event for event, _ in zip(stream, range(12))]
    assert [event.sequence_number for event in seen + rest] == list(range(24))
    assert {event.type for event in rest} == {"response.output_text.delta"}
    assert client.responses.cancel(id).status == "cancelled"


def test_the_official_client_follows_a_response_in_the_background(jobs):
    client = jobs.client_with(api_key="key-of-one")
    events = list(client.responses.create(model="stub", input="Hello", background=True, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    done = client.responses.retrieve(events[-1].response.id)
    assert done.output_text == events[-1].response.output_text != ""
    replayed = list(client.responses.retrieve(done.id, stream=True, starting_after=2))
    assert [event.sequence_number for event in replayed] == list(range(3, len(events)))


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append((dict(self.headers), body))
        status = 500 if len(self.server.got) <= self.server.failures else 204
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def receiver():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.got, server.failures = [], 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def signed(headers, body):
    """Whether a callback is signed as Standard Webhooks says."""
    headers = {name.lower(): value for name, value in headers.items()}
    text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    own = base64.b64encode(hmac.new(base64.b64decode(SECRET), text, hashlib.sha256).digest()).decode()
    return f"v1,{own}" in headers["webhook-signature"].split(" ")


def test_bed_r7_a_signed_callback_is_sent_once_when_it_is_accepted(jobs, receiver):
    url = f"http://127.0.0.1:{receiver.server_port}/done"
    job = submit(jobs, x_witgate_callback=url).json()
    kit.wait_until(lambda: receiver.got, 60, "the callback")
    time.sleep(3)
    assert len(receiver.got) == 1
    headers, body = receiver.got[0]
    assert signed(headers, body)
    told = json.loads(body)
    assert (told["type"], told["data"]["id"]) == ("job.done", job["id"])


def test_a_callback_that_is_not_accepted_comes_again_with_the_same_id(jobs, receiver):
    receiver.failures = 1
    submit(jobs, x_witgate_callback=f"http://127.0.0.1:{receiver.server_port}/done")
    kit.wait_until(lambda: len(receiver.got) == 2, 60, "the callback, twice")
    first, second = ({name.lower(): value for name, value in headers.items()} for headers, _ in receiver.got)
    assert first["webhook-id"] == second["webhook-id"]


def test_a_callback_does_not_reach_this_machine_unless_it_may(start, state, receiver):
    gateway = start(config(state, allow_private_callbacks=False))
    for host in ("127.0.0.1", "localhost", "[::1]", "2130706433"):
        headers = LATER | {"x-witgate-callback": f"http://{host}:{receiver.server_port}/"}
        assert gateway.chat("stub", headers=headers).status == 400, host
    assert receiver.got == []


def lines(count):
    body = {"model": "stub", "messages": [{"role": "user", "content": "Hello"}]}
    all = [
        {"custom_id": f"r{n}", "method": "POST", "url": "/v1/chat/completions", "body": body} for n in range(count)
    ]
    return "\n".join(json.dumps(line) for line in all).encode()


def test_the_official_client_s_files_and_batches(jobs):
    client = jobs.client_with(api_key="key-of-one")
    file = client.files.create(file=("in.jsonl", io.BytesIO(lines(50))), purpose="batch")
    assert (file.bytes, file.filename, file.purpose) == (len(lines(50)), "in.jsonl", "batch")
    assert client.files.content(file.id).read() == lines(50)
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"a": "b"}
    )
    assert batch.status == "validating" and batch.metadata == {"a": "b"}

    def ended():
        now = client.batches.retrieve(batch.id)
        return now if now.status in ("completed", "failed", "expired") else None

    done = kit.wait_until(ended, 120, "the end of the batch", every=0.2)
    assert (done.status, done.request_counts.completed, done.request_counts.failed) == ("completed", 50, 0)
    output = [json.loads(line) for line in client.files.content(done.output_file_id).text.splitlines()]
    assert [line["custom_id"] for line in output] == [f"r{n}" for n in range(50)]
    assert all("Hello" in line["response"]["body"]["choices"][0]["message"]["content"] for line in output)
    assert [b.id for b in client.batches.list()] == [batch.id]
    assert {f.id for f in client.files.list()} == {file.id, done.output_file_id}
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)
