#!/usr/bin/env python3
"""Writes a small, valid llama-architecture model in GGUF, with seeded random weights.

    make_tiny_gguf.py OUT.gguf [--variant tiny|tools|slow]
    make_tiny_gguf.py --cache FOLDER          all variants, as FOLDER/<variant>-<hash>.gguf, made where absent

The text that it generates is gibberish by design, but the tokens are real, the chat template is a real one with tools, and
JSON that llama-server constrains by a grammar is well-formed. The bytes depend on nothing but the options.

Variants:
  tiny   0.6 MB; short answers (about 5 to 80 tokens), then an end of turn.
  tools  the same, with a strong wish to call a tool: for `tool_choice: required`.
  slow   80 MB; about 5 ms for each token on one core, and it never ends by itself: for cancellation and stalls.

Vocabulary: SentencePiece with byte fallback: <unk> <s> </s>, the 256 byte tokens, the chat control tokens, the printable
ASCII characters, and some words with all their prefixes (merges only succeed where every step is a token).
"""
import argparse
import hashlib
import os
import pathlib
import string
import sys

import gguf
import numpy as np

VARIANTS = {
    "tiny": {},
    "tools": {"eos_bias": 26.0, "tool_bias": 20.0},
    "slow": {"eos_bias": -99.0, "dim": 512, "layers": 8, "heads": 8, "kv_heads": 4, "ff": 1024, "ctx": 16384},
}

# ChatML with tools in the Hermes form, which llama-server's template analysis knows: so tools with
# `tool_choice: required`, and `response_format`, give well-formed output even from random weights.
TEMPLATE = r"""{{- bos_token }}
{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0]['role'] == 'system' %}{{- messages[0]['content'] }}{%- endif %}
    {{- "\n# Tools\n<tools>" }}
    {%- for tool in tools %}{{- "\n" }}{{- tool | tojson }}{%- endfor %}
    {{- "\n</tools>\nFor each call return a json object within <tool_call></tool_call>:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call><|im_end|>\n" }}
{%- elif messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == "assistant" and message.tool_calls %}
        {{- '<|im_start|>assistant' }}
        {%- if message.content %}{{- '\n' + message.content }}{%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}{%- set tool_call = tool_call.function %}{%- endif %}
            {{- '\n<tool_call>\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}{{- tool_call.arguments | tojson }}{{- '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {{- '<|im_start|>user\n<tool_response>\n' + message.content + '\n</tool_response><|im_end|>\n' }}
    {%- elif message.role != "system" or not loop.first %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}
"""

WORDS = (
    "the of and to in is you that it he was for on are as with his they at be this have from or one had by word but not "
    "what all were we when your can said there use an each which she do how their if will up other about out many then "
    "them these so some her would make like him into time has look two more write go see number no way could people my "
    "than first water been call who oil its now find long down day did get come made may part user assistant system hello "
    "model token stream"
).split()

# What no answer may hold.
NEVER = -99.0


def vocabulary(tools):
    """Tokens, scores and types, and the index of the first token of text."""
    kind = gguf.TokenType
    tokens, scores, types = [], [], []

    def add(text, score, token_type):
        tokens.append(text.encode())
        scores.append(float(score))
        types.append(int(token_type))

    add("<unk>", 0, kind.UNKNOWN)
    add("<s>", 0, kind.CONTROL)
    add("</s>", 0, kind.CONTROL)
    for byte in range(256):
        add(f"<0x{byte:02X}>", 0, kind.BYTE)
    add("<|im_start|>", 0, kind.CONTROL)
    add("<|im_end|>", 0, kind.CONTROL)
    # One token for the whole trigger: with it `tool_choice: required` gives a call at once. But llama-server then refuses
    # `tool_choice: auto` ("trigger word should be marked as preserved token"), so only the tools variant has it.
    if tools:
        add("<tool_call>\n", 0, kind.USER_DEFINED)
    first_text = len(tokens)
    space = "\u2581"
    pieces = [space, *string.ascii_letters, *string.digits, *string.punctuation]
    for word in WORDS:
        pieces += [(space + word)[:k] for k in range(2, len(word) + 2)]
    for rank, piece in enumerate(dict.fromkeys(pieces), start=1):
        add(piece, -rank, kind.NORMAL)
    while len(tokens) % 32:
        add(f"<|pad{len(tokens)}|>", 0, kind.UNUSED)
    return tokens, scores, types, first_text


