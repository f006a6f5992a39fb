"""Makes tests/data/references: small models, what a float64 reference in numpy computes with them, and files that are broken.

    pip install numpy gguf==0.19.0 safetensors jinja2
    python tests/data/make_references.py

All is drawn from seeds, and nothing comes from Llamero. `--check` (with torch and transformers installed) has
Transformers compute the logits of every folder of safetensors too, and prints how far they are from numpy's.

    models/NAME/model.gguf, hf/    one model in both forms, in half precision; expected.json: token sequences, the file of
                                   their logits, and the 16 ids that follow greedily
    quants/TYPE.gguf               one model in each weight type; expected.json, TYPE.numpy.npy
    quants/dequant/TYPE.bin, .npy  blocks, and their values
    train/inspect/NAME/            values inside a model by name, logits after edits
    malformed/                     broken and odd files, index.json says what is to happen
"""

import json
import pathlib
import struct
import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Q
from gguf import GGUFWriter
from gguf.quants import dequantize, quantize

OUT = pathlib.Path(__file__).parent / "references"
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)
BASE = dict(
    arch="llama", hidden=32, layers=2, heads=4, kv=2, hd=8, ffn=32, vocab=64, eps=1e-5, theta=10000.0, scaling=None, tied=False,
    attn_bias=(), mlp_bias=False, qk_norm=False, experts=0, used=0, ffn_exp=0, rotary=None, step=1, chunk=8192, floor=8192, ctx=256,
    hf=True, gguf=True,
)
MODELS = {
    "llama1-mha": dict(kv=4, eps=1e-6),
    "llama2-gqa": dict(layers=3, hidden=16, heads=4, kv=2, hd=8, ffn=24),
    "llama3-gqa": dict(theta=500000.0),
    "llama32-tied": dict(theta=500000.0, tied=True, scaling=LLAMA3),
    "linear-rope": dict(scaling=dict(type="linear", factor=4.0)),
    "head-dim": dict(heads=4, kv=1, hd=16),
    "attn-mlp-bias": dict(attn_bias=("q", "k", "v", "o"), mlp_bias=True),
    "odd-dims": dict(hidden=36, heads=3, kv=1, hd=12, ffn=50, vocab=67),
    "moe-mixtral": dict(experts=4, used=2, ffn_exp=16, theta=1e6),
    "llama4-moe": dict(arch="llama4", hidden=16, ffn=24, layers=4, experts=4, used=1, ffn_exp=16, step=2, theta=500000.0, scaling=LLAMA3),
    "llama4-chunk": dict(
        arch="llama4", hidden=16, ffn=24, layers=4, experts=2, used=1, ffn_exp=16, step=1, theta=500000.0, scaling=LLAMA3, chunk=16, floor=8, gguf=False
    ),
    "qwen2": dict(arch="qwen2", attn_bias=("q", "k", "v"), theta=1e6, eps=1e-6),
    "qwen2-tied": dict(arch="qwen2", attn_bias=("q", "k", "v"), theta=1e6, tied=True),
    "qwen3": dict(arch="qwen3", qk_norm=True, theta=1e6, eps=1e-6),
    "qwen3-head-dim": dict(arch="qwen3", qk_norm=True, theta=1e6, hd=12, tied=True),
    "qwen3moe": dict(arch="qwen3moe", qk_norm=True, theta=1e6, hidden=20, hd=12, experts=6, used=3, ffn_exp=12),
    # Rope turns the first dimensions of a head only.
    "partial-rotary": dict(rotary=4, hf=False),
    "partial-rotary-qwen2": dict(arch="qwen2", attn_bias=("q", "k", "v"), hd=12, rotary=8, hf=False),
}
INSPECTED = ["llama2-gqa", "llama32-tied", "moe-mixtral"]
LENGTHS = [1, 17, 35]
MARGIN = 0.03


