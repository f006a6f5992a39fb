"""Makes tests/data/references/smollm2: what SmolLM2-135M-Instruct (Q4_1, `./build.sh model`) says, computed by Transformers.

    pip install torch transformers gguf==0.19.0 tokenizers
    python tests/data/make_smollm2.py

Weights are dequantised by gguf-py and computed with in float32. Nothing comes from Llamero.
"""

import json
import pathlib

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

HERE = pathlib.Path(__file__).parent
MODEL = HERE / "../../models/SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPTS = ["The tide comes in twice a day because", "To boil an egg, first"]
TEXT = """A lighthouse keeper has few visitors. In winter the boat comes once a fortnight, if the sea allows it, with flour, oil,
letters and the newspapers of the last two weeks. He reads them in order, one each morning, so that the news of the world
reaches him as it reached everybody else, only later. In the evening he climbs the 147 steps, trims the wick, winds the
clockwork that turns the lens, and writes down the weather. At midnight he winds it again. There is nothing else to do, and
yet he says that the days are too short. When the light was made electric, the company offered him a house in the town. He
lived there for a year, and every evening at dusk he walked down to the harbour to see whether the light was on."""
NAMES = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}


def main():
    reader = GGUFReader(MODEL)
    key = {name: field.contents() for name, field in reader.fields.items()}
    heads, kv = key["llama.attention.head_count"], key["llama.attention.head_count_kv"]
    config = LlamaConfig(
        vocab_size=len(key["tokenizer.ggml.tokens"]), hidden_size=key["llama.embedding_length"], num_hidden_layers=key["llama.block_count"],
        intermediate_size=key["llama.feed_forward_length"], num_attention_heads=heads, num_key_value_heads=kv,
        rms_norm_eps=key["llama.attention.layer_norm_rms_epsilon"], max_position_embeddings=2048, tie_word_embeddings=True,
        rope_parameters=dict(rope_type="default", rope_theta=key["llama.rope.freq_base"]), attn_implementation="eager",
    )
    state = {}
    for tensor in reader.tensors:
        value = torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))
        parts = tensor.name.split(".")
        if parts[0] == "blk":
            n = {"attn_q": heads, "attn_k": kv}.get(parts[2])
            if n:
                # GGUF has the rows of a head in pairs that rope turns.
                value = value.reshape(n, -1, 2, value.shape[1]).swapaxes(1, 2).reshape(value.shape)
            state[f"model.layers.{parts[1]}.{NAMES[parts[2]]}.weight"] = value
        else:
            state[{"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}[parts[0]] + ".weight"] = value
    model = LlamaForCausalLM(config).eval()
    model.load_state_dict(state, strict=False)
    model.tie_weights()
    vocabulary = {text: at for at, text in enumerate(key["tokenizer.ggml.tokens"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [tuple(rule.split(" ")) for rule in key["tokenizer.ggml.merges"]]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()

    def logits(ids):
        with torch.no_grad():
            return model(torch.tensor([ids])).logits[0]

    out = HERE / "references/smollm2"
    out.mkdir(parents=True, exist_ok=True)
    expected = dict(logits=[], greedy=[], perplexity=[])
    for at, prompt in enumerate(PROMPTS):
        ids = tokenizer.encode(prompt).ids
        if at == 0:
            np.save(out / "logits.npy", logits(ids)[-1].numpy())
            expected["logits"].append(dict(prompt=prompt, ids=ids, logits="logits.npy"))
        exact, margins = [], []
        for _ in range(24):
            best = logits(ids + exact)[-1].topk(2)
            exact.append(int(best.indices[0]))
            margins.append(round(float(best.values[0] - best.values[1]), 4))
        print(repr(tokenizer.decode(exact)))
        expected["greedy"].append(dict(prompt=prompt, ids=ids, exact=exact, exact_margins=margins))
    ids = tokenizer.encode(TEXT.replace("\n", " ")).ids
    losses = torch.nn.functional.cross_entropy(logits(ids)[:-1].double(), torch.tensor(ids[1:]))
    print(len(ids), float(losses.exp()))
    expected["perplexity"].append(dict(source="a text of our own", ids=ids, ppl_exact=float(losses.exp())))
    (out / "expected.json").write_text(json.dumps(expected))


main()
