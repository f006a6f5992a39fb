//! One function per operation. Inputs and outputs are `f32`, sums are `f64`.

use crate::error::{Error, Result};
use crate::plan::fine::{self, head_norm};
use crate::plan::{AttentionSpec, CacheSpec, Rope, Row};
use crate::quant::DType;

/// A weight in its stored type.
#[derive(Copy, Clone, Debug)]
pub struct Matrix<'a> {
    /// Stored type.
    pub dtype: DType,
    /// Output rows.
    pub rows: usize,
    /// Values per row.
    pub cols: usize,
    /// `rows * row_bytes`
    pub bytes: &'a [u8],
}

impl Matrix<'_> {
    /// The rows of one of `count` stacked matrices.
    pub fn expert(&self, expert: u32, count: u32) -> Matrix<'_> {
        let (rows, bytes) = (
            self.rows / count as usize,
            self.bytes.len() / count as usize,
        );
        Matrix {
            rows,
            bytes: &self.bytes[expert as usize * bytes..][..bytes],
            ..*self
        }
    }

    /// Dequantises row `r` into `out` (`[cols]`).
    ///
    /// # Errors
    ///
    /// Those of [`DType::dequantize`].
    pub fn row(&self, r: usize, out: &mut Vec<f32>) -> Result<()> {
        let row_bytes = self.bytes.len() / self.rows;
        out.resize(self.cols, 0.0);
        self.dtype
            .dequantize(&self.bytes[r * row_bytes..(r + 1) * row_bytes], out)
    }
}

/// Keys and values of one cache, in pages: `[page, k or v, KV, page_size, D]`.
#[derive(Debug)]
pub struct Cache {
    spec: CacheSpec,
    page_size: u32,
    values: Vec<f32>,
}

impl Cache {
    /// Zeroed.
    pub fn new(spec: CacheSpec, page_size: u32, num_pages: u32) -> Self {
        let len = 2
            * spec.kv_heads as usize
            * spec.head_dim as usize
            * page_size as usize
            * num_pages as usize;
        Self {
            spec,
            page_size,
            values: vec![0.0; len],
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        (self.values.len() * 4) as u64
    }

    /// Key or value of a row's position, `[D]`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for a position without a cache page.
    pub fn get(
        &self,
        pages: &[u32],
        which: usize,
        kv: usize,
        pos: u32,
        out: &mut [f32],
    ) -> Result<()> {
        let at = self.at(pages, which, kv, pos)?;
        out.copy_from_slice(&self.values[at..at + out.len()]);
        Ok(())
    }

    /// `[KV, page_size, D]` of one page.
    pub fn page(&self, page: u32, which: u32) -> Vec<f32> {
        let len = self.values_per_page();
        self.values[(page as usize * 2 + which as usize) * len..][..len].to_vec()
    }

    fn values_per_page(&self) -> usize {
        self.spec.kv_heads as usize * self.page_size as usize * self.spec.head_dim as usize
    }

    /// Where head `kv`'s vector of position `pos` starts; `which`: 0 key, 1 value.
    fn at(&self, pages: &[u32], which: usize, kv: usize, pos: u32) -> Result<usize> {
        let page = pages
            .get((pos / self.page_size) as usize)
            .ok_or_else(|| Error::internal(format!("position {pos} has no cache page")))?;
        let (d, size) = (self.spec.head_dim as usize, self.page_size as usize);
        let slot = (pos % self.page_size) as usize;
        Ok(((*page as usize * 2 + which) * self.spec.kv_heads as usize + kv) * size * d + slot * d)
    }
}

/// `[T, E]`: one row of the table per token.
///
/// # Errors
///
/// Those of [`Matrix::row`].
pub fn embed(table: &Matrix<'_>, rows: &[Row]) -> Result<Vec<f32>> {
    let mut out = Vec::with_capacity(rows.len() * table.cols);
    let mut line = Vec::new();
    for row in rows {
        table.row(row.token as usize, &mut line)?;
        out.extend_from_slice(&line);
    }
    Ok(out)
}

/// `x / sqrt(mean(x^2) + eps) * weight`, per row of `[T, E]`.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks_exact(weight.len()) {
        let squares: f64 = row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
        let scale = 1.0 / (squares / row.len() as f64 + f64::from(eps)).sqrt();
        out.extend(
            row.iter()
                .zip(weight)
                .map(|(v, w)| (f64::from(*v) * scale * f64::from(*w)) as f32),
        );
    }
    out
}

