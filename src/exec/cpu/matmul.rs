//! Matrices and their products: bands of four rows times tiles of one or [`TILE`] columns.
//!
//! For each block of 32 columns the products of small integers are summed in integers, exactly; the sums are then scaled
//! and added up in f32. Four rows are the four lanes, so that nothing is ever summed across a vector.

use super::formats::{BLOCK, Format, ROWS, pack_row, relaxed, unit_row};
use super::input::{Input, Needs, TILE, Tile};
use super::kernels::{int8, kernels_of};
#[allow(
    clippy::wildcard_imports,
    reason = "builds with and without relaxed SIMD use different functions"
)]
use super::simd::*;
use crate::error::{Error, ErrorKind, Result};
use crate::quant::{DType, Int8Groups};

/// Adds a band's product with a tile: `weights` is the band, `units` its units.
type BandKernel = unsafe fn(weights: *const u8, units: usize, x: &Tile, out: &mut [V; TILE]);

/// The kernels of a format, and how it is laid out.
pub(super) struct Kernels {
    one: BandKernel,
    many: BandKernel,
    row: unsafe fn(*const u8, usize, &mut [f32]),
    /// Writes a stored row, of blocks of so many bytes, into a row of a band. `false`: it holds what is no number.
    pack: fn(stored: &[u8], block_bytes: usize, band: &mut [u8], r: usize) -> bool,
    unit_bytes: usize,
    unit_cols: usize,
    needs: Needs,
    /// A matrix is kept as it is stored, and takes the form that these read a band at a time, as it is used.
    expanded: bool,
}

impl Kernels {
    /// For matrices that are kept as they are stored.
    pub(super) const fn expanded(mut self) -> Self {
        self.expanded = true;
        self
    }
}

pub(super) const fn kernels<F: Format>() -> Kernels {
    Kernels {
        one: band::<F, 1>,
        many: band::<F, TILE>,
        row: unit_row::<F>,
        pack: pack_row::<F>,
        unit_bytes: F::BYTES,
        unit_cols: F::BLOCKS * BLOCK,
        needs: Needs {
            planes: relaxed::<F>(),
            halves: !relaxed::<F>(),
            floats: false,
        },
        expanded: false,
    }
}

pub(super) const fn float_kernels<F: Floats>() -> Kernels {
    Kernels {
        one: float_band::<F, 1, 4>,
        many: float_band::<F, TILE, 2>,
        row: float_row::<F>,
        pack: pack_floats::<F>,
        unit_bytes: F::BYTES,
        unit_cols: 1,
        needs: Needs {
            planes: false,
            halves: false,
            floats: true,
        },
        expanded: false,
    }
}

/// A weight matrix `[stack * rows, cols]` in the form that the kernels read. Bands do not reach from one of the stacked
/// matrices into the next.
pub struct Matrix {
    dtype: DType,
    /// Rows of each of the stacked matrices.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Bytes of a band.
    band: usize,
    bytes: Vec<u8>,
}

/// What a thread needs to expand bands.
#[derive(Default)]
pub struct Scratch {
    groups: Option<Int8Groups>,
    band: Vec<u8>,
}

impl Matrix {
    /// Bytes that a matrix takes; see [`Matrix::new`]. `None` on overflow.
    pub fn size(dtype: DType, stack: u64, rows: u64, cols: u64) -> Option<u64> {
        let band = if kernels_of(dtype).expanded {
            dtype.row_bytes(cols)?.checked_mul(ROWS as u64)?
        } else {
            let kernels = kernels_of(dtype);
            (cols / kernels.unit_cols as u64).checked_mul(kernels.unit_bytes as u64)?
        };
        stack
            .checked_mul(rows.div_ceil(ROWS as u64))?
            .checked_mul(band)
    }

