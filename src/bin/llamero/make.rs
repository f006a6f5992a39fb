//! Writes a GGUF with random weights: small ones for tests on anyone's machine, large ones for benches.
//!
//! The vocabulary is byte-level (256 bytes, a few merges, three special tokens), padded to the shape's size; the chat
//! template is ChatML. The same shape and type give the same bytes everywhere.

use llamero::error::{Error, ErrorKind, Result};
use llamero::quant::DType;
use serde_json::json;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

#[derive(Copy, Clone, Debug, PartialEq, clap::ValueEnum)]
pub enum Shape {
    /// 4 blocks of 64, vocabulary 320: a test loads it in no time.
    Tiny,
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
        let d = |name, hidden, ffn, layers, heads, kv_heads, head_dim, vocab, context, theta, tied| Dims {
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
        };
        match self {
            Shape::Tiny => d("tiny", 64, 160, 4, 4, 2, 16, 320, 512, 10_000.0, true),
            Shape::B1 => d("random 1B", 2048, 8192, 16, 32, 8, 64, 128_256, 131_072, 500_000.0, true),
            Shape::B3 => d("random 3B", 3072, 8192, 28, 24, 8, 128, 128_256, 131_072, 500_000.0, true),
            Shape::B7 => d("random 7B", 4096, 11_008, 32, 32, 32, 128, 32_000, 4096, 10_000.0, false),
            Shape::B8 => d("random 8B", 4096, 14_336, 32, 32, 8, 128, 128_256, 131_072, 500_000.0, false),
        }
    }
}

/// GGUF value types.
const U32: u32 = 4;
const F32: u32 = 6;
const BOOL: u32 = 7;
const STRING: u32 = 8;
const ARRAY: u32 = 9;
const I32: u32 = 5;
const ALIGNMENT: u64 = 32;

const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + \
                      '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}\
                      {% endif %}";

pub fn run(out: &Path, shape: Shape, type_name: &str) -> Result<()> {
    let dtype = DType::from_name(type_name)
        .ok_or_else(|| Error::new(ErrorKind::InvalidInput, format!("{type_name} is no weight type; try Q8_0")))?;
    let dims = shape.dims();
    let tensors = tensors(&dims, dtype)?;
    let mut file = BufWriter::new(File::create(out).map_err(|e| Error::from(e).at(out.display()))?);
    let mut header = Vec::new();
    write_header(&dims, &tensors, &mut header);
    header.resize(header.len().next_multiple_of(ALIGNMENT as usize), 0);
    file.write_all(&header)?;
    let mut total = header.len() as u64;
    for (seed, tensor) in tensors.iter().enumerate() {
        total += write_tensor(&mut file, tensor, seed as u64)?;
    }
    file.flush()?;
    println!("{}", json!({ "out": out, "bytes": total, "tensors": tensors.len() }));
    Ok(())
}

struct Tensor {
    name: String,
    dtype: DType,
    rows: u64,
    cols: u64,
    /// Standard deviation; 0: a norm weight, around 1.
    scale: f32,
}

fn tensors(dims: &Dims, dtype: DType) -> Result<Vec<Tensor>> {
    let mut list = Vec::new();
    let mut matrix = |name: String, rows: u64, cols: u64, gain: f32| -> Result<()> {
        if dtype.row_bytes(cols).is_none() {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("{name}: rows of {cols} are not whole blocks of {}", dtype.name()),
            ));
        }
        list.push(Tensor { name, dtype, rows, cols, scale: gain / (cols as f32).sqrt() });
        Ok(())
    };
    let (q, kv) = (u64::from(dims.heads * dims.head_dim), u64::from(dims.kv_heads * dims.head_dim));
    // Logits of a standard deviation of some 3, whether tied or not.
    matrix("token_embd.weight".into(), dims.vocab, dims.hidden, 3.0)?;
    for i in 0..dims.layers {
        matrix(format!("blk.{i}.attn_q.weight"), q, dims.hidden, 1.0)?;
        matrix(format!("blk.{i}.attn_k.weight"), kv, dims.hidden, 1.0)?;
        matrix(format!("blk.{i}.attn_v.weight"), kv, dims.hidden, 1.0)?;
        matrix(format!("blk.{i}.attn_output.weight"), dims.hidden, q, 1.0)?;
        matrix(format!("blk.{i}.ffn_gate.weight"), dims.ffn, dims.hidden, 1.0)?;
        matrix(format!("blk.{i}.ffn_up.weight"), dims.ffn, dims.hidden, 1.0)?;
        matrix(format!("blk.{i}.ffn_down.weight"), dims.hidden, dims.ffn, 1.0)?;
    }
    if !dims.tied {
        matrix("output.weight".into(), dims.vocab, dims.hidden, 3.0)?;
    }
    let norm = |name: String| Tensor { name, dtype: DType::F32, rows: 1, cols: dims.hidden, scale: 0.0 };
    for i in 0..dims.layers {
        list.push(norm(format!("blk.{i}.attn_norm.weight")));
        list.push(norm(format!("blk.{i}.ffn_norm.weight")));
    }
    list.push(norm("output_norm.weight".into()));
    Ok(list)
}