def write(path, dim=64, layers=2, heads=4, kv_heads=2, ff=128, ctx=4096, seed=2, eos_bias=6.0, tool_bias=NEVER):
    """Writes the model. `eos_bias` is added to the logit of the end of turn, `tool_bias` to that of a tool call."""
    tools = tool_bias > -50
    tokens, scores, types, first_text = vocabulary(tools)
    size = len(tokens)
    rng = np.random.default_rng(seed)
    w = gguf.GGUFWriter(str(path), "llama")
    w.add_name("tiny-random-llama")
    w.add_context_length(ctx)
    w.add_embedding_length(dim)
    w.add_block_count(layers)
    w.add_feed_forward_length(ff)
    w.add_head_count(heads)
    w.add_head_count_kv(kv_heads)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(dim // heads)
    w.add_rope_freq_base(10000.0)
    w.add_vocab_size(size)
    w.add_file_type(gguf.LlamaFileType.ALL_F32)
    w.add_tokenizer_model("llama")
    w.add_token_list(tokens)
    w.add_token_scores(scores)
    w.add_token_types(types)
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_unk_token_id(0)
    w.add_eot_token_id(tokens.index(b"<|im_end|>"))
    w.add_add_bos_token(True)
    w.add_add_eos_token(False)
    w.add_add_space_prefix(False)
    w.add_chat_template(TEMPLATE)

    def random(rows, cols):
        return (rng.standard_normal((rows, cols), dtype=np.float32) / np.float32(np.sqrt(cols))).astype(np.float32)

    def mixed(name, rows, cols):
        """A matrix that writes nothing to channel 0 of the residual stream."""
        m = random(rows, cols)
        m[0, :] = 0
        w.add_tensor(name, m)

    # Channel 0 of the residual stream is a constant: every embedding has BIAS there and nothing else writes to it. So
    # column 0 of output.weight is a bias on each token's logit.
    bias = 6.0
    embedding = rng.standard_normal((size, dim), dtype=np.float32)
    embedding[:, 0] = bias
    w.add_tensor("token_embd.weight", embedding)
    head_dim = dim // heads
    for i in range(layers):
        p = f"blk.{i}."
        w.add_tensor(p + "attn_norm.weight", np.ones(dim, dtype=np.float32))
        w.add_tensor(p + "ffn_norm.weight", np.ones(dim, dtype=np.float32))
        w.add_tensor(p + "attn_q.weight", random(dim, dim))
        w.add_tensor(p + "attn_k.weight", random(kv_heads * head_dim, dim))
        w.add_tensor(p + "attn_v.weight", random(kv_heads * head_dim, dim))
        mixed(p + "attn_output.weight", dim, dim)
        w.add_tensor(p + "ffn_gate.weight", random(ff, dim))
        w.add_tensor(p + "ffn_up.weight", random(ff, dim))
        mixed(p + "ffn_down.weight", dim, ff)
    w.add_tensor("output_norm.weight", np.ones(dim, dtype=np.float32))
    constant = bias / np.sqrt((bias**2 + 3.0 * (dim - 1)) / dim)  # about what channel 0 is after the last norm
    spread = 3.0 / np.sqrt(dim)
    out = (rng.standard_normal((size, dim)) * spread).astype(np.float32)
    out[:, 0] = 0
    out[:first_text] *= 0.05  # bytes and control tokens: flat, far below the text
    out[:first_text, 0] = -6.0 / constant

    def favour(token, by, row=0.05):
        index = tokens.index(token)
        out[index] = (rng.standard_normal(dim) * spread * row).astype(np.float32)
        out[index, 0] = by / constant

    favour(b"<|im_end|>", eos_bias, row=1.0)
    if tools:
        favour(b"<tool_call>\n", tool_bias)
    for token in (b"</s>", b"<s>", b"<unk>", b"<|im_start|>"):
        favour(token, NEVER)
    for index, token_type in enumerate(types):
        if token_type == int(gguf.TokenType.UNUSED):
            out[index] = 0
            out[index, 0] = NEVER / constant
    w.add_tensor("output.weight", out)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def cached(folder, variant):
    """The path of this variant's model in `folder`; made where absent. The name changes when this file changes."""
    stamp = hashlib.sha256(pathlib.Path(__file__).read_bytes()).hexdigest()[:12]
    path = pathlib.Path(folder) / f"{variant}-{stamp}.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        write(part, **VARIANTS[variant])
        part.replace(path)  # in one step: a second run beside this one sees all of it or nothing
        for old in path.parent.glob(f"{variant}-*.gguf"):
            if old != path:
                old.unlink(missing_ok=True)
    return path


def main():
    arguments = argparse.ArgumentParser(description="Writes a small random llama model in GGUF.")
    arguments.add_argument("out", nargs="?")
    arguments.add_argument("--variant", choices=VARIANTS, default="tiny")
    arguments.add_argument("--cache", metavar="FOLDER", help="make all variants here")
    a = arguments.parse_args()
    if a.cache:
        for variant in VARIANTS:
            print(cached(a.cache, variant))
    elif a.out:
        write(a.out, **VARIANTS[a.variant])
        print(a.out, os.path.getsize(a.out), "bytes")
    else:
        arguments.print_usage(sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
