//! What a matrix is multiplied with: rows of activations, rounded to 16 bits in blocks of 32 (or kept as they are for
//! matrices of floats), laid out as the kernels walk over them. 16 bits leave perplexity as it is; 8 would not (0.6 and
//! 1.5 % on SmolLM2's texts), so where products are of bytes there are two planes of them.
//!
//! Rows are taken [`Input::width`] at a time, a *tile*. Within a tile, what is read together lies together:
//!
//! | part | layout | read by |
//! | --- | --- | --- |
//! | `planes` | `[tile, K / 32, 2, 8, width, 4]` i8: 256 times the first plane plus the second | products of bytes |
//! | `halves` | `[tile, K / 2, width, 2]` i16 | products of i16 |
//! | `meta` | `[tile, K / 32, width, 4]` f32: scale; scale times the sum of the block's first half, second half, all | both |
//! | `floats` | `[tile, K, width]` f32 | matrices of floats |

use super::formats::BLOCK;
use super::simd::{
    V, f_abs, f_max, f_mul, f_round, f_splat, f_to_i, i_add, load, to_f32, to_i32, zero,
};

/// Rows per tile where there are several.
pub const TILE: usize = 4;

/// Which forms of the activations the matrices that read them need.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// As two planes of i8.
    pub planes: bool,
    /// As i16.
    pub halves: bool,
    /// As they are.
    pub floats: bool,
}

impl Needs {
    /// What either needs.
    pub fn and(self, other: Self) -> Self {
        Self {
            planes: self.planes || other.planes,
            halves: self.halves || other.halves,
            floats: self.floats || other.floats,
        }
    }

    fn integers(self) -> bool {
        self.planes || self.halves
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
    planes: Vec<i8>,
    halves: Vec<i16>,
    meta: Vec<[f32; 4]>,
    floats: Vec<f32>,
}

/// The parts of one tile.
#[derive(Copy, Clone)]
pub struct Tile {
    pub planes: *const u8,
    pub halves: *const u8,
    pub meta: *const u8,
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
        if needs.planes {
            grow(&mut self.planes, 2 * padded * cols);
        }
        if needs.halves {
            grow(&mut self.halves, padded * cols);
        }
        if needs.integers() {
            grow(&mut self.meta, padded * (cols / BLOCK));
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
        assert!(
            x.len() == cols && t < self.rows,
            "a row beyond the input, or of another length"
        );
        if needs.floats {
            let at = unsafe {
                self.floats
                    .as_ptr()
                    .cast_mut()
                    .add(tile * width * cols + lane)
            };
            for (k, x) in x.iter().enumerate() {
                unsafe { *at.add(k * width) = *x };
            }
        }
        if !needs.integers() {
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
            let largest = to_f32(largest)
                .into_iter()
                .fold(0.0_f32, |a, b| if b > a || b.is_nan() { b } else { a });
            let first = (tile * blocks + block) * width;
            // SAFETY: row `t` has these places in each buffer, by `begin`; nobody else writes there.
            unsafe {
                let planes = self
                    .planes
                    .as_ptr()
                    .cast_mut()
                    .wrapping_add(2 * BLOCK * first);
                let halves = self.halves.as_ptr().cast_mut().wrapping_add(BLOCK * first);
                let meta = round(&v, largest, |j, q| {
                    if needs.planes {
                        let at = 4 * (j * width + lane);
                        planes
                            .add(at)
                            .cast::<[i8; 4]>()
                            .write_unaligned(q.map(|q| ((q + 128) >> 8) as i8));
                        planes
                            .add(BLOCK * width + at)
                            .cast::<[i8; 4]>()
                            .write_unaligned(q.map(|q| q as i8));
                    }
                    if needs.halves {
                        let [a, b, c, d] = q.map(|q| q as i16);
                        let at = 2 * (2 * j * width + lane);
                        halves.add(at).cast::<[i16; 2]>().write_unaligned([a, b]);
                        halves
                            .add(2 * width + at)
                            .cast::<[i16; 2]>()
                            .write_unaligned([c, d]);
                    }
                });
                *self.meta.as_ptr().cast_mut().add(first + lane) = meta;
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
            planes: self.planes.as_ptr().cast::<u8>().wrapping_add(2 * values),
            halves: self.halves.as_ptr().cast::<u8>().wrapping_add(2 * values),
            meta: self
                .meta
                .as_ptr()
                .cast::<u8>()
                .wrapping_add(16 * (values / BLOCK)),
            floats: self.floats.as_ptr().cast::<u8>().wrapping_add(4 * values),
        }
    }
}

/// The largest activation of 16 bits: what 8 bits hold exactly, 16 do too, and a block's products with bytes fit an i32.
/// As two bytes, the first is at most 127 and the second at least -128.
const MOST: f32 = 127.0 * 256.0;

/// Rounds a block whose largest magnitude is `largest` to integers of at most [`MOST`], four at a time, to `put`;
/// returns its `meta`.
#[inline(always)]
fn round(v: &[V; 8], largest: f32, mut put: impl FnMut(usize, [i32; 4])) -> [f32; 4] {
    // A block this small is a block of zeros.
    let (d, inverse) = if largest < 1e-30 {
        (0.0, 0.0)
    } else {
        (largest / MOST, MOST / largest)
    };
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