fn write_header(dims: &Dims, tensors: &[Tensor], out: &mut Vec<u8>) {
    let mut keys = Vec::new();
    let mut count = 0u64;
    let mut key = |name: &str, kind: u32, value: &[u8]| {
        put_string(&mut keys, name);
        keys.extend_from_slice(&kind.to_le_bytes());
        keys.extend_from_slice(value);
        count += 1;
    };
    let text = |s: &str| {
        let mut v = Vec::new();
        put_string(&mut v, s);
        v
    };
    let array = |kind: u32, len: usize, body: Vec<u8>| {
        let mut v = kind.to_le_bytes().to_vec();
        v.extend_from_slice(&(len as u64).to_le_bytes());
        v.extend(body);
        v
    };
    key("general.architecture", STRING, &text("llama"));
    key("general.name", STRING, &text(dims.name));
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
        key(&format!("llama.{name}"), U32, &value.to_le_bytes());
    }
    key("llama.attention.layer_norm_rms_epsilon", F32, &1e-5f32.to_le_bytes());
    key("llama.rope.freq_base", F32, &dims.theta.to_le_bytes());
    let (tokens, types, merges) = vocabulary(dims.vocab as usize);
    let strings = |list: &[String]| list.iter().flat_map(|s| text(s)).collect::<Vec<u8>>();
    key("tokenizer.ggml.model", STRING, &text("gpt2"));
    key("tokenizer.ggml.pre", STRING, &text("smollm"));
    key("tokenizer.ggml.tokens", ARRAY, &array(STRING, tokens.len(), strings(&tokens)));
    let types: Vec<u8> = types.iter().flat_map(|t: &i32| t.to_le_bytes()).collect();
    key("tokenizer.ggml.token_type", ARRAY, &array(I32, tokens.len(), types));
    key("tokenizer.ggml.merges", ARRAY, &array(STRING, merges.len(), strings(&merges)));
    key("tokenizer.ggml.bos_token_id", U32, &1u32.to_le_bytes());
    key("tokenizer.ggml.eos_token_id", U32, &2u32.to_le_bytes());
    key("tokenizer.ggml.add_bos_token", BOOL, &[0]);
    key("tokenizer.chat_template", STRING, &text(CHATML));

    out.extend_from_slice(b"GGUF");
    out.extend_from_slice(&3u32.to_le_bytes());
    out.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    out.extend(keys);
    let mut offset = 0u64;
    for t in tensors {
        put_string(out, &t.name);
        let vector = t.rows == 1;
        out.extend_from_slice(&(if vector { 1u32 } else { 2 }).to_le_bytes());
        out.extend_from_slice(&t.cols.to_le_bytes());
        if !vector {
            out.extend_from_slice(&t.rows.to_le_bytes());
        }
        out.extend_from_slice(&t.dtype.ggml_id().to_le_bytes());
        out.extend_from_slice(&offset.to_le_bytes());
        offset += (t.rows * t.dtype.row_bytes(t.cols).unwrap_or(0)).next_multiple_of(ALIGNMENT);
    }
}

/// Three special tokens, the 256 bytes in GPT-2's spelling, merges of common pairs, padding.
fn vocabulary(size: usize) -> (Vec<String>, Vec<i32>, Vec<String>) {
    let mut tokens: Vec<String> = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(String::from).to_vec();
    let mut types = vec![3; 3];
    let printable = |b: u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let mut spare = 256;
    for byte in 0..256u32 {
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
    for pair in ["t h", "th e", "\u{120} a", "i n", "e r", "\u{120} the", "o n", "a n", "r e", "\u{120} w"] {
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

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Writes one tensor; the rows of a large one repeat a few hundred random rows in a shuffled order.
fn write_tensor(file: &mut impl Write, tensor: &Tensor, seed: u64) -> Result<u64> {
    const DISTINCT_ROWS: u64 = 256;
    let mut random = SplitMix(seed.wrapping_mul(0x5851_F42D_4C95_7F2D) + 1);
    let mut rows = Vec::new();
    for _ in 0..tensor.rows.min(if tensor.rows > 4096 { DISTINCT_ROWS } else { u64::MAX }) {
        let values: Vec<f32> = (0..tensor.cols)
            .map(|_| if tensor.scale == 0.0 { 1.0 + 0.1 * random.normal() } else { tensor.scale * random.normal() })
            .collect();
        let mut bytes = Vec::new();
        tensor.dtype.quantize(&values, &mut bytes)?;
        rows.push(bytes);
    }
    let mut written = 0u64;
    for r in 0..tensor.rows {
        let row = if (r as usize) < rows.len() { r as usize } else { random.next() as usize % rows.len() };
        file.write_all(&rows[row])?;
        written += rows[row].len() as u64;
    }
    let padded = written.next_multiple_of(ALIGNMENT);
    file.write_all(&vec![0; (padded - written) as usize])?;
    Ok(padded)
}

/// SplitMix64 (Steele et al. 2014).
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// About normal: the sum of twelve uniforms less 6 (exact arithmetic, so the same everywhere).
    fn normal(&mut self) -> f32 {
        let sum: u64 = (0..12).map(|_| self.next() >> 40).sum();
        (sum as f64 / f64::from(1 << 24) - 6.0) as f32
    }
}
