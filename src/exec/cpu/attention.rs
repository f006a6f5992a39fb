//! The key/value cache, and attention over it with an online softmax (Milakov & Gimelshein 2018), a page at a time.
//!
//! A page holds 32 positions. Keys lie `[D, 32]`, so that the lanes of a vector are positions and nothing is summed across
//! it; values lie `[32, D]`. The heads of a group, and the rows of a step, use a page while it is near.

use super::formats::BLOCK;
use super::simd::{
    V, exp, f_abs, f_max, f_mul, f_splat, f_sub, f16_to_f32, load, load_splat, load8, madd, store,
    to_f32,
};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::{CacheSpec, Heads, Mask, Row};

/// Positions per page that the kernels are made for.
pub const PAGE: usize = crate::exec::PAGE_SIZE as usize;
/// Vectors of a page's positions.
const VECTORS: usize = PAGE / 4;
/// Rows that go through the pages together.
pub const ROWS: usize = 16;

/// Keys and values, `[page, k or v, KV, ...]`, as f32 or f16.
pub struct Cache {
    spec: CacheSpec,
    f16: bool,
    /// `D` as values are stored: whole vectors.
    padded: usize,
    values: Vec<u8>,
}

impl Cache {
    /// Bytes of a cache.
    pub fn size(spec: CacheSpec, pages: u32, f16: bool) -> u64 {
        let head =
            u64::from(spec.head_dim.next_multiple_of(4)) * PAGE as u64 * if f16 { 2 } else { 4 };
        head * 2 * u64::from(spec.kv_heads) * u64::from(pages)
    }

    /// Zeroed.
    ///
    /// # Errors
    /// `ModelTooLarge` where there is no memory for it.
    pub fn new(spec: CacheSpec, pages: u32, f16: bool) -> Result<Self> {
        let size = usize::try_from(Self::size(spec, pages, f16)).ok();
        let mut values = Vec::new();
        size.and_then(|n| {
            values
                .try_reserve_exact(n)
                .ok()
                .map(|()| values.resize(n, 0))
        })
        .ok_or_else(|| {
            Error::new(
                ErrorKind::ModelTooLarge,
                "no memory for the key/value cache; load with a smaller max_context",
            )
        })?;
        Ok(Self {
            spec,
            f16,
            padded: spec.head_dim.next_multiple_of(4) as usize,
            values,
        })
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.values.len()
    }

    /// Bytes of one head's keys or values in a page.
    fn head_bytes(&self) -> usize {
        self.padded * PAGE * if self.f16 { 2 } else { 4 }
    }

    fn at(&self, page: u32, which: usize, kv: usize) -> usize {
        ((page as usize * 2 + which) * self.spec.kv_heads as usize + kv) * self.head_bytes()
    }

    fn value(&self, at: usize, i: usize) -> f32 {
        if self.f16 {
            half::f16::from_le_bytes([self.values[at + 2 * i], self.values[at + 2 * i + 1]])
                .to_f32()
        } else {
            f32::from_le_bytes(std::array::from_fn(|b| self.values[at + 4 * i + b]))
        }
    }

    fn set_value(&mut self, at: usize, i: usize, x: f32) {
        if self.f16 {
            self.values[at + 2 * i..][..2].copy_from_slice(&half::f16::from_f32(x).to_le_bytes());
        } else {
            self.values[at + 4 * i..][..4].copy_from_slice(&x.to_le_bytes());
        }
    }

    /// Where element `d` of a head is among the elements of its page.
    fn element(&self, which: usize, slot: usize, d: usize) -> usize {
        if which == 0 {
            d * PAGE + slot
        } else {
            slot * self.padded + d
        }
    }

    /// Writes key (`which == 0`) or value (1) of head `kv` at a position: `[D]`.
    pub fn set(&mut self, page: u32, which: usize, kv: usize, slot: usize, x: &[f32]) {
        let at = self.at(page, which, kv);
        for (d, x) in x.iter().enumerate() {
            let i = self.element(which, slot, d);
            self.set_value(at, i, *x);
        }
    }

    /// Reads it back.
    pub fn get(&self, page: u32, which: usize, kv: usize, slot: usize, out: &mut [f32]) {
        let at = self.at(page, which, kv);
        for (d, x) in out.iter_mut().enumerate() {
            *x = self.value(at, self.element(which, slot, d));
        }
    }

