//! What a matrix is multiplied with: rows of activations, rounded to 8 or 16 bits in blocks of 32 (or kept as they are
//! for matrices of floats), laid out as the kernels walk over them. Products of i16 take 16 bits, which leave perplexity
//! as it is; products of bytes, which are faster, take 8.
//!
//! Rows are taken [`Input::width`] at a time, a *tile*. Within a tile, what is read together lies together:
//!
//! | part | layout | read by |
//! | --- | --- | --- |
//! | `bytes` | `[tile, K / 4, width, 4]` i8 | relaxed SIMD |
//! | `halves` | `[tile, K / 2, width, 2]` i16 | plain SIMD |
//! | `byte_meta`, `half_meta` | `[tile, K / 32, width, 4]` f32: scale; scale times the sum of the block's first half, second half, all | with either |
//! | `floats` | `[tile, K, width]` f32 | matrices of floats |

use super::formats::BLOCK;
use super::simd::*;

/// Rows per tile where there are several.
pub const TILE: usize = 4;

/// Which forms of the activations the matrices that read them need.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// As i8.
    pub bytes: bool,
    /// As i16.
    pub halves: bool,
    /// As they are.
    pub floats: bool,
}

impl Needs {
    /// What either needs.
    pub fn and(self, other: Needs) -> Needs {
        Needs {
            bytes: self.bytes || other.bytes,
            halves: self.halves || other.halves,
            floats: self.floats || other.floats,
        }
    }
}

/// Activations `[T, K]`. Buffers grow to the largest use and are kept.
#[derive(Default)]
pub struct Input {
    /// `T`
    pub rows: usize,
    /// `K`
    pub cols: usize,
    /// Rows per tile: 1 or [`TILE`].
    pub width: usize,
    bytes: Vec<i8>,
    halves: Vec<i16>,
    byte_meta: Vec<[f32; 4]>,
    half_meta: Vec<[f32; 4]>,
    floats: Vec<f32>,
}

/// The parts of one tile.
#[derive(Copy, Clone)]
pub struct Tile {
    pub bytes: *const u8,
    pub halves: *const u8,
    pub byte_meta: *const u8,
    pub half_meta: *const u8,
    pub floats: *const u8,
}

fn grow<T: Clone + Default>(buffer: &mut Vec<T>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
}

impl Input {
    /// Makes room for `rows` of `cols`; [`Input::set`] then fills each.
    pub fn begin(&mut self, rows: usize, cols: usize, needs: Needs) {
        self.rows = rows;
        self.cols = cols;
        self.width = if rows == 1 { 1 } else { TILE };
        let padded = rows.next_multiple_of(self.width);
        if needs.bytes {
            grow(&mut self.bytes, padded * cols);
            grow(&mut self.byte_meta, padded * (cols / BLOCK));
        }
        if needs.halves {
            grow(&mut self.halves, padded * cols);
            grow(&mut self.half_meta, padded * (cols / BLOCK));
        }
        if needs.floats {
            grow(&mut self.floats, padded * cols);
        }
        // Rows that fill up the last tile give results that nobody reads, whatever they hold.
    }

    /// Sets row `t`. Different rows may be set at the same time.
    ///
    /// # Safety
    /// `t` is below the `rows` and `x` as long as the `cols` of [`Input::begin`], whose `needs` these are; no two threads
    /// set the same row, and none reads meanwhile.
    pub unsafe fn set(&self, t: usize, x: &[f32], needs: Needs) {
        let (cols, width) = (self.cols, self.width);
        let (tile, lane) = (t / width, t % width);
        assert!(x.len() == cols && t < self.rows);
        if needs.floats {
            let at = unsafe { self.floats.as_ptr().cast_mut().add(tile * width * cols + lane) };
            for (k, x) in x.iter().enumerate() {
                unsafe { *at.add(k * width) = *x };
            }
        }
        if !needs.bytes && !needs.halves {
            return;
        }
        let blocks = cols / BLOCK;
        for block in 0..blocks {
            let x = unsafe { x.as_ptr().add(block * BLOCK).cast::<u8>() };
            let mut v = [zero(); 8];
            let mut largest = f_splat(0.0);
            for (j, v) in v.iter_mut().enumerate() {
                *v = unsafe { load(x.add(16 * j)) };
                largest = f_max(largest, f_abs(*v));
            }
            let largest = to_f32(largest).into_iter().fold(0.0f32, |a, b| if b > a || b.is_nan() { b } else { a });
            let at = (tile * blocks + block) * width + lane;
            // SAFETY: row `t` has these places in each buffer, by `begin`; nobody else writes there.
            unsafe {
                if needs.bytes {
                    let quad = (tile * (cols / 4) + block * 8) * width + lane;
                    let bytes = self.bytes.as_ptr().cast_mut();
                    let meta = round(&v, largest, 127.0, |j, q| {
                        bytes.add((quad + j * width) * 4).cast::<[i8; 4]>().write_unaligned(q.map(|q| q as i8));
                    });
                    *self.byte_meta.as_ptr().cast_mut().add(at) = meta;
                }
                if needs.halves {
                    let pair = (tile * (cols / 2) + block * 16) * width + lane;
                    let halves = self.halves.as_ptr().cast_mut();
                    let meta = round(&v, largest, HALF_MOST, |j, q| {
                        let [a, b, c, d] = q.map(|q| q as i16);
                        halves.add((pair + 2 * j * width) * 2).cast::<[i16; 2]>().write_unaligned([a, b]);
                        halves.add((pair + (2 * j + 1) * width) * 2).cast::<[i16; 2]>().write_unaligned([c, d]);
                    });
                    *self.half_meta.as_ptr().cast_mut().add(at) = meta;
                }
            }
        }
    }

    /// Tiles of the rows.
    pub fn tiles(&self) -> usize {
        self.rows.div_ceil(self.width)
    }

    /// Where tile `tile` lies.
    pub fn tile(&self, tile: usize) -> Tile {
        let values = tile * self.width * self.cols;
        Tile {
            bytes: self.bytes.as_ptr().cast::<u8>().wrapping_add(values),
            halves: self.halves.as_ptr().cast::<u8>().wrapping_add(2 * values),
            byte_meta: self.byte_meta.as_ptr().cast::<u8>().wrapping_add(16 * (values / BLOCK)),
            half_meta: self.half_meta.as_ptr().cast::<u8>().wrapping_add(16 * (values / BLOCK)),
            floats: self.floats.as_ptr().cast::<u8>().wrapping_add(4 * values),
        }
    }
}

/// The largest activation of 16 bits: what 8 bits hold exactly, 16 do too, and a block's products with bytes fit an i32.
const HALF_MOST: f32 = 127.0 * 256.0;

/// Rounds a block whose largest magnitude is `largest` to integers of at most `most`, four at a time, to `put`; returns
/// its `meta`.
#[inline(always)]
fn round(v: &[V; 8], largest: f32, most: f32, mut put: impl FnMut(usize, [i32; 4])) -> [f32; 4] {
    // A block this small is a block of zeros.
    let (d, inverse) = if largest < 1e-30 { (0.0, 0.0) } else { (largest / most, most / largest) };
    let inverse = f_splat(inverse);
    let mut sums = [zero(); 2];
    for (j, v) in v.iter().enumerate() {
        // A NaN becomes 0; the scale carries it on.
        let q = f_to_i(f_round(f_mul(*v, inverse)));
        sums[j / 4] = i_add(sums[j / 4], q);
        put(j, to_i32(q));
    }
    let [a, b] = sums.map(|sum| to_i32(sum).into_iter().sum::<i32>() as f32);
    [d, d * a, d * b, d * (a + b)]
}
