//! Writes a GGUF with random weights: small ones for tests on anyone's machine, large ones for benches.
//!
//! The vocabulary is byte-level (256 bytes, a few merges, three special tokens), padded to the shape's size; the chat
//! template is ChatML. The same shape and type give the same bytes everywhere.

use crate::gguf_writer::{Entry, GgufWriter};
use crate::output::{invalid, print};
use llamero::error::{ErrorKind, Result};
use llamero::format::{Metadata, StringArray, Value};
use llamero::quant::{DType, Random, sample_rows};
use serde_json::json;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Args {
    out: PathBuf,
    #[arg(long, value_enum, default_value = "tiny")]
    shape: Shape,
    /// Weight type of the matrices, ggml's name; several with commas take turns.
    #[arg(long, default_value = "Q8_0", value_delimiter = ',')]
    r#type: Vec<String>,
    /// Layers (default: the shape's own).
    #[arg(long, alias = "blocks")]
    layers: Option<u32>,
}

#[derive(Copy, Clone, Debug, PartialEq, clap::ValueEnum)]
enum Shape {
    /// 4 layers of 64, vocabulary 320: a test loads it in no time.
    Tiny,
    /// 7 layers of 256, vocabulary 320: rows that every weight type can have.
    Small,
    /// LLaMA 3.2 1B
    #[value(name = "1b")]
    B1,
    /// LLaMA 3.2 3B
    #[value(name = "3b")]
    B3,
    /// LLaMA 2 7B
    #[value(name = "7b")]
    B7,
    /// LLaMA 3.1 8B
    #[value(name = "8b")]
    B8,
}

struct Dims {
    name: &'static str,
    hidden: u64,
    ffn: u64,
    layers: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    vocab: u64,
    context: u32,
    theta: f32,
    tied: bool,
}

impl Shape {
    fn dims(self) -> Dims {
        // Name; hidden, ffn, vocab; layers, heads, kv_heads, head_dim, context; theta; tied.
        #[rustfmt::skip]
        let (name, [hidden, ffn, vocab], [layers, heads, kv_heads, head_dim, context], theta, tied) = match self {
            Self::Tiny => ("tiny", [64, 160, 320], [4, 4, 2, 16, 512], 10_000.0, true),
            Self::Small => ("small", [256, 512, 320], [7, 4, 2, 64, 512], 10_000.0, true),
            Self::B1 => ("random 1B", [2048, 8192, 128_256], [16, 32, 8, 64, 131_072], 500_000.0, true),
            Self::B3 => ("random 3B", [3072, 8192, 128_256], [28, 24, 8, 128, 131_072], 500_000.0, true),
            Self::B7 => ("random 7B", [4096, 11_008, 32_000], [32, 32, 32, 128, 4096], 10_000.0, false),
            Self::B8 => ("random 8B", [4096, 14_336, 128_256], [32, 32, 8, 128, 131_072], 500_000.0, false),
        };
        Dims {
            name,
            hidden,
            ffn,
            layers,
            heads,
            kv_heads,
            head_dim,
            vocab,
            context,
            theta,
            tied,
        }
    }
}

const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + \
                      '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}\
                      {% endif %}";

/// Writes a model of the shape that the arguments name. Its matrices take the named types in turn.
pub(crate) fn run(args: Args) -> Result<()> {
    let known = |name: &String| {
        DType::from_name(name)
            .ok_or_else(|| invalid(&format!("{name} is no weight type; try Q8_0")))
    };
    let types = args.r#type.iter().map(known).collect::<Result<Vec<_>>>()?;
    let mut dims = args.shape.dims();
    dims.layers = args.layers.unwrap_or(dims.layers);
    if dims.layers == 0 {
        return Err(invalid("--layers must be at least 1"));
    }
    let tensors = tensors(&dims, &types);
    let entries: Vec<Entry> = tensors.iter().map(Tensor::entry).collect();
    let mut writer = GgufWriter::create(&args.out, &metadata(&dims), &entries)?;
    for (seed, tensor) in tensors.iter().enumerate() {
        write_tensor(&mut writer, tensor, seed as u64)?;
    }
    print(&json!({ "out": args.out, "bytes": writer.finish()?, "tensors": tensors.len() }))
}