    /// Zeros: `stack` matrices `[rows, cols]`.
    ///
    /// # Errors
    /// `ModelTooLarge` where there is no memory for it.
    pub fn new(dtype: DType, stack: u64, rows: u64, cols: u64) -> Result<Self> {
        let size = Self::size(dtype, stack, rows, cols).and_then(|n| usize::try_from(n).ok());
        let mut bytes = Vec::new();
        size.and_then(|n| bytes.try_reserve_exact(n).ok().map(|()| bytes.resize(n, 0)))
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::ModelTooLarge,
                    format!("no memory for a matrix of {rows} rows and {cols} columns"),
                )
            })?;
        let bands = stack * rows.div_ceil(ROWS as u64);
        let band = if bands == 0 {
            0
        } else {
            bytes.len() / bands as usize
        };
        Ok(Self {
            dtype,
            rows: rows as usize,
            cols: cols as usize,
            band,
            bytes,
        })
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// What it is multiplied with.
    pub fn needs(&self) -> Needs {
        kernels_of(self.dtype).needs
    }

    /// Bands of each of the stacked matrices.
    pub fn bands(&self) -> usize {
        self.rows.div_ceil(ROWS)
    }

    /// Stores stacked row `row` from its stored bytes.
    ///
    /// # Errors
    /// `InvalidFile` where a scale is infinite or not a number.
    pub fn set_row(&mut self, row: usize, stored: &[u8]) -> Result<()> {
        let (matrix, row) = (row / self.rows, row % self.rows);
        let (index, r) = (matrix * self.bands() + row / ROWS, row % ROWS);
        let band = self
            .bytes
            .get_mut(index * self.band..(index + 1) * self.band)
            .ok_or_else(|| Error::internal("rows beyond the tensor"))?;
        let kernels = kernels_of(self.dtype);
        if kernels.expanded {
            band[r * stored.len()..][..stored.len()].copy_from_slice(stored);
        } else if !(kernels.pack)(stored, self.dtype.block_bytes(), band, r) {
            return Err(Error::new(
                ErrorKind::InvalidFile,
                "holds weights that are infinite or not numbers; the file is broken, download it again",
            ));
        }
        Ok(())
    }

    /// Dequantises stacked row `row` into `out` (`[cols]`).
    pub fn row(&self, row: usize, out: &mut [f32]) -> Result<()> {
        let (matrix, row) = (row / self.rows, row % self.rows);
        let (index, r) = (matrix * self.bands() + row / ROWS, row % ROWS);
        let band = self
            .bytes
            .get(index * self.band..(index + 1) * self.band)
            .ok_or_else(|| Error::internal("a row beyond the tensor"))?;
        if kernels_of(self.dtype).expanded {
            return self
                .dtype
                .dequantize(&band[r * self.band / ROWS..][..self.band / ROWS], out);
        }
        let kernels = kernels_of(self.dtype);
        for (unit, out) in band
            .chunks_exact(kernels.unit_bytes)
            .zip(out.chunks_exact_mut(kernels.unit_cols))
        {
            // SAFETY: a whole unit.
            unsafe { (kernels.row)(unit.as_ptr(), r, out) };
        }
        Ok(())
    }

    /// `out[t, row] = W[row] x[t]` for the rows of `bands` of stacked matrix `matrix`.
    ///
    /// # Safety
    /// `input` is filled with what [`Matrix::needs`]; `out` is `[T, stride]` with `stride >= rows`, and nobody else
    /// touches these rows' values of it.
    pub unsafe fn multiply(
        &self,
        matrix: usize,
        bands: std::ops::Range<usize>,
        input: &Input,
        out: *mut f32,
        stride: usize,
        scratch: &mut Scratch,
    ) {
        assert!(
            bands.end <= self.bands() && input.cols == self.cols && stride >= self.rows,
            "an input or output of another shape than the matrix"
        );
        let kernels = kernels_of(self.dtype);
        let units = self.cols / kernels.unit_cols;
        let kernel = if input.width == 1 {
            kernels.one
        } else {
            kernels.many
        };
        for index in bands {
            let at = (matrix * self.bands() + index) * self.band;
            let stored = &self.bytes[at..at + self.band];
            let band = if kernels_of(self.dtype).expanded {
                self.expand(stored, scratch)
            } else {
                stored
            };
            let rows = ROWS.min(self.rows - index * ROWS);
            for tile in 0..input.tiles() {
                let mut sums = [zero(); TILE];
                // SAFETY: the band has `units` units, and so has the tile.
                unsafe { kernel(band.as_ptr(), units, &input.tile(tile), &mut sums) };
                let first = tile * input.width;
                for (c, sum) in sums
                    .into_iter()
                    .enumerate()
                    .take(input.width.min(input.rows - first))
                {
                    // SAFETY: within `out`, by the caller's word.
                    unsafe {
                        let at = out.add((first + c) * stride + index * ROWS);
                        if rows == ROWS {
                            store(at.cast(), sum);
                        } else {
                            for (r, y) in to_f32(sum).into_iter().enumerate().take(rows) {
                                *at.add(r) = y;
                            }
                        }
                    }
                }
            }
        }
    }

    /// A stored band in the form that [`int8`]'s kernels read.
    fn expand<'a>(&self, stored: &[u8], scratch: &'a mut Scratch) -> &'a [u8] {
        let Scratch { groups, band } = scratch;
        if groups.as_ref().is_none_or(|g| g.levels.len() != self.cols) {
            *groups = None;
        }
        let groups = groups.get_or_insert_with(|| Int8Groups::new(self.cols));
        band.resize(int8::expanded_bytes(self.cols), 0);
        int8::expand(self.dtype, stored, groups, band);
        band
    }
}

