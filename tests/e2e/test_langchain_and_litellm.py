"""LangChain's client of OpenAI's API, and LiteLLM as a client, unmodified, against several backends."""

import json
import os
import subprocess
import sys

import pytest

from test_chat import WEATHER, Weather

pytestmark = pytest.mark.gateway_only


@pytest.fixture
def chat(backends, replay, aws, monkeypatch):
    """LangChain's chat model, for a name of ours."""
    # LangSmith must not look for a server of its own.
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    from langchain_openai import ChatOpenAI

    def model(name, **more):
        options = {"base_url": backends.url + "/v1", "api_key": backends.key, "max_retries": 0}
        options |= {"max_tokens": 20, "temperature": 0}
        return ChatOpenAI(model=name, **options | more)

    return model


@pytest.mark.parametrize("model", ["tiny", "claude", "openai/text", "anthropic/text", "ollama/text"])
def test_langchain_invokes_and_streams(chat, model):
    llm = chat(model, stream_usage=True)
    answer = llm.invoke([("system", "be kind"), ("human", "hello")])
    assert answer.content and answer.usage_metadata["output_tokens"] > 0
    whole = None
    for part in llm.stream("hello"):
        whole = part if whole is None else whole + part
    assert whole.content and whole.usage_metadata["output_tokens"] > 0


@pytest.mark.parametrize("model", ["tools", "claude"])
def test_langchain_calls_tools(chat, aws, unique, model):
    from langchain_core.messages import ToolMessage

    aws.on(unique, say={"calls": [["#0", {"city": "Rome"}]]})
    question = ("human", f"what is the weather like {unique if model == 'claude' else ''}")
    answer = chat(model, max_tokens=300).bind_tools([WEATHER], tool_choice="any").invoke([question])
    call = answer.tool_calls[0]
    assert call["name"] == "get_weather" and call["args"]["city"] in ("Paris", "Rome")
    answer.tool_calls, answer.additional_kwargs = [call], {}
    result = ToolMessage("21 degrees", tool_call_id=call["id"])
    llm = chat(model).bind_tools([WEATHER], **({} if model == "claude" else {"tool_choice": "none"}))
    second = llm.invoke([question, answer, result])
    assert second.content or second.tool_calls or second.response_metadata["finish_reason"] in ("stop", "length")


def test_langchain_parses(chat, aws, unique):
    assert isinstance(chat("tiny", max_tokens=400).with_structured_output(Weather).invoke("hello"), Weather)
    aws.on(unique, say={"text": '{"city": "Rome", "sunny": true}'})
    assert chat("claude").with_structured_output(Weather).invoke(unique) == Weather(city="Rome", sunny=True)


@pytest.mark.parametrize("model", ["embedder", "openai/any"])
def test_langchain_embeds(backends, replay, model):
    from langchain_openai import OpenAIEmbeddings

    # Without its own tokenizer, whose tables it would fetch.
    options = {"base_url": backends.url + "/v1", "api_key": backends.key, "check_embedding_ctx_length": False}
    vectors = OpenAIEmbeddings(model=model, **options).embed_documents(["hello", "world"])
    assert len(vectors) == 2 and len(vectors[0]) >= 3


# LiteLLM is large, and changes the process that imports it: it has one of its own, for all questions.
# It leaves an Ollama stream before its end. Were that collected while httpcore holds its pool's lock, to close it would wait for
# that same lock, for ever: so nothing is collected.
LITELLM = """
import gc, json, os, sys
gc.disable()
import litellm

url, key = sys.argv[1:]
told = {}
USER = [{"role": "user", "content": "hello"}]

def ask(name, **options):
    base = url if name.startswith(("anthropic", "ollama")) else url + "/v1"
    options = {"messages": USER, "max_tokens": 20, "temperature": 0, "api_base": base, "api_key": key, "max_retries": 0} | options
    return litellm.completion(model=name, **options)

for name in json.loads(os.environ["MODELS"]):
    answer = ask(name)
    stream = "".join(chunk.choices[0].delta.content or "" for chunk in ask(name, stream=True))
    told[name] = [answer.choices[0].message.content, stream, answer.usage.completion_tokens]
tools = json.loads(os.environ["TOOLS"])
(call, *_) = ask("openai/tools", tools=tools, tool_choice="required", max_tokens=300).choices[0].message.tool_calls
told["call"] = [call.function.name, call.function.arguments]
found = litellm.embedding(model="openai/embedder", input=["hello"], api_base=url + "/v1", api_key=key)
told["embedding"] = len(found.data[0]["embedding"])
for name in ("openai/nobody", "openai/anthropic/error-429", "openai/ollama/error-context"):
    try:
        told[name] = str(ask(name))
    except Exception as error:
        told[name] = type(error).__name__
print("TOLD " + json.dumps(told))
"""

LITELLM_CHATS = ["openai/tiny", "openai/claude", "openai/anthropic/text", "anthropic/tiny", "anthropic/openai/text"]
LITELLM_CHATS += ["ollama_chat/tiny", "ollama_chat/claude"]


def test_litellm(backends, replay, aws):
    environment = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "TMPDIR", "LANG")}
    # It would fetch a list of prices.
    environment |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "TOOLS": json.dumps([WEATHER])}
    environment |= {"MODELS": json.dumps(LITELLM_CHATS), "OLLAMA_API_KEY": backends.key}
    command = [sys.executable, "-c", LITELLM, backends.url, backends.key]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("TOLD ")]
    told = json.loads(line.removeprefix("TOLD "))
    for name in LITELLM_CHATS:
        whole, streamed, tokens = told[name]
        assert whole and streamed and tokens > 0, (name, told[name])
    assert told["call"][0] == "get_weather" and json.loads(told["call"][1])["city"] in ("Paris", "Rome")
    assert told["embedding"] > 3
    assert told["openai/nobody"] == "NotFoundError" and told["openai/anthropic/error-429"] == "RateLimitError"
    assert told["openai/ollama/error-context"] in ("ContextWindowExceededError", "BadRequestError")
