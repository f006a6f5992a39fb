//! The few operations on 16-byte vectors that the kernels are written in: WebAssembly SIMD in a browser, plain Rust
//! (which compilers turn into the vector instructions of the machine) natively.
//!
//! Lanes are little-endian. Names: `f` on four f32, `i` on four i32, `h` on eight i16, `b` on sixteen bytes.
//!
//! # Safety
//!
//! Loads and stores take any address, aligned or not; the caller answers for the bytes there.

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod arch {
    use core::arch::wasm32::*;

    pub use core::arch::wasm32::v128 as V;

    #[inline(always)]
    pub unsafe fn load(at: *const u8) -> V {
        unsafe { v128_load(at.cast()) }
    }
    #[inline(always)]
    pub unsafe fn store(at: *mut u8, v: V) {
        unsafe { v128_store(at.cast(), v) }
    }
    /// Four bytes in every lane.
    #[inline(always)]
    pub unsafe fn load_splat(at: *const u8) -> V {
        unsafe { v128_load32_splat(at.cast()) }
    }
    /// Four bytes, then zeros.
    #[inline(always)]
    pub unsafe fn load4(at: *const u8) -> V {
        unsafe { v128_load32_zero(at.cast()) }
    }
    /// Eight bytes, then zeros.
    #[inline(always)]
    pub unsafe fn load8(at: *const u8) -> V {
        unsafe { v128_load64_zero(at.cast()) }
    }
    #[inline(always)]
    pub fn f_splat(x: f32) -> V {
        f32x4_splat(x)
    }
    #[inline(always)]
    pub fn i_splat(x: i32) -> V {
        i32x4_splat(x)
    }
    #[inline(always)]
    pub fn b_splat(x: u8) -> V {
        u8x16_splat(x)
    }
    #[inline(always)]
    pub fn f_add(a: V, b: V) -> V {
        f32x4_add(a, b)
    }
    #[inline(always)]
    pub fn f_sub(a: V, b: V) -> V {
        f32x4_sub(a, b)
    }
    #[inline(always)]
    pub fn f_mul(a: V, b: V) -> V {
        f32x4_mul(a, b)
    }
    #[inline(always)]
    pub fn f_div(a: V, b: V) -> V {
        f32x4_div(a, b)
    }
    /// The larger; NaN if either is.
    #[inline(always)]
    pub fn f_max(a: V, b: V) -> V {
        f32x4_max(a, b)
    }
    #[inline(always)]
    pub fn f_min(a: V, b: V) -> V {
        f32x4_min(a, b)
    }
    #[inline(always)]
    pub fn f_abs(a: V) -> V {
        f32x4_abs(a)
    }
    /// `a b + c`
    #[cfg(target_feature = "relaxed-simd")]
    #[inline(always)]
    pub fn madd(a: V, b: V, c: V) -> V {
        f32x4_relaxed_madd(a, b, c)
    }
    /// `a b + c`
    #[cfg(not(target_feature = "relaxed-simd"))]
    #[inline(always)]
    pub fn madd(a: V, b: V, c: V) -> V {
        f32x4_add(f32x4_mul(a, b), c)
    }
    /// Nearest, halves to even.
    #[inline(always)]
    pub fn f_round(a: V) -> V {
        f32x4_nearest(a)
    }
    #[inline(always)]
    pub fn f_to_i(a: V) -> V {
        i32x4_trunc_sat_f32x4(a)
    }
    #[inline(always)]
    pub fn i_to_f(a: V) -> V {
        f32x4_convert_i32x4(a)
    }
    #[inline(always)]
    pub fn i_add(a: V, b: V) -> V {
        i32x4_add(a, b)
    }
    #[inline(always)]
    pub fn i_max(a: V, b: V) -> V {
        i32x4_max(a, b)
    }
    #[inline(always)]
    pub fn i_shl<const N: u32>(a: V) -> V {
        i32x4_shl(a, N)
    }
    /// Shifts in zeros.
    #[inline(always)]
    pub fn i_shr<const N: u32>(a: V) -> V {
        u32x4_shr(a, N)
    }
    #[cfg(target_feature = "relaxed-simd")]
    #[inline(always)]
    pub fn h_add(a: V, b: V) -> V {
        i16x8_add(a, b)
    }
    #[inline(always)]
    pub fn h_shl(a: V, n: u32) -> V {
        i16x8_shl(a, n)
    }
    /// Shifts in zeros.
    #[inline(always)]
    pub fn h_shr(a: V, n: u32) -> V {
        u16x8_shr(a, n)
    }
    #[inline(always)]
    pub fn and(a: V, b: V) -> V {
        v128_and(a, b)
    }
    #[inline(always)]
    pub fn or(a: V, b: V) -> V {
        v128_or(a, b)
    }
    /// Sums of products of adjacent i16: four i32.
    #[inline(always)]
    pub fn h_dot(a: V, b: V) -> V {
        i32x4_dot_i16x8(a, b)
    }
    /// Sums of products of adjacent bytes, `a` signed and `b` of at most 7 bits: eight i16, which must not overflow.
    #[cfg(target_feature = "relaxed-simd")]
    #[inline(always)]
    pub fn b_dot(a: V, b: V) -> V {
        i16x8_relaxed_dot_i8x16_i7x16(a, b)
    }
    /// Sums of adjacent i16: four i32.
    #[cfg(target_feature = "relaxed-simd")]
    #[inline(always)]
    pub fn h_pairs(a: V) -> V {
        i32x4_extadd_pairwise_i16x8(a)
    }
    /// The low eight signed bytes as i16.
    #[inline(always)]
    pub fn b_low(a: V) -> V {
        i16x8_extend_low_i8x16(a)
    }
    /// The high eight signed bytes as i16.
    #[inline(always)]
    pub fn b_high(a: V) -> V {
        i16x8_extend_high_i8x16(a)
    }
    /// The low four i16 as i32.
    #[inline(always)]
    pub fn h_low(a: V) -> V {
        i32x4_extend_low_i16x8(a)
    }
    /// The low four bytes, signed, as i32.
    #[inline(always)]
    pub fn b_to_i(a: V) -> V {
        i32x4_extend_low_i16x8(i16x8_extend_low_i8x16(a))
    }
    /// The low four bytes, unsigned, as i32.
    #[inline(always)]
    pub fn u_to_i(a: V) -> V {
        u32x4_extend_low_u16x8(u16x8_extend_low_u8x16(a))
    }
    /// The low four u16 as i32.
    #[inline(always)]
    pub fn w_to_i(a: V) -> V {
        u32x4_extend_low_u16x8(a)
    }
    /// Bytes of `table` by index; indices are below 16.
    #[inline(always)]
    pub fn b_look_up(table: V, index: V) -> V {
        i8x16_swizzle(table, index)
    }
    #[inline(always)]
    pub fn to_f32(v: V) -> [f32; 4] {
        [
            f32x4_extract_lane::<0>(v),
            f32x4_extract_lane::<1>(v),
            f32x4_extract_lane::<2>(v),
            f32x4_extract_lane::<3>(v),
        ]
    }
    #[inline(always)]
    pub fn to_i32(v: V) -> [i32; 4] {
        [
            i32x4_extract_lane::<0>(v),
            i32x4_extract_lane::<1>(v),
            i32x4_extract_lane::<2>(v),
            i32x4_extract_lane::<3>(v),
        ]
    }
    #[inline(always)]
    pub fn from_bytes(b: [u8; 16]) -> V {
        unsafe { v128_load(b.as_ptr().cast()) }
    }
    #[inline(always)]
    pub fn to_bytes(v: V) -> [u8; 16] {
        let mut out = [0; 16];
        unsafe { v128_store(out.as_mut_ptr().cast(), v) };
        out
    }
}

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod arch {
    #[derive(Copy, Clone)]
    #[repr(align(16))]
    pub struct V([u8; 16]);

    fn f(v: V) -> [f32; 4] {
        bytemuck::cast(v.0)
    }
    fn i(v: V) -> [i32; 4] {
        bytemuck::cast(v.0)
    }
    fn u(v: V) -> [u32; 4] {
        bytemuck::cast(v.0)
    }
    fn h(v: V) -> [i16; 8] {
        bytemuck::cast(v.0)
    }
    fn w(v: V) -> [u16; 8] {
        bytemuck::cast(v.0)
    }
    fn b(v: V) -> [i8; 16] {
        bytemuck::cast(v.0)
    }
    fn v<T: bytemuck::Pod>(x: T) -> V {
        V(bytemuck::cast(x))
    }
    #[inline(always)]
    fn each<T: Copy, const N: usize>(a: [T; N], b: [T; N], op: impl Fn(T, T) -> T) -> [T; N] {
        std::array::from_fn(|i| op(a[i], b[i]))
    }

    #[inline(always)]
    pub unsafe fn load(at: *const u8) -> V {
        V(unsafe { at.cast::<[u8; 16]>().read_unaligned() })
    }
    #[inline(always)]
    pub unsafe fn store(at: *mut u8, x: V) {
        unsafe { at.cast::<[u8; 16]>().write_unaligned(x.0) }
    }
    #[inline(always)]
    pub unsafe fn load_splat(at: *const u8) -> V {
        v([unsafe { at.cast::<u32>().read_unaligned() }; 4])
    }
    #[inline(always)]
    pub unsafe fn load4(at: *const u8) -> V {
        v([unsafe { at.cast::<u32>().read_unaligned() }, 0, 0, 0])
    }
    #[inline(always)]
    pub unsafe fn load8(at: *const u8) -> V {
        v([unsafe { at.cast::<u64>().read_unaligned() }, 0])
    }
    #[inline(always)]
    pub fn f_splat(x: f32) -> V {
        v([x; 4])
    }
    #[inline(always)]
    pub fn i_splat(x: i32) -> V {
        v([x; 4])
    }
    #[inline(always)]
    pub fn b_splat(x: u8) -> V {
        V([x; 16])
    }
    #[inline(always)]
    pub fn f_add(a: V, b: V) -> V {
        v(each(f(a), f(b), |a, b| a + b))
    }
    #[inline(always)]
    pub fn f_sub(a: V, b: V) -> V {
        v(each(f(a), f(b), |a, b| a - b))
    }
    #[inline(always)]
    pub fn f_mul(a: V, b: V) -> V {
        v(each(f(a), f(b), |a, b| a * b))
    }
    #[inline(always)]
    pub fn f_div(a: V, b: V) -> V {
        v(each(f(a), f(b), |a, b| a / b))
    }
    #[inline(always)]
    pub fn f_max(a: V, b: V) -> V {
        v(each(
            f(a),
            f(b),
            |a, b| if a > b || a.is_nan() { a } else { b },
        ))
    }
    #[inline(always)]
    pub fn f_min(a: V, b: V) -> V {
        v(each(
            f(a),
            f(b),
            |a, b| if a < b || a.is_nan() { a } else { b },
        ))
    }
    #[inline(always)]
    pub fn f_abs(a: V) -> V {
        v(f(a).map(f32::abs))
    }
    #[inline(always)]
    pub fn madd(a: V, b: V, c: V) -> V {
        f_add(f_mul(a, b), c)
    }
    #[inline(always)]
    pub fn f_round(a: V) -> V {
        v(f(a).map(f32::round_ties_even))
    }
    #[inline(always)]
    pub fn f_to_i(a: V) -> V {
        v(f(a).map(|x| x as i32))
    }
    #[inline(always)]
    pub fn i_to_f(a: V) -> V {
        v(i(a).map(|x| x as f32))
    }
    #[inline(always)]
    pub fn i_add(a: V, b: V) -> V {
        v(each(i(a), i(b), i32::wrapping_add))
    }
    #[inline(always)]
    pub fn i_max(a: V, b: V) -> V {
        v(each(i(a), i(b), i32::max))
    }
    #[inline(always)]
    pub fn i_shl<const N: u32>(a: V) -> V {
        v(u(a).map(|x| x << N))
    }
    #[inline(always)]
    pub fn i_shr<const N: u32>(a: V) -> V {
        v(u(a).map(|x| x >> N))
    }
    #[inline(always)]
    pub fn h_shl(a: V, n: u32) -> V {
        v(w(a).map(|x| x << n))
    }
    #[inline(always)]
    pub fn h_shr(a: V, n: u32) -> V {
        v(w(a).map(|x| x >> n))
    }
    #[inline(always)]
    pub fn and(a: V, b: V) -> V {
        v(each(u(a), u(b), |a, b| a & b))
    }
    #[inline(always)]
    pub fn or(a: V, b: V) -> V {
        v(each(u(a), u(b), |a, b| a | b))
    }
    #[inline(always)]
    pub fn h_dot(a: V, b: V) -> V {
        let (a, b) = (h(a), h(b));
        let product = |i: usize| i32::from(a[i]) * i32::from(b[i]);
        v([
            product(0).wrapping_add(product(1)),
            product(2).wrapping_add(product(3)),
            product(4).wrapping_add(product(5)),
            product(6).wrapping_add(product(7)),
        ])
    }
    #[inline(always)]
    pub fn b_low(a: V) -> V {
        let a = b(a);
        v(std::array::from_fn::<i16, 8, _>(|i| i16::from(a[i])))
    }
    #[inline(always)]
    pub fn b_high(a: V) -> V {
        let a = b(a);
        v(std::array::from_fn::<i16, 8, _>(|i| i16::from(a[i + 8])))
    }
    #[inline(always)]
    pub fn h_low(a: V) -> V {
        let a = h(a);
        v(std::array::from_fn::<i32, 4, _>(|i| i32::from(a[i])))
    }
    #[inline(always)]
    pub fn b_to_i(a: V) -> V {
        let a = b(a);
        v(std::array::from_fn::<i32, 4, _>(|i| i32::from(a[i])))
    }
    #[inline(always)]
    pub fn u_to_i(a: V) -> V {
        v(std::array::from_fn::<u32, 4, _>(|i| u32::from(a.0[i])))
    }
    #[inline(always)]
    pub fn w_to_i(a: V) -> V {
        let a = w(a);
        v(std::array::from_fn::<u32, 4, _>(|i| u32::from(a[i])))
    }
    #[inline(always)]
    pub fn b_look_up(table: V, index: V) -> V {
        V(index.0.map(|i| table.0[usize::from(i & 15)]))
    }
    #[inline(always)]
    pub fn to_f32(a: V) -> [f32; 4] {
        f(a)
    }
    #[inline(always)]
    pub fn to_i32(a: V) -> [i32; 4] {
        i(a)
    }
    #[inline(always)]
    pub fn from_bytes(bytes: [u8; 16]) -> V {
        V(bytes)
    }
    #[inline(always)]
    pub fn to_bytes(a: V) -> [u8; 16] {
        a.0
    }
}