def short(x):
    """Numbers that bfloat16 and float16 both hold exactly."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    x = ((bits + 0x8000) & 0xFFFF0000).astype(np.uint32).view(np.float32).astype(np.float64)
    return np.where(np.abs(x) < 2.0**-9, 0.0, x)


def silu(x):
    return x / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


# ---- A model: its weights by names of our own, as rows of outputs; queries and keys in Transformers' order of rows.


def is_moe(s, layer):
    return s["experts"] > 0 and (layer + 1) % s["step"] == 0


def make_weights(s, rng):
    h, q, kv = s["hidden"], s["heads"] * s["hd"], s["kv"] * s["hd"]

    def matrix(rows, cols, scale=1.0):
        return short(rng.standard_normal((rows, cols)) * scale / np.sqrt(cols))

    def norm(n):
        return short(1 + 0.2 * rng.standard_normal(n))

    def bias(n):
        return short(0.3 * rng.standard_normal(n))

    w = {"embed": short(rng.standard_normal((s["vocab"], h))), "norm": norm(h)}
    w["head"] = w["embed"] if s["tied"] else matrix(s["vocab"], h, 3.0)
    w["layers"] = []
    for i in range(s["layers"]):
        layer = {"ln1": norm(h), "ln2": norm(h), "q": matrix(q, h, 2.0), "k": matrix(kv, h, 2.0), "v": matrix(kv, h), "o": matrix(h, q)}
        layer |= {"b" + n: bias({"q": q, "o": h}.get(n, kv)) for n in s["attn_bias"]}
        if s["qk_norm"]:
            layer |= {"qn": norm(s["hd"]), "kn": norm(s["hd"])}
        if is_moe(s, i):
            f = s["ffn_exp"]
            layer["router"] = matrix(s["experts"], h, 2.0)
            layer["experts"] = [(matrix(f, h), matrix(f, h), matrix(h, f, 2.0)) for _ in range(s["experts"])]
            if s["arch"] == "llama4":
                layer["shared"] = (matrix(f, h), matrix(f, h), matrix(h, f))
        else:
            f = s["ffn"]
            layer |= {"gate": matrix(f, h), "up": matrix(f, h), "down": matrix(h, f, 2.0)}
            if s["mlp_bias"]:
                layer |= {"bgate": bias(f), "bup": bias(f), "bdown": bias(h)}
        w["layers"].append(layer)
    return w


def rotary(s):
    return s["rotary"] or s["hd"]


def divisors(s):
    """What llama3's scaling divides each frequency by."""
    r, c = rotary(s), s["scaling"]
    freq = s["theta"] ** (-np.arange(0, r, 2) / r)
    wave = 2 * np.pi / freq
    old = c["original_max_position_embeddings"]
    smooth = (old / wave - c["low_freq_factor"]) / (c["high_freq_factor"] - c["low_freq_factor"])
    middle = 1 / ((1 - smooth) / c["factor"] + smooth)
    out = np.where(wave > old / c["low_freq_factor"], c["factor"], np.where(wave < old / c["high_freq_factor"], 1.0, middle))
    return out


