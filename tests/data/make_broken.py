"""Makes tests/data/references/{malformed,cases,templates}: broken and odd files, runs of the command line, renders of templates.

    pip install numpy jinja2
    python tests/data/make_broken.py

Expected logits are make_references.py's, expected renders Jinja2's, set up as Transformers does.
"""

import datetime
import json
import shutil
import struct

import jinja2
import jinja2.ext
import jinja2.sandbox
import numpy as np
from make_references import BASE, OUT, forward, gguf_tensors, hf_config, hf_tensors, make_weights, save_npy, save_safetensors

SPEC = dict(BASE, hidden=8, layers=1, heads=2, kv=1, hd=4, ffn=8, vocab=12, ctx=64)
TOKENS = ["<unk>", "<s>", "</s>", "\u2581", "a", "b", "c", "d", "\u2581a", "ab", "cd", "e"]
IDS = [1, 4, 8, 5, 10, 3, 7, 11]
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)


# ---- GGUF, byte by byte


def text(value):
    value = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(value)) + value


def key(name, kind, value):
    return text(name) + struct.pack("<I", kind) + value


def u32(name, value):
    return key(name, U32, struct.pack("<I", value))


def f32(name, value):
    return key(name, F32, struct.pack("<f", value))


def strings(name, values):
    return key(name, ARRAY, struct.pack("<IQ", STRING, len(values)) + b"".join(text(v) for v in values))


def array(name, kind, form, values):
    return key(name, ARRAY, struct.pack("<IQ", kind, len(values)) + struct.pack(f"<{len(values)}{form}", *values))


def metadata():
    return {
        "general.architecture": key("general.architecture", STRING, text("llama")),
        "llama.context_length": u32("llama.context_length", 64),
        "llama.embedding_length": u32("llama.embedding_length", 8),
        "llama.block_count": u32("llama.block_count", 1),
        "llama.feed_forward_length": u32("llama.feed_forward_length", 8),
        "llama.attention.head_count": u32("llama.attention.head_count", 2),
        "llama.attention.head_count_kv": u32("llama.attention.head_count_kv", 1),
        "llama.attention.layer_norm_rms_epsilon": f32("llama.attention.layer_norm_rms_epsilon", 1e-5),
        "llama.rope.freq_base": f32("llama.rope.freq_base", 10000.0),
        "tokenizer.ggml.model": key("tokenizer.ggml.model", STRING, text("llama")),
        "tokenizer.ggml.tokens": strings("tokenizer.ggml.tokens", TOKENS),
        "tokenizer.ggml.scores": array("tokenizer.ggml.scores", F32, "f", [-float(i) for i in range(12)]),
        "tokenizer.ggml.token_type": array("tokenizer.ggml.token_type", I32, "i", [2, 3, 3] + [1] * 9),
        "tokenizer.ggml.bos_token_id": u32("tokenizer.ggml.bos_token_id", 1),
        "tokenizer.ggml.eos_token_id": u32("tokenizer.ggml.eos_token_id", 2),
    }


def gguf_file(weights, keys=None, tensors=None, version=3, magic=b"GGUF", n_keys=None, n_tensors=None, alignment=32, info=None):
    """`tensors`: name -> values; `info`: name -> what its entry says instead (dims, type, offset, name)."""
    keys = metadata() if keys is None else keys
    tensors = gguf_tensors(SPEC, weights) if tensors is None else tensors
    out = magic + struct.pack("<IQQ", version, len(tensors) if n_tensors is None else n_tensors, len(keys) if n_keys is None else n_keys)
    out += b"".join(keys.values())
    data, infos = b"", b""
    for name, value in tensors.items():
        data += b"\0" * (-len(data) % alignment)
        entry = dict(name=name, dims=list(reversed(value.shape)), type=0, offset=len(data)) | (info or {}).get(name, {})
        dims = entry["dims"]
        infos += text(entry["name"]) + struct.pack("<I", entry.get("n_dims", len(dims))) + struct.pack(f"<{len(dims)}Q", *dims)
        infos += struct.pack("<IQ", entry["type"], entry["offset"])
        data += np.asarray(value, np.float32).tobytes()
    out += infos
    return out + b"\0" * (-len(out) % alignment) + data