pub use arch::*;

/// Whether products of bytes are summed by relaxed SIMD; decides how some weights are laid out.
pub const RELAXED: bool = cfg!(all(target_arch = "wasm32", target_feature = "relaxed-simd"));

#[inline(always)]
pub fn zero() -> V {
    i_splat(0)
}

/// The four lanes' sum.
#[inline(always)]
pub fn f_sum(a: V) -> f32 {
    let [a, b, c, d] = to_f32(a);
    (a + b) + (c + d)
}

/// The low four f16 (all finite) as f32: exact.
#[inline(always)]
pub fn f16_to_f32(a: V) -> V {
    // Sign, exponent and mantissa in their places; the exponent's bias is off by 112, which a product mends.
    let bits = and(i_shl::<13>(h_low(a)), i_splat(0x8fff_ffff_u32 as i32));
    f_mul(bits, f_splat(f32::from_bits((127 + 112) << 23)))
}

/// `e^x` for `x <= 0` within a few units in the last place; below -87 what it is there, 1.6e-38.
///
/// `e^x = 2^n e^r` with `n = round(x / ln 2)`; `e^r`, `|r| <= ln 2 / 2`, is its Taylor polynomial of degree 7.
#[inline(always)]
pub fn exp(x: V) -> V {
    let x = f_max(x, f_splat(-87.0));
    let n = f_round(f_mul(x, f_splat(std::f32::consts::LOG2_E)));
    // ln 2 in two parts, the first of which has few bits: the product with n is exact.
    let r = madd(n, f_splat(-0.693_359_4), x);
    let r = madd(n, f_splat(2.121_944_4e-4), r);
    let mut p = f_splat(1.0 / 5040.0);
    for c in [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        p = madd(p, r, f_splat(c));
    }
    let power = i_shl::<23>(i_add(f_to_i(n), i_splat(127)));
    f_mul(p, power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_widened_exactly() {
        for bits in 0..=u16::MAX {
            let want = half::f16::from_bits(bits);
            if want.is_finite() {
                let mut bytes = [0; 16];
                bytes[2..4].copy_from_slice(&bits.to_le_bytes());
                let got = to_f32(f16_to_f32(from_bytes(bytes)));
                assert_eq!(
                    got.map(f32::to_bits),
                    [0, want.to_f32().to_bits(), 0, 0],
                    "{bits:#x}"
                );
            }
        }
    }

    #[test]
    fn exponentials_are_close() {
        for i in 0..87_000 {
            let x = i as f32 * -1e-3;
            let got = to_f32(exp(f_splat(x)))[0];
            let want = f64::from(x).exp();
            assert!(
                (f64::from(got) / want - 1.0).abs() < 3e-7,
                "{x}: {got}, {want}"
            );
        }
        assert_eq!(to_f32(exp(f_splat(0.0))), [1.0; 4]);
        assert!(to_f32(exp(f_splat(f32::NEG_INFINITY)))[0] < 1e-37);
        assert!(to_f32(exp(f_splat(f32::NAN)))[0].is_nan());
    }
}