struct Tensor {
    name: String,
    dtype: DType,
    rows: u64,
    cols: u64,
    /// Standard deviation; 0: a norm weight, around 1.
    scale: f32,
}

impl Tensor {
    fn entry(&self) -> Entry {
        let shape = if self.rows == 1 {
            vec![self.cols]
        } else {
            vec![self.rows, self.cols]
        };
        Entry {
            name: self.name.clone(),
            dtype: self.dtype,
            shape,
        }
    }
}

fn tensors(dims: &Dims, types: &[DType]) -> Vec<Tensor> {
    let mut list = Vec::new();
    let mut types = types.iter().copied().cycle();
    let mut next = || types.next().unwrap_or(DType::F32);
    let mut matrix = |dtype: DType, name: String, rows: u64, cols: u64, gain: f32| {
        list.push(Tensor {
            name,
            dtype,
            rows,
            cols,
            scale: gain / (cols as f32).sqrt(),
        });
    };
    let (q, kv) = (
        u64::from(dims.heads * dims.head_dim),
        u64::from(dims.kv_heads * dims.head_dim),
    );
    // Logits of a standard deviation of some 3, whether tied or not.
    matrix(
        next(),
        "token_embd.weight".into(),
        dims.vocab,
        dims.hidden,
        3.0,
    );
    for i in 0..dims.layers {
        // What engines compute together has one type.
        let qkv = next();
        matrix(qkv, format!("blk.{i}.attn_q.weight"), q, dims.hidden, 1.0);
        matrix(qkv, format!("blk.{i}.attn_k.weight"), kv, dims.hidden, 1.0);
        matrix(qkv, format!("blk.{i}.attn_v.weight"), kv, dims.hidden, 1.0);
        matrix(
            next(),
            format!("blk.{i}.attn_output.weight"),
            dims.hidden,
            q,
            1.0,
        );
        let gate_up = next();
        matrix(
            gate_up,
            format!("blk.{i}.ffn_gate.weight"),
            dims.ffn,
            dims.hidden,
            1.0,
        );
        matrix(
            gate_up,
            format!("blk.{i}.ffn_up.weight"),
            dims.ffn,
            dims.hidden,
            1.0,
        );
        matrix(
            next(),
            format!("blk.{i}.ffn_down.weight"),
            dims.hidden,
            dims.ffn,
            1.0,
        );
    }
    if !dims.tied {
        matrix(next(), "output.weight".into(), dims.vocab, dims.hidden, 3.0);
    }
    let norm = |name: String| Tensor {
        name,
        dtype: DType::F32,
        rows: 1,
        cols: dims.hidden,
        scale: 0.0,
    };
    for i in 0..dims.layers {
        list.push(norm(format!("blk.{i}.attn_norm.weight")));
        list.push(norm(format!("blk.{i}.ffn_norm.weight")));
    }
    list.push(norm("output_norm.weight".into()));
    list
}