def gguf_cases(w):
    plain = gguf_file(w)
    keys_end = 24 + sum(len(k) for k in metadata().values())

    def with_keys(drop=(), **more):
        keys = {k: v for k, v in metadata().items() if k not in drop}
        return gguf_file(w, keys | {k: v for k, v in more.items()})

    def with_key(name, value):
        return gguf_file(w, metadata() | {name: value})

    def without(name):
        return gguf_file(w, tensors={k: v for k, v in gguf_tensors(SPEC, w).items() if k != name})

    def entry(tensor="token_embd.weight", **changes):
        return gguf_file(w, info={tensor: changes})

    def head(at, value, form="<Q"):
        raw = bytearray(plain)
        struct.pack_into(form, raw, at, value)
        return bytes(raw)

    first = 24
    arch = len(text("general.architecture")) + 4
    yield "empty", "error", "zero bytes", b""
    yield "magic-only", "error", "ends after the magic", b"GGUF"
    yield "magic-wrong", "error", "another magic", b"GGUX" + plain[4:]
    yield "magic-ggml", "error", "the format before GGUF", b"lmgg" + plain[4:]
    yield "html", "error", "a page instead of a file", b"<!DOCTYPE html><html><body>Not found</body></html>"
    yield "lfs-pointer", "error", "a pointer of Git LFS", b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1\n"
    yield "version-1", "error", "version 1", head(4, 1, "<I")
    yield "version-99", "error", "version 99", head(4, 99, "<I")
    yield "cut-in-kv-count", "error", "ends in the header", plain[:20]
    yield "cut-in-kv", "error", "ends in the metadata", plain[:200]
    yield "cut-in-tensor-infos", "error", "ends in the list of tensors", plain[: keys_end + 50]
    yield "cut-in-data", "error", "ends in the weights", plain[:-500]
    yield "cut-last-byte", "error", "one byte is missing", plain[:-1]
    yield "tensor-count-max", "error", "2^64 - 1 tensors", head(8, 2**64 - 1)
    yield "tensor-count-plus-1", "error", "a tensor more than there is", head(8, len(gguf_tensors(SPEC, w)) + 1)
    yield "kv-count-max", "error", "2^64 - 1 keys", head(16, 2**64 - 1)
    yield "kv-count-plus-1", "error", "a key more than there is", head(16, len(metadata()) + 1)
    yield "key-length-2e60", "error", "a key of 2^60 bytes", head(first, 2**60)
    yield "string-length-2e60", "error", "a text of 2^60 bytes", head(first + arch, 2**60)
    yield "value-type-13", "error", "a type of value that is not", head(first + arch - 4, 13, "<I")
    huge = key("x", ARRAY, struct.pack("<IQ", U64, 2**61))
    yield "array-length-mul-overflow", "error", "a list whose size overflows", with_key("x", huge)
    yield "array-length-4e9", "error", "a list longer than the file", with_key("x", key("x", ARRAY, struct.pack("<IQ", U8, 4 * 10**9)))
    deep = struct.pack("<IQ", ARRAY, 1) * 5000 + struct.pack("<IQ", U8, 0)
    yield "array-nested-deep", "error", "lists in lists, 5000 deep", with_key("x", key("x", ARRAY, deep))
    for name in ("general.architecture", "llama.embedding_length", "llama.block_count", "llama.attention.head_count"):
        yield "missing-" + name.split(".")[-1], "error", "without " + name, with_keys(drop=[name])
    yield "arch-unknown", "error", "an architecture that is not run", with_key("general.architecture", key("general.architecture", STRING, text("mamba")))
    yield "arch-type", "error", "the architecture is a number", with_key("general.architecture", u32("general.architecture", 1))
    yield "embedding-wrong", "error", "an embedding length that the tensors have not", with_key("llama.embedding_length", u32("llama.embedding_length", 16))
    yield "embedding-huge", "error", "an embedding length of 2^32 - 1", with_key("llama.embedding_length", u32("llama.embedding_length", 2**32 - 1))
    yield "blocks-2", "error", "a layer more than there is", with_key("llama.block_count", u32("llama.block_count", 2))
    yield "blocks-huge", "error", "2^32 - 1 layers", with_key("llama.block_count", u32("llama.block_count", 2**32 - 1))
    yield "heads-0", "error", "no heads", with_key("llama.attention.head_count", u32("llama.attention.head_count", 0))
    yield "kv-heads-0", "error", "no heads of keys", with_key("llama.attention.head_count_kv", u32("llama.attention.head_count_kv", 0))
    yield "heads-not-dividing", "error", "8 numbers in 3 heads", with_key("llama.attention.head_count", u32("llama.attention.head_count", 3))
    yield "eps-nan", "either", "an epsilon that is no number", with_key(
        "llama.attention.layer_norm_rms_epsilon", f32("llama.attention.layer_norm_rms_epsilon", float("nan"))
    )
    yield "theta-0", "either", "a rope base of 0", with_key("llama.rope.freq_base", f32("llama.rope.freq_base", 0.0))
    yield "rope-dim-odd", "error", "rope over 3 numbers", with_key("llama.rope.dimension_count", u32("llama.rope.dimension_count", 3))
    yield "rope-dim-large", "error", "rope over more than a head", with_key("llama.rope.dimension_count", u32("llama.rope.dimension_count", 8))
    scaling = key("llama.rope.scaling.type", STRING, text("spiral"))
    yield "rope-scaling-unknown", "error", "a scaling of rope that is not run", with_key("llama.rope.scaling.type", scaling)
    yield "experts-without-tensors", "error", "experts, and no tensors of them", gguf_file(
        w, metadata() | {"e": u32("llama.expert_count", 4), "u": u32("llama.expert_used_count", 2)}
    )
    yield "alignment-0", "error", "an alignment of 0", with_key("general.alignment", u32("general.alignment", 0))
    yield "alignment-3", "error", "an alignment of 3", with_key("general.alignment", u32("general.alignment", 3))
    yield "tensor-type-removed", "error", "a weight type that was removed", entry(type=4)
    yield "tensor-type-unknown", "error", "a weight type that is not", entry(type=1000)
    yield "tensor-type-int", "error", "weights that are integers", entry(type=26)
    yield "quant-row", "error", "rows of 8 in blocks of 32", entry(type=2)
    yield "ndims-5", "error", "five dimensions", entry(dims=[8, 12, 1, 1, 1])
    yield "dim-0", "error", "a dimension of 0", entry(dims=[0, 12])
    yield "dims-overflow", "error", "a shape whose size overflows", entry(dims=[2**40, 2**40])
    yield "dim-shape", "error", "an embedding turned around", entry(dims=[12, 8])
    yield "offset-past-end", "error", "weights beyond the end", entry(offset=1 << 20)
    yield "offset-overflow", "error", "an offset near 2^64", entry(offset=2**64 - 32)
    yield "offset-misaligned", "error", "an offset between two multiples of 32", entry(offset=4)
    yield "name-duplicate", "error", "two tensors of a name", entry("output.weight", name="token_embd.weight")
    yield "name-length-2e60", "error", "a name of 2^60 bytes", plain[:keys_end] + struct.pack("<Q", 2**60) + plain[keys_end + 8 :]
    for name in ("token_embd", "output_norm", "blk.0.attn_q", "blk.0.ffn_down"):
        yield "missing-tensor-" + name.split(".")[-1], "error", "without " + name, without(name + ".weight")
    few = strings("tokenizer.ggml.tokens", TOKENS[:9])
    yield "scores-short", "error", "fewer scores than tokens", with_key("tokenizer.ggml.scores", array("tokenizer.ggml.scores", F32, "f", [0.0] * 3))
    yield "types-short", "error", "fewer kinds than tokens", with_key("tokenizer.ggml.token_type", array("tokenizer.ggml.token_type", I32, "i", [1]))
    yield "tokens-empty", "error", "no tokens", with_key("tokenizer.ggml.tokens", strings("tokenizer.ggml.tokens", []))
    yield "tokens-ints", "error", "tokens that are numbers", with_key("tokenizer.ggml.tokens", array("tokenizer.ggml.tokens", I32, "i", [1] * 12))
    yield "tokens-fewer", "error", "fewer tokens than scores", with_key("tokenizer.ggml.tokens", few)
    yield "bos-range", "either", "a first token that is not", with_key("tokenizer.ggml.bos_token_id", u32("tokenizer.ggml.bos_token_id", 99))
    yield "tokenizer-unknown", "error", "a tokenizer that is not run", with_key("tokenizer.ggml.model", key("tokenizer.ggml.model", STRING, text("rwkv")))
    yield "bpe-no-merges", "error", "byte pairs without merges", with_key("tokenizer.ggml.model", key("tokenizer.ggml.model", STRING, text("gpt2")))
    template = key("tokenizer.chat_template", STRING, text("{% for m in messages %}{{ m.content"))
    yield "template-syntax", "either", "a template that ends too early", with_key("tokenizer.chat_template", template)
    nan = {k: np.full_like(v, np.nan) if k == "output_norm.weight" else v for k, v in gguf_tensors(SPEC, w).items()}
    yield "norm-nan", "either", "weights that are no numbers", gguf_file(w, tensors=nan)
    yield "ok-plain", "ok", "as it is to be", plain
    yield "ok-version-2", "ok", "version 2", head(4, 2, "<I")
    yield "ok-alignment-64", "ok", "another alignment", gguf_file(
        w, metadata() | {"general.alignment": u32("general.alignment", 64)}, alignment=64
    )
    yield "ok-trailing-bytes", "ok", "bytes after the last tensor", plain + b"more" * 25
    yield "ok-tensor-order", "ok", "tensors the other way round", gguf_file(w, tensors=dict(reversed(gguf_tensors(SPEC, w).items())))
    yield "ok-kv-heads-array", "ok", "a number of heads for each layer", with_key(
        "llama.attention.head_count_kv", array("llama.attention.head_count_kv", U32, "I", [1])
    )