/// Sums of products of `vectors` vectors of four columns: small unsigned weights times i8, as bytes.
#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
#[inline(always)]
unsafe fn dot_bytes<F: Format, const N: usize>(
    q: &[V; 8],
    vectors: std::ops::Range<usize>,
    x: *const u8,
) -> [V; N] {
    // Sums of this many fit an i16: 2 * 128 * (2^bits - 1) * n < 2^15.
    let most = match F::BITS {
        ..=4 => 8,
        5 => 4,
        _ => 2,
    };
    let mut sums = [zero(); N];
    let mut j = vectors.start;
    while j < vectors.end {
        let mut part = [zero(); N];
        for (c, part) in part.iter_mut().enumerate() {
            *part = b_dot(unsafe { load_splat(x.add((j * N + c) * 4)) }, q[j]);
        }
        for i in j + 1..(j + most).min(vectors.end) {
            for (c, part) in part.iter_mut().enumerate() {
                *part = h_add(
                    *part,
                    b_dot(unsafe { load_splat(x.add((i * N + c) * 4)) }, q[i]),
                );
            }
        }
        for (sum, part) in sums.iter_mut().zip(part) {
            *sum = i_add(*sum, h_pairs(part));
        }
        j += most;
    }
    sums
}

/// As [`dot_bytes`], for any weights of 8 bits, as i16.
#[inline(always)]
unsafe fn dot_halves<const N: usize>(
    q: &[V; 8],
    vectors: std::ops::Range<usize>,
    x: *const u8,
) -> [V; N] {
    let mut sums = [zero(); N];
    for j in vectors {
        let (low, high) = (b_low(q[j]), b_high(q[j]));
        for (c, sum) in sums.iter_mut().enumerate() {
            let first = unsafe { load_splat(x.add((2 * j * N + c) * 4)) };
            *sum = i_add(*sum, h_dot(low, first));
        }
        for (c, sum) in sums.iter_mut().enumerate() {
            let second = unsafe { load_splat(x.add(((2 * j + 1) * N + c) * 4)) };
            *sum = i_add(*sum, h_dot(high, second));
        }
    }
    sums
}

