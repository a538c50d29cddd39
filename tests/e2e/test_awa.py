"""The facade of AWA's LLM microservice: `POST /llm`, and the set-up by its environment variables."""

import openai
import pytest

import kit
from conftest import KEY, UPSTREAM_KEY, start_gateway
from double import SECRET

pytestmark = pytest.mark.gateway_only


def facade(url, **more):
    """/llm names no model: the alias `*` serves it."""
    return {
        "server": {"api_keys": [KEY]},
        "providers": {"local": {"adapter": "llama-cpp", "endpoint": url, "api_key": UPSTREAM_KEY}},
        "models": {"*": {"targets": ["local/tiny"]}},
    } | more


@pytest.fixture(scope="module")
def awa(shape, folder, tiny):
    gateway = start_gateway(shape, facade(tiny.url), folder)
    yield gateway
    gateway.process.stop()


def failing(start, double, script):
    """A gateway whose backend does as the script says."""
    return start(facade(double.url, models={"*": {"targets": [f"local/{script}"]}}))


def test_awa_1_health_is_always_ok_and_ready_asks_the_upstreams(awa, start):
    assert kit.http("GET", awa.url + "/health").json() == {"status": "ok"}
    assert kit.http("GET", awa.url + "/ready").status == 200
    gone = start(facade(f"http://127.0.0.1:{kit.free_port()}"))
    answer = kit.http("GET", gone.url + "/health")
    assert answer.status == 200 and answer.json() == {"status": "ok"}
    assert kit.http("GET", gone.url + "/ready").status == 503


def test_awa_2_a_prompt_gives_a_completion(awa, tiny):
    answer = awa.post("/llm", {"prompt": "hello"})
    assert answer.status == 200, answer.text
    assert list(answer.json()) == ["completion"]
    text = answer.json()["completion"]
    assert text and text == text.strip()


def test_awa_2_max_tokens_and_temperature_have_their_defaults_and_are_sent(start, double, unique):
    gateway = failing(start, double, "ok")
    answer = gateway.post("/llm", {"prompt": unique})
    assert answer.json() == {"completion": "two words"}
    gateway.post("/llm", {"prompt": unique, "max_tokens": 7, "temperature": 0})
    first, second = (seen.json for seen in double.of(unique))
    assert first["messages"] == [{"role": "user", "content": unique}]

    def most(body):
        return body.get("max_tokens") or body.get("max_completion_tokens")

    assert most(first) == 256 and first["temperature"] == 0.7
    assert most(second) == 7 and second["temperature"] == 0


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": "x", "max_tokens": "many"}, "max_tokens"),
        ({"prompt": "x", "temperature": "hot"}, "temperature"),
    ],
)
def test_awa_3_a_wrong_type_or_no_prompt_is_a_422(awa, body, place):
    answer = awa.post("/llm", body)
    assert answer.status == 422, answer.text
    for detail in answer.json()["detail"]:
        assert set(detail) >= {"loc", "msg", "type"}
    assert place in answer.json()["detail"][0]["loc"]


def test_awa_3_what_is_no_json_is_a_422_too(awa):
    answer = awa.post("/llm", b"{")
    assert answer.status == 422 and answer.json()["detail"][0]["msg"]


def test_awa_4_a_backends_failure_is_a_500_with_its_words(start, double):
    answer = failing(start, double, "broken").post("/llm", {"prompt": "x"})
    assert answer.status == 500
    detail = answer.json()["detail"]
    assert "the model fell over" in detail and detail.endswith(" [truncated]")
    assert len(detail.encode()) <= 2048 + len(" [truncated]")


def test_awa_4_a_backend_that_is_gone_is_a_500(start):
    answer = start(facade(f"http://127.0.0.1:{kit.free_port()}")).post("/llm", {"prompt": "x"})
    assert answer.status == 500 and isinstance(answer.json()["detail"], str)


def test_awa_4_secrets_are_masked(start, double):
    answer = failing(start, double, "repeats_secret").post("/llm", {"prompt": "x"})
    assert answer.status == 500 and "cannot use" in answer.json()["detail"]
    assert SECRET not in answer.text


def test_awa_5_chat_completions_has_the_openai_shape(awa):
    answer = awa.client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hello"}])
    assert answer.choices[0].message.content and answer.usage.total_tokens


def test_awa_7_one_log_line_tells_all_but_the_prompt(awa, unique):
    awa.post("/llm", {"prompt": f"secret-{unique}"}, headers={"x-request-id": unique})
    lines = [line for line in awa.log_of(unique) if "status" in line]
    assert len(lines) == 1
    line = lines[0]
    assert (line["method"], line["path"], int(line["status"]), line["provider"]) == ("POST", "/llm", 200, "local")
    assert any(key.startswith("latency") for key in line)
    assert f"secret-{unique}" not in awa.process.output()


def test_awa_8_a_missing_or_wrong_bearer_is_a_401_and_health_is_exempt(awa):
    for headers in ({}, {"authorization": "Bearer wrong"}):
        answer = kit.http("POST", awa.url + "/llm", {"prompt": "x"}, headers)
        assert answer.status == 401 and "bearer" in answer.headers["www-authenticate"].lower()
    assert kit.http("GET", awa.url + "/health").status == 200


# The same by AWA's own variables, without a file.


def test_awa_8_llm_api_key_closes_the_service(start, tiny):
    variables = {"LLM_BASE_URL": tiny.url, "LLM_API_KEY": UPSTREAM_KEY}
    gateway = start(None, variables=variables)
    assert kit.http("GET", gateway.url + "/health").status == 200
    answer = kit.http("POST", gateway.url + "/llm", {"prompt": "x"})
    assert answer.status == 401 and "bearer" in answer.headers["www-authenticate"].lower()
    # The one key of this service is also what it shows to its backend.
    answer = gateway.post("/llm", {"prompt": "hello", "max_tokens": 5})
    assert answer.status == 200 and "completion" in answer.json(), answer.text


def test_awa_10_lan_is_the_default_and_strips_a_slash(start, double, unique):
    gateway = start(None, variables={"LLM_BASE_URL": double.url + "/", "LLM_PROVIDER_FALLBACK": ""})
    answer = kit.http("POST", gateway.url + "/llm", {"prompt": unique})
    assert answer.status == 200, answer.text
    (seen,) = double.of(unique)
    assert seen.path == "/v1/chat/completions"
    assert seen.json["messages"] == [{"role": "user", "content": unique}]
    assert "authorization" not in seen.headers


def test_awa_15_and_16_the_stub_answers_where_the_backend_is_gone(start, unique):
    """`stub` is the fallback where the variables name none."""
    gateway = start(None, variables={"LLM_BASE_URL": f"http://127.0.0.1:{kit.free_port()}"})
    prompt = unique * 3
    headers = {"x-request-id": unique}
    answer = kit.http("POST", gateway.url + "/llm", {"prompt": prompt}, headers)
    assert answer.status == 200 and answer.json() == {"completion": "[stub] " + prompt[:64]}
    line = next(line for line in gateway.log_of(unique) if "status" in line)
    assert line["provider"] == "stub"


def test_no_variables_and_no_file_give_the_stub(start, shape):
    """What the README's first command starts: it answers at once."""
    gateway = start(None)
    client = openai.OpenAI(base_url=gateway.url + "/v1", api_key="none", max_retries=0)
    name = client.models.list().data[0].id
    answer = client.chat.completions.create(model=name, messages=[{"role": "user", "content": "hello"}])
    assert answer.choices[0].message.content.startswith("[stub] hello")
    assert answer.choices[0].finish_reason == "stop"