def hf_cases(folder, w):
    """Writes folders; yields name, what is to happen, why."""
    tensors, config = hf_tensors(SPEC, w), hf_config(SPEC) | dict(torch_dtype="float32")

    def write(name, expect, why, change_config=None, change=None, drop=(), more=None):
        place = folder / name
        place.mkdir(parents=True)
        save_safetensors(place / "model.safetensors", {k: v for k, v in tensors.items() if k not in drop}, "F32")
        if change:
            raw = (place / "model.safetensors").read_bytes()
            size = struct.unpack("<Q", raw[:8])[0]
            (place / "model.safetensors").write_bytes(change(raw, json.loads(raw[8 : 8 + size]), raw[8 + size :]))
        found = {k: v for k, v in (config | (change_config or {})).items() if v != "absent"}
        (place / "config.json").write_text(json.dumps(found))
        for file, content in (more or {}).items():
            (place / file).write_text(content)
        return f"hf/{name}", expect, why

    def with_header(header, data):
        raw = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(raw)) + raw + data

    def entry(**changes):
        def change(_, header, data):
            header["model.norm.weight"] |= changes
            return with_header(header, data)

        return change

    yield write("ok-plain", "ok", "as it is to be")
    yield write("ok-metadata", "ok", "an entry __metadata__", change=lambda _, h, d: with_header({"__metadata__": {"format": "pt"}} | h, d))
    yield write("ok-unordered", "ok", "names in another order", change=lambda _, h, d: with_header(dict(reversed(h.items())), d))
    yield write("empty", "error", "zero bytes", change=lambda *_: b"")
    yield write("header-length-huge", "error", "a header of 2^60 bytes", change=lambda raw, *_: struct.pack("<Q", 2**60) + raw[8:])
    yield write("header-not-json", "error", "a header that is no JSON", change=lambda _, h, d: with_header(b"{nothing", d))
    yield write("header-array", "error", "a header that is a list", change=lambda _, h, d: with_header([], d))
    yield write("offset-past-end", "error", "weights beyond the end", change=entry(data_offsets=[1 << 20, (1 << 20) + 32]))
    yield write("offset-reversed", "error", "an end before the beginning", change=entry(data_offsets=[64, 32]))
    yield write("offset-size", "error", "fewer bytes than the shape needs", change=entry(data_offsets=[0, 4]))
    yield write("dtype-unknown", "error", "a type of numbers that is not", change=entry(dtype="F99"))
    yield write("shape-overflow", "error", "a shape whose size overflows", change=entry(shape=[2**40, 2**40]))
    yield write("shape-wrong", "error", "a shape that config.json has not", change=entry(shape=[4, 2]))
    yield write("cut-data", "error", "ends in the weights", change=lambda raw, *_: raw[:-100])
    yield write("missing-tensor", "error", "a tensor is missing", drop=["model.norm.weight"])
    yield write("config-no-hidden_size", "error", "no hidden_size", dict(hidden_size="absent"))
    yield write("config-heads-0", "error", "no heads", dict(num_attention_heads=0))
    yield write("config-negative", "error", "a number below zero", dict(num_hidden_layers=-1))
    yield write("config-string", "error", "a text for a number", dict(hidden_size="eight"))
    yield write("config-layers-more", "error", "a layer more than there is", dict(num_hidden_layers=2))
    yield write("config-arch", "error", "an architecture that is not run", dict(architectures=["MambaForCausalLM"], model_type="mamba"))
    yield write("config-rope", "error", "a scaling of rope that is not run", dict(rope_scaling=dict(rope_type="spiral", factor=2.0)))
    yield write("config-act", "error", "an activation that is not run", dict(hidden_act="relu"))
    yield write("config-nan", "either", "an epsilon that is no number", dict(rms_norm_eps=float("nan")))
    place = folder / "config-missing"
    place.mkdir()
    save_safetensors(place / "model.safetensors", tensors, "F32")
    yield "hf/config-missing", "error", "no config.json"