fn metadata(dims: &Dims) -> Metadata {
    let mut metadata = Metadata::default();
    let mut set = |key: &str, value: Value| {
        metadata.insert(key, value);
    };
    set("general.architecture", "llama".into());
    set("general.name", dims.name.into());
    for (name, value) in [
        ("context_length", dims.context),
        ("embedding_length", dims.hidden as u32),
        ("block_count", dims.layers),
        ("feed_forward_length", dims.ffn as u32),
        ("attention.head_count", dims.heads),
        ("attention.head_count_kv", dims.kv_heads),
        ("attention.key_length", dims.head_dim),
        ("attention.value_length", dims.head_dim),
        ("rope.dimension_count", dims.head_dim),
    ] {
        set(&format!("llama.{name}"), value.into());
    }
    set("llama.attention.layer_norm_rms_epsilon", 1e-5_f32.into());
    set("llama.rope.freq_base", dims.theta.into());
    let (tokens, types, merges) = vocabulary(dims.vocab as usize);
    set("tokenizer.ggml.model", "gpt2".into());
    set("tokenizer.ggml.pre", "smollm".into());
    set(
        "tokenizer.ggml.tokens",
        tokens.into_iter().collect::<StringArray>().into(),
    );
    set("tokenizer.ggml.token_type", types.into());
    set(
        "tokenizer.ggml.merges",
        merges.into_iter().collect::<StringArray>().into(),
    );
    set("tokenizer.ggml.bos_token_id", 1_u32.into());
    set("tokenizer.ggml.eos_token_id", 2_u32.into());
    set("tokenizer.ggml.add_bos_token", false.into());
    set("tokenizer.chat_template", CHATML.into());
    metadata
}

/// Three special tokens, the 256 bytes in GPT-2's spelling, merges of common pairs, padding.
fn vocabulary(size: usize) -> (Vec<String>, Vec<i32>, Vec<String>) {
    let mut tokens: Vec<String> = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        .map(String::from)
        .to_vec();
    let mut types = vec![3; 3];
    let printable = |b: u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let mut spare = 256;
    for byte in 0..256_u32 {
        let code = if printable(byte) {
            byte
        } else {
            spare += 1;
            spare - 1
        };
        tokens.extend(char::from_u32(code).map(String::from));
        types.push(1);
    }
    let mut merges = Vec::new();
    // \u{120} is GPT-2's spelling of a space.
    for pair in [
        "t h",
        "th e",
        "\u{120} a",
        "i n",
        "e r",
        "\u{120} the",
        "o n",
        "a n",
        "r e",
        "\u{120} w",
    ] {
        merges.push(pair.to_owned());
        tokens.push(pair.replace(' ', ""));
        types.push(1);
    }
    while tokens.len() < size {
        tokens.push(format!("<|unused_{}|>", tokens.len()));
        types.push(5);
    }
    (tokens, types, merges)
}

/// Writes one tensor; the rows of a large one repeat a few hundred random rows in a shuffled order.
fn write_tensor(writer: &mut GgufWriter, tensor: &Tensor, seed: u64) -> Result<()> {
    const DISTINCT_ROWS: u64 = 256;
    let mut random = Random(seed.wrapping_mul(0x5851_F42D_4C95_7F2D) + 1);
    let mut rows = Vec::new();
    for _ in 0..tensor.rows.min(if tensor.rows > 4096 {
        DISTINCT_ROWS
    } else {
        u64::MAX
    }) {
        rows.push(random_row(tensor, &mut random)?);
    }
    for r in 0..tensor.rows as usize {
        let row = if r < rows.len() {
            r
        } else {
            random.bits() as usize % rows.len()
        };
        writer.put(&rows[row])?;
    }
    writer.end_tensor()
}

fn random_row(tensor: &Tensor, random: &mut Random) -> Result<Vec<u8>> {
    let values: Vec<f32> = (0..tensor.cols)
        .map(|_| {
            if tensor.scale == 0.0 {
                1.0 + 0.1 * random.normal()
            } else {
                tensor.scale * random.normal()
            }
        })
        .collect();
    let mut bytes = Vec::new();
    match tensor.dtype.quantize(&values, &mut bytes) {
        Ok(()) => Ok(bytes),
        // Types that need a search: random blocks with scales that give about the same deviation as a uniform
        // distribution of this half width.
        Err(error) if error.kind() == ErrorKind::Unsupported => sample_rows(
            tensor.dtype,
            1,
            tensor.cols,
            tensor.scale * 3_f32.sqrt(),
            random,
        ),
        Err(error) => Err(error),
    }
}
