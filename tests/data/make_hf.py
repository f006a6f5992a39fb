"""Makes tests/data/hf: tiny random models as Transformers saves them, and the logits that Transformers computes.

Run once, with `pip install torch transformers`: `python tests/data/make_hf.py`. Weights are rounded to the stored type
first and computed with in float32, so that the logits are exact to float32. Nothing here comes from Llamero.
"""

import json
import pathlib

import numpy
import torch
from transformers import (
    Llama4ForCausalLM,
    Llama4TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

OUT = pathlib.Path(__file__).parent / "hf"
SIZES = dict(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    rms_norm_eps=1e-5,
    attn_implementation="eager",
)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=16)
CASES = {
    "yarn": (LlamaForCausalLM, LlamaConfig(**SIZES, rope_parameters=YARN), torch.bfloat16),
    "yarn-all": (
        LlamaForCausalLM,
        LlamaConfig(
            **SIZES,
            head_dim=16,
            rope_parameters=dict(YARN, beta_fast=8.0, beta_slow=0.5, attention_factor=1.3, truncate=False),
        ),
        torch.bfloat16,
    ),
    "yarn-mscale": (
        LlamaForCausalLM,
        LlamaConfig(**SIZES, rope_parameters=dict(YARN, mscale=0.7, mscale_all_dim=0.4)),
        torch.bfloat16,
    ),
    "dynamic": (
        LlamaForCausalLM,
        LlamaConfig(**SIZES, rope_parameters=dict(rope_type="dynamic", rope_theta=10000.0, factor=2.0)),
        torch.bfloat16,
    ),
    "llama3-bias-tied": (
        LlamaForCausalLM,
        LlamaConfig(
            **SIZES,
            attention_bias=True,
            tie_word_embeddings=True,
            rope_parameters=dict(
                rope_type="llama3",
                rope_theta=500000.0,
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=16,
            ),
        ),
        torch.float16,
    ),
    "mistral-window": (MistralForCausalLM, MistralConfig(**SIZES, sliding_window=7), torch.bfloat16),
    "mixtral": (
        MixtralForCausalLM,
        MixtralConfig(**SIZES, num_local_experts=3, num_experts_per_tok=2, sliding_window=None),
        torch.bfloat16,
    ),
    "llama4": (
        Llama4ForCausalLM,
        Llama4TextConfig(
            **SIZES,
            head_dim=8,
            intermediate_size_mlp=40,
            num_local_experts=4,
            num_experts_per_tok=2,
            moe_layers=[1],
            no_rope_layers=[0, 1],
            attention_chunk_size=8,
            attn_temperature_tuning=True,
            floor_scale=4,
            attn_scale=0.2,
            use_qk_norm=True,
            rope_parameters=dict(rope_type="default", rope_theta=500000.0),
        ),
        torch.bfloat16,
    ),
}
TOKENS = [(7 * i * i + 3 * i + 1) % 64 for i in range(30)]


def main():
    for name, (kind, config, stored) in CASES.items():
        torch.manual_seed(sum(name.encode()))
        model = kind(config).eval()
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                scale = 0.3 if parameter.dim() > 1 else 0.1
                noise = torch.randn_like(parameter) * scale
                one = 1.0 if parameter_name.endswith("norm.weight") else 0.0
                parameter.copy_((one + noise).to(stored).float())
            logits = model(torch.tensor([TOKENS])).logits[0].float().numpy()
        folder = OUT / name
        model.to(stored).save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        numpy.save(folder / "logits.npy", logits)
    # The text model of one that also sees: its config is nested, its weights have a longer name.
    from safetensors.torch import load_file, save_file

    nested = OUT / "llama4-nested"
    nested.mkdir(exist_ok=True)
    config = json.loads((OUT / "llama4" / "config.json").read_text())
    outer = dict(architectures=["Llama4ForConditionalGeneration"], model_type="llama4", text_config=config)
    (nested / "config.json").write_text(json.dumps(outer, indent=1))
    weights = load_file(OUT / "llama4" / "model.safetensors")
    save_file({f"language_model.{name}": w for name, w in weights.items()}, nested / "model.safetensors")
    numpy.save(nested / "logits.npy", numpy.load(OUT / "llama4" / "logits.npy"))
    (OUT / "tokens.json").write_text(json.dumps(TOKENS))


main()