/// `[T, cols] -> [T, rows]`: `W x + b`.
///
/// # Errors
///
/// Those of [`Matrix::row`].
pub fn linear(weight: &Matrix<'_>, bias: Option<&[f32]>, input: &[f32]) -> Result<Vec<f32>> {
    let tokens = input.len() / weight.cols;
    let mut out = vec![0.0; tokens * weight.rows];
    let mut line = Vec::new();
    for r in 0..weight.rows {
        weight.row(r, &mut line)?;
        for (t, x) in input.chunks_exact(weight.cols).enumerate() {
            let y = dot(&line, x) + bias.map_or(0.0, |b| f64::from(b[r]));
            out[t * weight.rows + r] = y as f32;
        }
    }
    Ok(out)
}

/// Four partial sums: shorter chains of dependent additions.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut sums = [0.0_f64; 4];
    let (a4, b4) = (a.chunks_exact(4), b.chunks_exact(4));
    let tail: f64 = a4
        .remainder()
        .iter()
        .zip(b4.remainder())
        .map(|(x, y)| f64::from(*x) * f64::from(*y))
        .sum();
    for (x, y) in a4.zip(b4) {
        for i in 0..4 {
            sums[i] += f64::from(x[i]) * f64::from(y[i]);
        }
    }
    tail + sums[0] + sums[1] + sums[2] + sums[3]
}

/// Writes `k` and `v` (`[T, KV, D]`) into the cache at each row's position.
///
/// # Errors
///
/// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for a position without a cache page.
pub fn store(
    cache: &mut Cache,
    rows: &[Row],
    pages: &[Vec<u32>],
    k: &[f32],
    v: &[f32],
) -> Result<()> {
    let (kv_heads, d) = (cache.spec.kv_heads as usize, cache.spec.head_dim as usize);
    for (t, row) in rows.iter().enumerate() {
        for kv in 0..kv_heads {
            for (which, source) in [k, v].into_iter().enumerate() {
                let at = cache.at(&pages[row.seq as usize], which, kv, row.pos)?;
                cache.values[at..at + d].copy_from_slice(&source[(t * kv_heads + kv) * d..][..d]);
            }
        }
    }
    Ok(())
}

/// [`head_norm`] of the cached keys at each row's position, which are then rotated.
///
/// # Errors
///
/// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for a position without a cache page.
pub fn key_norm(
    cache: &mut Cache,
    rows: &[Row],
    pages: &[Vec<u32>],
    eps: f32,
    weight: Option<&[f32]>,
    rope: Option<&Rope>,
) -> Result<()> {
    let (kv_heads, d) = (cache.spec.kv_heads as usize, cache.spec.head_dim as usize);
    for row in rows {
        for kv in 0..kv_heads {
            let at = cache.at(&pages[row.seq as usize], 0, kv, row.pos)?;
            let key = &mut cache.values[at..at + d];
            head_norm(key, d as u32, eps, weight);
            if let Some(rope) = rope {
                fine::rope(key, std::slice::from_ref(row), 1, d as u32, rope);
            }
        }
    }
    Ok(())
}

/// `[T, H, D]`: softmax(scale q k) v over the visible positions of each row's sequence.
///
/// # Errors
///
/// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for a position without a cache page.
pub fn attention(
    q: &[f32],
    cache: &Cache,
    rows: &[Row],
    pages: &[Vec<u32>],
    spec: &AttentionSpec,
) -> Result<Vec<f32>> {
    let heads = spec.heads;
    let (n_heads, d) = (heads.heads as usize, heads.head_dim as usize);
    let group = n_heads / heads.kv_heads as usize;
    let mut out = vec![0.0_f32; q.len()];
    for (t, row) in rows.iter().enumerate() {
        let pages = &pages[row.seq as usize];
        for h in 0..n_heads {
            let query = &q[(t * n_heads + h) * d..][..d];
            let first = spec.mask.first(row.pos);
            let mut scores = Vec::with_capacity((row.pos - first + 1) as usize);
            for pos in first..=row.pos {
                let at = cache.at(pages, 0, h / group, pos)?;
                scores.push(dot(query, &cache.values[at..at + d]) * spec.scale_at(row.pos));
            }
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let total: f64 = weights.iter().sum();
            let mut sum = vec![0.0_f64; d];
            for (pos, weight) in (first..=row.pos).zip(&weights) {
                let at = cache.at(pages, 1, h / group, pos)?;
                for (s, v) in sum.iter_mut().zip(&cache.values[at..at + d]) {
                    *s += weight * f64::from(*v);
                }
            }
            for (o, s) in out[(t * n_heads + h) * d..][..d].iter_mut().zip(&sum) {
                *o = (s / total) as f32;
            }
        }
    }
    Ok(out)
}

/// `x += y`
pub fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}