def rope(s, x, positions):
    """x: [tokens, heads, head_dim]. LLaMA 4 turns neighbours, all others turn i with i + half."""
    r = rotary(s)
    freq = s["theta"] ** (-np.arange(0, r, 2) / r)
    if s["scaling"]:
        freq = freq / (s["scaling"]["factor"] if s["scaling"].get("type") == "linear" else divisors(s))
    angle = positions[:, None, None] * freq
    c, n = np.cos(angle), np.sin(angle)
    out = x.copy()
    a, b = (slice(0, r, 2), slice(1, r, 2)) if s["arch"] == "llama4" else (slice(0, r // 2), slice(r // 2, r))
    out[..., a], out[..., b] = x[..., a] * c - x[..., b] * n, x[..., b] * c + x[..., a] * n
    return out


def forward(s, w, tokens, taps=None, edits=()):
    """Logits of all positions; `taps` takes values by name, an edit (name, position or None, "add" or "replace", vector) makes one."""
    t, eps = len(tokens), s["eps"]
    positions = np.arange(t, dtype=np.float64)

    def tap(name, value):
        for where, position, kind, vector in edits:
            if where == name:
                value = value.copy()
                rows = slice(None) if position is None else position
                value[rows] = vector + (value[rows] if kind == "add" else 0)
        if taps is not None:
            taps[name] = value
        return value

    def rms(x, weight, name):
        scale = tap(name + ".hook_scale", np.sqrt((x * x).mean(-1, keepdims=True) + eps))
        return tap(name + ".hook_normalized", x / scale) * weight

    def plain_norm(x):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps)

    x = tap("hook_embed", w["embed"][np.array(tokens)])
    for i, layer in enumerate(w["layers"]):
        b = f"blocks.{i}."
        x = tap(b + "hook_resid_pre", x)
        n = rms(x, layer["ln1"], b + "ln1")
        q, k, v = ((n @ layer[c].T + layer.get("b" + c, 0.0)).reshape(t, -1, s["hd"]) for c in "qkv")
        if s["qk_norm"]:
            q, k = plain_norm(q) * layer["qn"], plain_norm(k) * layer["kn"]
        q, k, v = tap(b + "attn.hook_q", q), tap(b + "attn.hook_k", k), tap(b + "attn.hook_v", v)
        turned = s["arch"] != "llama4" or (i + 1) % 4 != 0
        if turned:
            q, k = rope(s, q, positions), rope(s, k, positions)
        if s["arch"] == "llama4":
            if turned:
                q, k = plain_norm(q), plain_norm(k)
            else:
                q = q * (np.log1p(np.floor((positions + 1) / s["floor"])) * 0.1 + 1)[:, None, None]
        q, k = tap(b + "attn.hook_rot_q", q), tap(b + "attn.hook_rot_k", k)
        group = s["heads"] // s["kv"]
        scores = np.einsum("qhd,khd->hqk", q, k.repeat(group, 1)) / np.sqrt(s["hd"])
        seen = positions[:, None] >= positions
        if s["arch"] == "llama4" and turned:
            seen &= positions[:, None] // s["chunk"] == positions // s["chunk"]
        scores = tap(b + "attn.hook_attn_scores", np.where(seen, scores, -np.inf))
        pattern = tap(b + "attn.hook_pattern", softmax(scores))
        z = tap(b + "attn.hook_z", np.einsum("hqk,khd->qhd", pattern, v.repeat(group, 1)))
        out = z.reshape(t, -1) @ layer["o"].T + layer.get("bo", 0.0)
        x = tap(b + "hook_resid_mid", x + tap(b + "hook_attn_out", out))
        n = rms(x, layer["ln2"], b + "ln2")
        if "experts" in layer:
            out = mixture(s, layer, n, lambda name, value: tap(b + name, value))
        else:
            gate = tap(b + "mlp.hook_pre", n @ layer["gate"].T + layer.get("bgate", 0.0))
            up = tap(b + "mlp.hook_pre_linear", n @ layer["up"].T + layer.get("bup", 0.0))
            out = tap(b + "mlp.hook_post", silu(gate) * up) @ layer["down"].T + layer.get("bdown", 0.0)
        x = tap(b + "hook_resid_post", x + tap(b + "hook_mlp_out", out))
    return tap("logits", rms(x, w["norm"], "ln_final") @ w["head"].T)


def mixture(s, layer, n, tap):
    logits = n @ layer["router"].T
    chosen = np.argsort(-logits, -1)[:, : s["used"]]
    out = np.zeros_like(n)

    def expert(weights, x):
        gate, up, down = weights
        return (silu(x @ gate.T) * (x @ up.T)) @ down.T

    if s["arch"] == "llama4":
        for row, ids in enumerate(chosen):
            for e in ids:
                out[row] += expert(layer["experts"][e], n[row] / (1 + np.exp(-logits[row, e])))
        return out + expert(layer["shared"], n)
    weights = tap("mlp.hook_expert_weights", softmax(logits))
    for row, ids in enumerate(chosen):
        total = weights[row, ids].sum()
        for e in ids:
            out[row] += weights[row, e] / total * expert(layer["experts"][e], n[row])
    return out


def greedy(s, w, tokens, count=16):
    ids, margins = list(tokens), []
    for _ in range(count):
        last = forward(s, w, ids)[-1]
        first, second = np.sort(last)[-1:-3:-1]
        margins.append(float(first - second))
        ids.append(int(last.argmax()))
    return ids[len(tokens) :], margins


# ---- Files


def save_npy(path, values):
    np.save(path, np.asarray(values, np.float32))


def save_safetensors(path, tensors, dtype):
    header, data = {}, b""
    for name, value in tensors.items():
        value = np.asarray(value, np.float32)
        if dtype == "BF16":
            raw = (value.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        else:
            raw = value.astype({"F16": np.float16, "F32": np.float32}[dtype]).tobytes()
        header[name] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def hf_tensors(s, w):
    out = {"model.embed_tokens.weight": w["embed"], "model.norm.weight": w["norm"]}
    if not s["tied"]:
        out["lm_head.weight"] = w["head"]
    for i, layer in enumerate(w["layers"]):
        p = f"model.layers.{i}."
        out[p + "input_layernorm.weight"], out[p + "post_attention_layernorm.weight"] = layer["ln1"], layer["ln2"]
        for c in "qkvo":
            out[f"{p}self_attn.{c}_proj.weight"] = layer[c]
            if "b" + c in layer:
                out[f"{p}self_attn.{c}_proj.bias"] = layer["b" + c]
        if s["qk_norm"]:
            out[p + "self_attn.q_norm.weight"], out[p + "self_attn.k_norm.weight"] = layer["qn"], layer["kn"]
        mlp = "feed_forward." if s["arch"] == "llama4" else "mlp."
        if "experts" not in layer:
            for c in ("gate", "up", "down"):
                out[f"{p}{mlp}{c}_proj.weight"] = layer[c]
                if "b" + c in layer:
                    out[f"{p}{mlp}{c}_proj.bias"] = layer["b" + c]
        elif s["arch"] == "llama4":
            out[p + mlp + "router.weight"] = layer["router"]
            out[p + mlp + "experts.gate_up_proj"] = np.stack([np.concatenate([g, u]).T for g, u, _ in layer["experts"]])
            out[p + mlp + "experts.down_proj"] = np.stack([d.T for _, _, d in layer["experts"]])
            for c, value in zip(("gate", "up", "down"), layer["shared"]):
                out[f"{p}{mlp}shared_expert.{c}_proj.weight"] = value
        else:
            mlp, names = ("block_sparse_moe.", ("w1", "w3", "w2")) if s["arch"] == "llama" else ("mlp.", ("gate_proj", "up_proj", "down_proj"))
            out[p + mlp + "gate.weight"] = layer["router"]
            for e, matrices in enumerate(layer["experts"]):
                for c, value in zip(names, matrices):
                    out[f"{p}{mlp}experts.{e}.{c}.weight"] = value
    return out


def hf_config(s):
    kinds = {
        "llama": ("LlamaForCausalLM", "llama"),
        "llama4": ("Llama4ForCausalLM", "llama4_text"),
        "qwen2": ("Qwen2ForCausalLM", "qwen2"),
        "qwen3": ("Qwen3ForCausalLM", "qwen3"),
        "qwen3moe": ("Qwen3MoeForCausalLM", "qwen3_moe"),
    }
    kind, model_type = kinds[s["arch"]]
    mixtral = s["arch"] == "llama" and s["experts"] > 0
    config = dict(
        architectures=["MixtralForCausalLM" if mixtral else kind],
        model_type="mixtral" if mixtral else model_type,
        vocab_size=s["vocab"], hidden_size=s["hidden"], intermediate_size=s["ffn"], num_hidden_layers=s["layers"],
        num_attention_heads=s["heads"], num_key_value_heads=s["kv"], head_dim=s["hd"], rms_norm_eps=s["eps"], rope_theta=s["theta"],
        rope_scaling=s["scaling"], hidden_act="silu", max_position_embeddings=s["ctx"], tie_word_embeddings=s["tied"],
        bos_token_id=1, eos_token_id=2, torch_dtype="bfloat16",
    )
    if s["arch"] in ("llama", "llama4"):
        config |= dict(attention_bias=bool(s["attn_bias"]), mlp_bias=s["mlp_bias"])
    if mixtral:
        config |= dict(intermediate_size=s["ffn_exp"], num_local_experts=s["experts"], num_experts_per_tok=s["used"], sliding_window=None)
    if s["arch"] == "llama4":
        config |= dict(
            intermediate_size=s["ffn_exp"], intermediate_size_mlp=s["ffn"], num_local_experts=s["experts"],
            num_experts_per_tok=s["used"], interleave_moe_layer_step=s["step"], use_qk_norm=True,
            no_rope_layers=[int((i + 1) % 4 != 0) for i in range(s["layers"])], attention_chunk_size=s["chunk"],
            attn_temperature_tuning=True, floor_scale=s["floor"], attn_scale=0.1,
        )
    if s["arch"] == "qwen2":
        config |= dict(use_sliding_window=False, sliding_window=12, max_window_layers=1)
    if s["arch"] == "qwen3moe":
        config |= dict(
            num_experts=s["experts"], num_experts_per_tok=s["used"], moe_intermediate_size=s["ffn_exp"], norm_topk_prob=True,
            decoder_sparse_step=1, mlp_only_layers=[], use_sliding_window=False, sliding_window=None,
        )
    return config


def llama_rows(s, x):
    """Rows of queries or keys from Transformers' order into LLaMA's own, in which rope turns neighbours."""
    if s["arch"] != "llama":
        return x
    r, hd = rotary(s), s["hd"]
    order = [i // 2 + (i % 2) * (r // 2) for i in range(r)] + list(range(r, hd))
    return x.reshape(-1, hd, *x.shape[1:])[:, order].reshape(x.shape)


def gguf_tensors(s, w):
    out = {"token_embd.weight": w["embed"], "output_norm.weight": w["norm"]}
    if not s["tied"]:
        out["output.weight"] = w["head"]
    if s["scaling"] and s["scaling"].get("rope_type") == "llama3":
        out["rope_freqs.weight"] = divisors(s)
    for i, layer in enumerate(w["layers"]):
        p = f"blk.{i}."
        out[p + "attn_norm.weight"], out[p + "ffn_norm.weight"] = layer["ln1"], layer["ln2"]
        for c, name in zip("qkvo", ("attn_q", "attn_k", "attn_v", "attn_output")):
            turn = (lambda x: llama_rows(s, x)) if c in "qk" else (lambda x: x)
            out[f"{p}{name}.weight"] = turn(layer[c])
            if "b" + c in layer:
                out[f"{p}{name}.bias"] = turn(layer["b" + c])
        if s["qk_norm"]:
            out[p + "attn_q_norm.weight"], out[p + "attn_k_norm.weight"] = layer["qn"], layer["kn"]
        if "experts" not in layer:
            for c in ("gate", "up", "down"):
                out[f"{p}ffn_{c}.weight"] = layer[c]
                if "b" + c in layer:
                    out[f"{p}ffn_{c}.bias"] = layer["b" + c]
        else:
            out[p + "ffn_gate_inp.weight"] = layer["router"]
            for at, c in enumerate(("gate", "up", "down")):
                out[f"{p}ffn_{c}_exps.weight"] = np.stack([e[at] for e in layer["experts"]])
                if "shared" in layer:
                    out[f"{p}ffn_{c}_shexp.weight"] = layer["shared"][at]
    return out


def gguf_metadata(s, writer):
    writer.add_context_length(s["ctx"])
    writer.add_embedding_length(s["hidden"])
    writer.add_block_count(s["layers"])
    writer.add_feed_forward_length(s["ffn_exp"] if s["experts"] and s["step"] == 1 else s["ffn"])
    writer.add_head_count(s["heads"])
    writer.add_head_count_kv(s["kv"])
    writer.add_layer_norm_rms_eps(s["eps"])
    writer.add_rope_freq_base(s["theta"])
    if s["hd"] * s["heads"] != s["hidden"] or s["qk_norm"]:
        writer.add_key_length(s["hd"])
        writer.add_value_length(s["hd"])
    if s["rotary"] or s["arch"].startswith("llama"):
        writer.add_rope_dimension_count(rotary(s))
    if s["scaling"] and s["scaling"].get("type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(s["scaling"]["factor"])
    if s["experts"]:
        writer.add_expert_count(s["experts"])
        writer.add_expert_used_count(s["used"])
        if s["arch"] in ("llama4", "qwen3moe"):
            writer.add_expert_feed_forward_length(s["ffn_exp"])
        if s["arch"] == "llama4":
            writer.add_interleave_moe_layer_step(s["step"])


def save_gguf(path, s, tensors, types=None):
    """Matrices in half precision, or as `types` (name -> raw bytes and type) has them; the rest in float32."""
    writer = GGUFWriter(path, s["arch"])
    gguf_metadata(s, writer)
    for name, value in tensors.items():
        if types and name in types:
            raw, kind = types[name]
            writer.add_tensor(name, raw, raw_dtype=kind)
        else:
            writer.add_tensor(name, np.asarray(value, np.float16 if value.ndim > 1 and "gate_inp" not in name else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def draw_sequences(s, w, rng):
    out = []
    for n in LENGTHS:
        while True:
            tokens = [int(i) for i in rng.integers(3, s["vocab"], n)]
            ids, margins = greedy(s, w, tokens)
            if min(margins) >= MARGIN:
                break
        out.append((tokens, forward(s, w, tokens), ids, min(margins)))
    return out


def make_model(name, s):
    rng = np.random.default_rng([ord(c) for c in name])
    w = make_weights(s, rng)
    folder = OUT / "models" / name
    folder.mkdir(parents=True, exist_ok=True)
    sequences = []
    for tokens, logits, ids, margin in draw_sequences(s, w, rng):
        file = f"logits_{len(tokens)}.npy"
        save_npy(folder / file, logits)
        sequences.append(dict(tokens=tokens, logits=file, greedy=ids, greedy_min_margin=round(margin, 4)))
    (folder / "expected.json").write_text(json.dumps(dict(model=name, sequences=sequences)))
    if s["gguf"]:
        save_gguf(folder / "model.gguf", s, gguf_tensors(s, w))
    if s["hf"]:
        forms = dict(hf="BF16")
        if name == "llama2-gqa":
            forms = {"hf": "F32", "hf-f16": "F16", "hf-bf16": "BF16"}
        for form, dtype in forms.items():
            (folder / form).mkdir(exist_ok=True)
            (folder / form / "config.json").write_text(json.dumps(hf_config(s), indent=1))
            save_safetensors(folder / form / "model.safetensors", hf_tensors(s, w), dtype)
        if name == "llama2-gqa":
            make_shards(folder / "hf-bf16-sharded", s, w)
    return w


def make_shards(folder, s, w):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(hf_config(s), indent=1))
    tensors = list(hf_tensors(s, w).items())
    half = len(tensors) // 2
    names = {}
    for at, part in enumerate((tensors[:half], tensors[half:])):
        file = f"model-0000{at + 1}-of-00002.safetensors"
        save_safetensors(folder / file, dict(part), "BF16")
        names |= {name: file for name, _ in part}
    total = sum(np.asarray(v).size * 2 for _, v in tensors)
    index = dict(metadata=dict(total_size=total), weight_map=names)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


# ---- Values inside


def make_inspect(name, s, w):
    folder = OUT / "train" / "inspect" / name
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([7, *(ord(c) for c in name)])
    tokens, source = ([int(i) for i in rng.integers(3, s["vocab"], 8)] for _ in range(2))
    cache = {}
    forward(s, w, tokens, cache)
    save_safetensors(folder / "cache.safetensors", cache, "F32")
    vector = rng.standard_normal(s["hidden"])
    other = {}
    forward(s, w, source, other)
    row = other["blocks.0.hook_resid_post"][5]
    edits = {
        "steer.vector": vector,
        "steer.logits": forward(s, w, tokens, edits=[("blocks.1.hook_resid_post", None, "add", vector)]),
        "patch.logits": forward(s, w, tokens, edits=[("blocks.0.hook_resid_post", 5, "replace", row)]),
    }
    save_safetensors(folder / "edits.safetensors", edits, "F32")
    (folder / "expected.json").write_text(json.dumps(dict(tokens=tokens, patch=dict(source_tokens=source))))


# ---- Weight types

TYPES = [
    "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ1_S", "IQ1_M", "IQ2_XXS",
    "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4",
]
# Where the scales, of 16 bits, lie in a block.
SCALES = {
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ1_S": [0], "IQ2_XXS": [0], "IQ2_XS": [0], "IQ2_S": [0],
    "IQ3_XXS": [0], "IQ3_S": [0], "IQ4_NL": [0], "IQ4_XS": [0],
}


def blocks_of(kind, rows, cols, std, rng):
    """Rows of a type: quantised where gguf-py can, and random blocks with a fitting scale where it cannot."""
    length, size = gguf.GGML_QUANT_SIZES[Q[kind]]
    try:
        return quantize((rng.standard_normal((rows, cols)) * std).astype(np.float32), Q[kind])
    except NotImplementedError:
        pass
    raw = rng.integers(0, 256, (rows * cols // length, size), dtype=np.uint8)

    def with_scale(scale):
        out = raw.copy()
        bits = np.float16(scale).view(np.uint16)
        if kind == "MXFP4":
            out[:, 0] = 127 + round(np.log2(scale))
        elif kind == "NVFP4":
            exponent = int(np.clip(round(np.log2(scale)) + 7, 1, 14))
            out[:, :4] = (raw[:, :4] & 7) | exponent << 3
        elif kind == "IQ1_M":
            for at in range(4):
                nibble = (int(bits) >> 4 * at) & 15
                out[:, 49 + 2 * at] = (out[:, 49 + 2 * at] & 15) | nibble << 4
        else:
            for at in SCALES[kind]:
                out[:, at], out[:, at + 1] = int(bits) & 255, int(bits) >> 8
        return out

    one = dequantize(with_scale(1.0 / 64).reshape(rows, -1), Q[kind])
    return with_scale(std / 64 / one.std()).reshape(rows, -1)


QUANTS = dict(BASE, hidden=256, layers=1, heads=2, kv=1, hd=16, ffn=32, vocab=24, ctx=64)


def make_quants():
    folder = OUT / "quants"
    (folder / "dequant").mkdir(parents=True, exist_ok=True)
    tokens = [int(i) for i in np.random.default_rng(3).integers(3, 24, 12)]
    expected = dict(tokens=tokens, models={})
    narrow = dict(QUANTS, hidden=96, heads=3, kv=1, hd=32, ffn=64)
    mixture = dict(QUANTS, experts=4, used=2, ffn_exp=32)
    # No wider than the type's blocks ask for.
    width = {1: 64, 32: 128, 64: 128, 256: 256}
    cases = [
        (kind, dict(QUANTS, hidden=width[gguf.GGML_QUANT_SIZES[Q[kind]][0]]), lambda name, kind=kind: kind) for kind in TYPES
    ]
    cases += [("small96-" + kind, narrow, lambda name, kind=kind: kind) for kind in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL")]
    cases += [("moe-" + kind, mixture, lambda name, kind=kind: kind) for kind in ("Q4_K", "Q8_0")]
    mixed = {
        "mixed-Q4_K_M": {"attn_v": "Q6_K", "output": "Q6_K", "ffn_gate": "Q5_K", "": "Q4_K"},
        "mixed-Q2_K": {"attn_v": "Q3_K", "output": "Q6_K", "attn_q": "Q2_K", "attn_k": "Q2_K", "token": "Q2_K", "": "Q3_K"},
        "mixed-IQ3": {"attn_v": "IQ4_XS", "output": "Q6_K", "attn_q": "IQ2_S", "": "IQ3_S"},
        "mixed-Q4_0": {"output": "Q6_K", "attn_v": "Q5_0", "ffn_down": "Q4_1", "": "Q4_0"},
    }
    for name, rules in mixed.items():
        cases.append((name, QUANTS, lambda tensor, rules=rules: next(kind for part, kind in rules.items() if part in tensor)))
    for name, s, choose in cases:
        rng = np.random.default_rng([11, *(ord(c) for c in name)])
        # Draws again where too few of the greedy ids are sure.
        while True:
            w = make_weights(s, rng)
            stds = {"token": (s["hidden"] / 256) ** 0.5, "output.": 3 / 16, "down": 0.3, "attn_q": 0.12, "attn_k": 0.12}
            types = {}
            for tensor, value in gguf_tensors(s, w).items():
                if value.ndim == 1 or "gate_inp" in tensor:
                    continue
                kind = choose(tensor)
                if value.shape[-1] % gguf.GGML_QUANT_SIZES[Q[kind]][0]:
                    kind = "Q8_0"
                std = next((std for part, std in stds.items() if part in tensor), 1 / 16) * (256 / s["hidden"]) ** 0.5
                raw = blocks_of(kind, value.size // value.shape[-1], value.shape[-1], std, rng)
                types[tensor] = (raw.reshape(*value.shape[:-1], -1), Q[kind])
            put_back(s, w, {tensor: dequantize(raw, kind).astype(np.float64) for tensor, (raw, kind) in types.items()})
            ids, margins = greedy(s, w, tokens)
            logits = forward(s, w, tokens)
            if sum(np.cumprod(np.array(margins) >= 0.02)) >= 8 and 0.5 < logits.std() < 8:
                break
        save_gguf(folder / f"{name}.gguf", s, gguf_tensors(s, w), types)
        save_npy(folder / f"{name}.numpy.npy", logits)
        expected["models"][name] = dict(file=f"{name}.gguf", greedy_numpy=ids, greedy_margins=[round(m, 5) for m in margins])
    (folder / "expected.json").write_text(json.dumps(expected))
    index = {}
    for kind in TYPES:
        rng = np.random.default_rng([13, *(ord(c) for c in kind)])
        length, size = gguf.GGML_QUANT_SIZES[Q[kind]]
        count = 64 if length == 1 else 4
        raw = np.concatenate([blocks_of(kind, count, length, 1.0, rng).view(np.uint8).reshape(count, size), rng.integers(0, 256, (count, size), dtype=np.uint8)])
        with np.errstate(all="ignore"):
            source = raw.view({"F32": np.float32, "F16": np.float16}[kind]) if kind in ("F32", "F16") else raw
            values = dequantize(source, Q[kind]).astype(np.float32)
        (folder / "dequant" / f"{kind}.bin").write_bytes(raw.tobytes())
        save_npy(folder / "dequant" / f"{kind}.npy", values.reshape(-1))
        index[kind] = dict(block_values=length, block_bytes=size)
    (folder / "dequant" / "index.json").write_text(json.dumps(index))


def put_back(s, w, values):
    """Weights as the file has them, into the model."""

    def hf_rows(x):
        hd = s["hd"]
        order = np.argsort([i // 2 + (i % 2) * (hd // 2) for i in range(hd)])
        return x.reshape(-1, hd, x.shape[1])[:, order].reshape(x.shape)

    w["embed"], w["head"] = values["token_embd.weight"], values["output.weight"]
    for i, layer in enumerate(w["layers"]):
        p = f"blk.{i}."
        layer["q"], layer["k"] = hf_rows(values[p + "attn_q.weight"]), hf_rows(values[p + "attn_k.weight"])
        layer["v"], layer["o"] = values[p + "attn_v.weight"], values[p + "attn_output.weight"]
        if "experts" in layer:
            parts = [values[f"{p}ffn_{c}_exps.weight"] for c in ("gate", "up", "down")]
            layer["experts"] = list(zip(*parts))
        else:
            layer |= {c: values[f"{p}ffn_{c}.weight"] for c in ("gate", "up", "down")}


def main():
    weights = {}
    for name, changes in MODELS.items():
        s = BASE | changes
        weights[name] = s, make_model(name, s)
    for name in INSPECTED:
        make_inspect(name, *weights[name])
    make_quants()


def check():
    import torch
    from transformers import AutoModelForCausalLM

    for name, changes in MODELS.items():
        folder = OUT / "models" / name
        if not (BASE | changes)["hf"]:
            continue
        model = AutoModelForCausalLM.from_pretrained(folder / "hf", torch_dtype=torch.float32, attn_implementation="eager").eval()
        for sequence in json.loads((folder / "expected.json").read_text())["sequences"]:
            with torch.no_grad():
                got = model(torch.tensor([sequence["tokens"]])).logits[0].numpy()
            far = np.abs(got - np.load(folder / sequence["logits"])).max()
            print(name, len(sequence["tokens"]), far)
            assert far < 2e-4, name


if __name__ == "__main__":
    check() if "--check" in sys.argv else main()