    /// One head's keys or values of a page as f32: where they lie, or a copy in `out`.
    fn page<'a>(&'a self, page: u32, which: usize, kv: usize, out: &'a mut Vec<f32>) -> *const u8 {
        let at = self.at(page, which, kv);
        let stored = &self.values[at..at + self.head_bytes()];
        if !self.f16 {
            return stored.as_ptr();
        }
        out.resize(self.padded * PAGE, 0.0);
        for (four, out) in stored.chunks_exact(8).zip(out.chunks_exact_mut(4)) {
            // SAFETY: 8 bytes in, 16 out. Values here may be infinite (what f16 has no room for), which the quick
            // conversion does not know.
            unsafe { store(out.as_mut_ptr().cast(), widen(load8(four.as_ptr()))) };
        }
        out.as_ptr().cast()
    }
}

/// Any f16, infinite ones too, as f32.
#[inline(always)]
fn widen(a: V) -> V {
    let x = f16_to_f32(a);
    // The quick conversion gives 2^16 and more for what is not finite: times 2^112 that overflows, as it should; the
    // others stay as they are.
    let limit = f_splat(65_520.0);
    let over = f_max(f_sub(f_abs(x), limit), f_splat(0.0));
    madd(f_mul(over, f_splat(3.0e38)), x, x)
}

/// One thread's room.
#[derive(Default)]
pub struct Scratch {
    keys: Vec<f32>,
    values: Vec<f32>,
    /// Largest score and sum of weights, per row and head of the group.
    state: Vec<(f32, f32)>,
}

/// What one attention operation works on.
pub struct Attention<'a> {
    /// `[T, H, D]`
    pub q: &'a [f32],
    /// Keys and values.
    pub cache: &'a Cache,
    /// Geometry.
    pub heads: Heads,
    /// Visible positions.
    pub mask: Mask,
    /// Cache pages of each sequence.
    pub pages: &'a [Vec<u32>],
}

impl Attention<'_> {
    /// Rows `rows` of one sequence, the first of which is row `t` of the step, for the heads that share key/value head
    /// `kv`. Scores of each row are multiplied by `scale(position)`.
    ///
    /// # Safety
    /// `out` is `[T, H, D]`; nobody else touches these rows' and heads' part of it.
    pub unsafe fn run(
        &self,
        t: usize,
        rows: &[Row],
        kv: usize,
        scale: &dyn Fn(u32) -> f32,
        out: *mut f32,
        scratch: &mut Scratch,
    ) {
        let (n_heads, d) = (self.heads.heads as usize, self.heads.head_dim as usize);
        let group = n_heads / self.heads.kv_heads as usize;
        let pages = &self.pages[rows[0].seq as usize];
        let first = rows
            .iter()
            .map(|r| self.mask.first(r.pos) as usize / PAGE)
            .min()
            .unwrap_or(0);
        let last = rows
            .iter()
            .map(|r| r.pos as usize / PAGE)
            .max()
            .unwrap_or(0);
        scratch.state.clear();
        scratch
            .state
            .resize(rows.len() * group, (f32::NEG_INFINITY, 0.0));
        let head_at = |i: usize, g: usize| ((t + i) * n_heads + kv * group + g) * d;
        for (i, _) in rows.iter().enumerate() {
            for g in 0..group {
                // SAFETY: within `out`.
                unsafe { std::slice::from_raw_parts_mut(out.add(head_at(i, g)), d) }.fill(0.0);
            }
        }
        for (index, page) in (first..=last).zip(&pages[first..=last]) {
            let keys = self.cache.page(*page, 0, kv, &mut scratch.keys);
            let values = self.cache.page(*page, 1, kv, &mut scratch.values);
            for (i, row) in rows.iter().enumerate() {
                let from = (self.mask.first(row.pos) as usize).max(index * PAGE);
                let to = (row.pos as usize + 1).min((index + 1) * PAGE);
                if from >= to {
                    continue;
                }
                let slots = from - index * PAGE..to - index * PAGE;
                let scale = scale(row.pos);
                for g in 0..group {
                    let at = head_at(i, g);
                    // SAFETY: a page of keys is `[D, PAGE]`, a query `[D]`.
                    let scores = unsafe { scores(self.q[at..at + d].as_ptr().cast(), keys, d) };
                    let state = &mut scratch.state[i * group + g];
                    let (weights, shrink) = softmax_step(scores, scale, &slots, state);
                    // SAFETY: a page of values is `[PAGE, padded]`, and this head of `out` is ours.
                    unsafe {
                        let out = std::slice::from_raw_parts_mut(out.add(at), d);
                        add_values(
                            out,
                            shrink,
                            &weights,
                            values,
                            self.cache.padded,
                            slots.clone(),
                        );
                    }
                }
            }
        }
        for (i, _) in rows.iter().enumerate() {
            for g in 0..group {
                let (_, total) = scratch.state[i * group + g];
                // SAFETY: within `out`.
                let out = unsafe { std::slice::from_raw_parts_mut(out.add(head_at(i, g)), d) };
                let inverse = 1.0 / total;
                out.iter_mut().for_each(|x| *x *= inverse);
            }
        }
    }
}