unsafe fn band<F: Format, const N: usize>(
    weights: *const u8,
    units: usize,
    x: &Tile,
    out: &mut [V; TILE],
) {
    let mut sums = [zero(); N];
    let mut x16 = if relaxed::<F>() { x.planes } else { x.halves };
    let mut meta = x.meta;
    for unit in 0..units {
        // SAFETY: the band has this unit, the tile its columns.
        unsafe {
            let unit = weights.add(unit * F::BYTES);
            let shared = F::scales(unit);
            for block in 0..F::BLOCKS {
                let q = F::quants(unit, block);
                for half in 0..if F::HALVES { 2 } else { 1 } {
                    let vectors = if F::HALVES {
                        4 * half..4 * half + 4
                    } else {
                        0..8
                    };
                    let products: [V; N] = products::<F, N>(&q, vectors, x16);
                    let (scale, min) = F::scale(
                        unit,
                        shared,
                        if F::HALVES { 2 * block + half } else { block },
                    );
                    let sum_at = if F::HALVES { 4 + 4 * half } else { 12 };
                    for (c, sum) in sums.iter_mut().enumerate() {
                        let d = load_splat(meta.add(16 * c));
                        *sum = madd(f_mul(i_to_f(products[c]), d), scale, *sum);
                        if F::MIN {
                            *sum = madd(load_splat(meta.add(16 * c + sum_at)), min, *sum);
                        }
                    }
                }
                x16 = x16.add(N * BLOCK * 2);
                meta = meta.add(N * 16);
            }
        }
    }
    out[..N].copy_from_slice(&sums);
}

/// Sums of products of the vectors `vectors` of a block with activations of 16 bits, which start at `x`.
#[inline(always)]
unsafe fn products<F: Format, const N: usize>(
    q: &[V; 8],
    vectors: std::ops::Range<usize>,
    x: *const u8,
) -> [V; N] {
    #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
    if relaxed::<F>() {
        return unsafe {
            let high = dot_bytes::<F, N>(q, vectors.clone(), x);
            let low = dot_bytes::<F, N>(q, vectors, x.add(N * BLOCK));
            std::array::from_fn(|c| i_add(i_shl::<8>(high[c]), low[c]))
        };
    }
    unsafe { dot_halves::<N>(q, vectors, x) }
}

/// A type of plain floats: `[K, 4]`, four rows of each column together.
pub(super) trait Floats {
    /// Bytes of four.
    const BYTES: usize;
    /// Reads four.
    ///
    /// # Safety
    /// `at` starts [`Floats::BYTES`] readable bytes.
    unsafe fn four(at: *const u8) -> V;
    /// Whether a stored value is one that a file may hold.
    fn finite(x: &[u8]) -> bool;
}

fn pack_floats<F: Floats>(stored: &[u8], bytes: usize, band: &mut [u8], r: usize) -> bool {
    let columns = band.chunks_exact_mut(F::BYTES);
    stored.chunks_exact(bytes).zip(columns).all(|(x, four)| {
        four[bytes * r..][..bytes].copy_from_slice(x);
        F::finite(x)
    })
}

/// `U` sums per column, so that additions need not wait for each other.
unsafe fn float_band<F: Floats, const N: usize, const U: usize>(
    weights: *const u8,
    cols: usize,
    x: &Tile,
    out: &mut [V; TILE],
) {
    let mut sums = [[f_splat(0.0); N]; U];
    // SAFETY: the band and the tile have `cols` columns.
    unsafe {
        let whole = cols / U * U;
        for k in (0..whole).step_by(U) {
            for (u, sums) in sums.iter_mut().enumerate() {
                let w = F::four(weights.add((k + u) * F::BYTES));
                for (c, sum) in sums.iter_mut().enumerate() {
                    *sum = madd(load_splat(x.floats.add(((k + u) * N + c) * 4)), w, *sum);
                }
            }
        }
        for k in whole..cols {
            let w = F::four(weights.add(k * F::BYTES));
            for (c, sum) in sums[0].iter_mut().enumerate() {
                *sum = madd(load_splat(x.floats.add((k * N + c) * 4)), w, *sum);
            }
        }
    }
    for c in 0..N {
        out[c] = sums[1..]
            .iter()
            .fold(sums[0][c], |sum, part| f_add(sum, part[c]));
    }
}

unsafe fn float_row<F: Floats>(unit: *const u8, r: usize, out: &mut [f32]) {
    out[0] = to_f32(unsafe { F::four(unit) })[r];
}