def make_malformed():
    folder = OUT / "malformed"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "gguf").mkdir(parents=True)
    w = make_weights(SPEC, np.random.default_rng(17))
    index = dict(tokens_ok=IDS, gguf=[], safetensors=[])
    for name, expect, why, content in gguf_cases(w):
        (folder / "gguf" / f"{name}.gguf").write_bytes(content)
        index["gguf"].append(dict(file=f"gguf/{name}.gguf", expect=expect, why=why))
    for name, expect, why in hf_cases(folder / "hf", w):
        index["safetensors"].append(dict(dir=name, expect=expect, why=why))
    logits = forward(SPEC, w, IDS)
    save_npy(folder / "logits_ok.npy", logits)
    (folder / "index.json").write_text(json.dumps(index, indent=1))
    return w, logits


# ---- Templates


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)


NOW = "2025-03-14T15:09:26"


def compiled(template):
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = lambda x, indent=None: json.dumps(x, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.datetime.fromisoformat(NOW).strftime(form)
    return environment.from_string(template)


def render(template, **variables):
    try:
        return {"ok": compiled(template).render(**variables)}
    except Exception as error:  # noqa: BLE001: any of Jinja's or Python's is an error of the template
        return {"error": str(error)}


CONVERSATIONS = {
    "one": {"messages": [{"role": "user", "content": "Hello"}]},
    "system": {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Hi \n"}]},
    "turns": {
        "messages": [
            {"role": "user", "content": "2 + 2?"},
            {"role": "assistant", "content": "4"},
            {"role": "user", "content": "\u00e9t\u00e9 <&> \u4e16\u754c"},
        ]
    },
    "wrong-order": {"messages": [{"role": "assistant", "content": "First"}, {"role": "user", "content": "Second"}]},
    "tools": {
        "messages": [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "w", "arguments": {"at": "Rome", "n": 1.0}}}]},
            {"role": "tool", "content": "sunny"},
        ],
        "tools": [{"type": "function", "function": {"name": "w", "description": "The \"weather\"", "parameters": {"type": "object"}}}],
    },
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "A part"}, {"type": "text", "text": "and one more"}]}]},
    "thinking": {"messages": [{"role": "user", "content": "Think."}, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes."}], "enable_thinking": False},
    "empty": {"messages": []},
}
CHAT = {
    "brackets": "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[{{ m.content | trim }}]{% else %} {{ m['content'] }} {{ eos_token }}{% endif %}{% endfor %}",
    "alternating": """{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set first = messages[0]['content'] %}{% else %}{% set rest = messages %}{% endif %}
{%- for m in rest -%}
    {%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception('roles must take turns') }}
    {%- endif -%}
    {{ '<' ~ m.role ~ '>' }}{% if loop.first and first is defined %}{{ first }}\n{% endif %}{{ m.content }}
{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}""",
    "headers": """{%- set date = strftime_now('%d %b %Y') -%}
{%- for m in messages %}
{%- set ns = namespace(body='') %}
{%- if m.content is string %}{% set ns.body = m.content %}{% else %}{% for part in m.content %}{% set ns.body = ns.body ~ part.text %}{% endfor %}{% endif %}
{{- '|' + m['role'] | upper + '|' + (date if loop.first else '') + ns.body | trim + '|end|' }}
{%- endfor %}{% if add_generation_prompt %}{{ '|ASSISTANT|' }}{% endif %}""",
    "tools": """{% macro call(c) %}{{ c.name }}({{ c.arguments | tojson }}){% endmacro %}{% if tools %}{% for tool in tools %}{{ tool.function | tojson(indent=2) }}
{% endfor %}{% endif %}{% for m in messages %}{% if m.tool_calls is defined %}{% for c in m.tool_calls %}{{ call(c.function) }}{% endfor %}{% else %}{{ m.role }}: {{ m.content }}{% endif %}{{ '\n' }}{% endfor %}""",
    "loops": """{% for m in messages %}{% if loop.last and not add_generation_prompt %}{% break %}{% endif %}{% generation %}{{ loop.index }}/{{ loop.length }}{% endgeneration %} {{ m.content | length }}{{ ', ' if not loop.last }}{% endfor %}""",
}
QWEN = {
    "im": """{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' + '\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}""",
    "thoughts": """{%- for m in messages[::-1] %}{%- set index = (messages | length - 1) - loop.index0 %}{%- if m.role == 'assistant' and '</think>' in m.content %}{{- index }}{{- m.content.split('</think>')[-1].lstrip('\\n') }}{%- else %}{{- m.role[0] }}{%- endif %}{%- endfor %}""",
}
MINI = [
    "{{ 7 // 2 }} {{ 7 % 3 }} {{ 2 ** 10 }} {{ -7 // 2 }} {{ 1 / 4 }}", "{{ 'a' ~ 1 ~ none }}", "{{ m.k }}{{ m['n'] }}{{ m.x is defined }}",
    "{{ [1, 2, 3][-1] }}{{ 'abc'[1:] }}{{ 'abc'[::-1] }}", "{% for a, b in [(1, 2), (3, 4)] %}{{ a + b }};{% endfor %}",
    "{% for x in [] %}x{% else %}none{% endfor %}", "{{ 'a,b'.split(',') }}", "{{ {'a': 1}.items() | list }}", "{{ [3, 1, 2] | sort | join('-') }}",
    "{{ 'x' if false }}|", "{{ m | tojson }}", "{{ '<&>' | e }}", "{{ nothing.at.all }}", "{{ 1 + 'a' }}", "{% set x = [1] %}{{ x + [2] }}", "{{ ' a '.strip() }}|{{ 'a' * 3 }}",
    "{{ 'Hello'.startswith('He') and 'x' in 'xyz' }}", "{{ not true or false }}", "{{ [1, 2] | map('string') | list }}", "{{ 1 == 1.0 }}{{ 'a' < 'b' }}", "{{ loop }}",
    "{% macro f(x, y=2) %}{{ x }}{{ y }}{% endmacro %}{{ f(1) }}{{ f(1, y=3) }}", "{{ '%s-%d' | format('a', 3) }}", "{% if m %}yes{% endif %}", "{{ range(3) | list }}",
    "{{ 'a\\nb' | indent(2) }}", "{{ x | default('d') }}{{ '' | default('d', true) }}", "{{ [1, [2, 3]] }}", "{{ 1.0 }} {{ 1e20 }} {{ 10 ** 20 }}", "{% raw %}{{ x }}{% endraw %}",
]


def make_templates():
    folder = OUT / "templates"
    folder.mkdir(parents=True, exist_ok=True)
    for file, templates in (("chat.json", CHAT), ("qwen.json", QWEN)):
        out = dict(now=NOW, conversations=CONVERSATIONS, templates={})
        for name, template in templates.items():
            renders = []
            for conversation, given in CONVERSATIONS.items():
                for prompt in (False, True):
                    found = render(template, bos_token="<s>", eos_token="</s>", add_generation_prompt=prompt, **({"tools": None} | given))
                    renders.append(dict(conversation=conversation, add_generation_prompt=prompt) | found)
            out["templates"][name] = dict(template=template, bos_token="<s>", eos_token="</s>", renders=renders)
        (folder / file).write_text(json.dumps(out))
    context = dict(m=dict(k="v", n=1))
    cases = [dict(template=template) | render(template, **context) for template in MINI]
    (folder / "jinja_mini.json").write_text(json.dumps(dict(context=context, cases=cases)))


# ---- Runs of the command line


def make_cases(w, logits):
    folder = OUT / "cases"
    shutil.rmtree(folder, ignore_errors=True)

    def case(name, command, expected, files=None):
        place = folder / name
        place.mkdir(parents=True)
        (place / "case.json").write_text(json.dumps(dict(command=["llamero", *command], expected=expected), indent=1))
        for file, content in (files or {}).items():
            (place / file).write_bytes(content if isinstance(content, bytes) else content.encode())
        return place

    messages = [{"role": "user", "content": "a\nb"}, {"role": "assistant", "content": "c"}]
    templates = {
        "windows-line-ends": "{% for m in messages %}\r\n[{{ m.role }}]\r\n{% endfor %}\r\nend",
        "joined-lines": "{{ 'one \\\n two' }}{{ messages[0].content | indent(2) }}",
        "lists-of-messages": "{% for m in messages | selectattr('role', 'equalto', 'user') | list %}{{ m.content | replace('\\n', '/') }}{% endfor %}",
    }
    for name, template in templates.items():
        text = compiled(template).render(messages=messages, bos_token="<s>", eos_token="</s>", add_generation_prompt=False)
        command = ["template", "none", "--template", "template.jinja", "--messages", "messages.json", "--bos", "<s>", "--eos", "</s>"]
        case(name, command, dict(exit=0, json=dict(text=text)), {"template.jinja": template, "messages.json": json.dumps(messages)})
    ids = ",".join(map(str, IDS))
    run = ["--ids", ids, "--out", "OUT.npy", "--backend", "reference"]
    want = dict(exit=0, npy=dict(out="OUT.npy", like="want.npy", tolerance=2e-3))
    place = case("a-gguf", ["logits", "model.gguf", *run], want, {"model.gguf": gguf_file(w)})
    save_npy(place / "want.npy", logits)
    place = case("a-folder", ["logits", "model", *run], want)
    (place / "model").mkdir()
    save_safetensors(place / "model/model.safetensors", hf_tensors(SPEC, w), "F32")
    (place / "model/config.json").write_text(json.dumps(hf_config(SPEC)))
    save_npy(place / "want.npy", logits)
    case("no-such-file", ["logits", "gone.gguf", *run], dict(exit=1, stderr_any=["gone.gguf"]))


if __name__ == "__main__":
    broken, exact = make_malformed()
    make_templates()
    make_cases(broken, exact)