/// Products of a query with the keys of a page.
///
/// # Safety
/// `q` starts `d` f32, `keys` starts `[d, PAGE]`.
#[inline(always)]
unsafe fn scores(q: *const u8, keys: *const u8, d: usize) -> [V; VECTORS] {
    let mut sums = [f_splat(0.0); VECTORS];
    for i in 0..d {
        unsafe {
            let q = load_splat(q.add(4 * i));
            let key = keys.add(i * PAGE * 4);
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum = madd(q, load(key.add(16 * j)), *sum);
            }
        }
    }
    sums
}

/// Takes a page's scores into the running maximum and sum of a head. Returns the weights of the visible slots (others
/// are not to be used), and what all that was summed before must be multiplied by.
#[inline(always)]
fn softmax_step(
    scores: [V; VECTORS],
    scale: f32,
    slots: &std::ops::Range<usize>,
    (max, total): &mut (f32, f32),
) -> ([f32; PAGE], f32) {
    let mut flat = [0.0_f32; PAGE];
    for (four, score) in flat.chunks_exact_mut(4).zip(scores) {
        four.copy_from_slice(&to_f32(f_mul(score, f_splat(scale))));
    }
    // Slots that are not visible may hold anything.
    flat[..slots.start].fill(f32::NEG_INFINITY);
    flat[slots.end..].fill(f32::NEG_INFINITY);
    let four = |i: usize| unsafe { load(flat.as_ptr().add(4 * i).cast()) };
    let most = (1..VECTORS).fold(four(0), |most, i| f_max(most, four(i)));
    let most = to_f32(most).into_iter().fold(*max, f32::max);
    let shrink = if most > *max {
        (*max - most).exp()
    } else {
        1.0
    };
    *max = most;
    let mut weights = [0.0_f32; PAGE];
    for i in 0..VECTORS {
        // SAFETY: within the array.
        unsafe {
            store(
                weights.as_mut_ptr().add(4 * i).cast(),
                exp(f_sub(four(i), f_splat(most))),
            );
        };
    }
    let sum: f32 = weights[slots.clone()].iter().sum();
    *total = *total * shrink + sum;
    (weights, shrink)
}

/// `out = shrink * out + sum of weight * value` over the slots.
///
/// # Safety
/// `values` starts `[PAGE, padded]` f32, `padded >= out.len()`.
#[inline(always)]
unsafe fn add_values(
    out: &mut [f32],
    shrink: f32,
    weights: &[f32; PAGE],
    values: *const u8,
    padded: usize,
    slots: std::ops::Range<usize>,
) {
    let whole = out.len() / BLOCK * BLOCK;
    let shrink_by = f_splat(shrink);
    for d in (0..whole).step_by(BLOCK) {
        // SAFETY: 32 values from `d` on, in `out` and in each slot.
        unsafe {
            let at = out.as_mut_ptr().add(d).cast::<u8>();
            let mut sums = [f_splat(0.0); BLOCK / 4];
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum = f_mul(shrink_by, load(at.add(16 * j)));
            }
            for slot in slots.clone() {
                let weight = f_splat(weights[slot]);
                let value = values.add((slot * padded + d) * 4);
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum = madd(weight, load(value.add(16 * j)), *sum);
                }
            }
            for (j, sum) in sums.into_iter().enumerate() {
                store(at.add(16 * j), sum);
            }
        }
    }
    for (d, out) in out.iter_mut().enumerate().skip(whole) {
        *out *= shrink;
        for slot in slots.clone() {
            // SAFETY: `d` is below `padded`.
            *out += weights[slot]
                * unsafe { values.cast::<f32>().add(slot * padded + d).read_unaligned() };
        }
    }
}
