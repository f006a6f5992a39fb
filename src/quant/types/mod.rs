//! The weight types: one file each, and the list of them.
//!
//! (A module named `f32` hides the type of that name, so this file has nothing else.)

/// Calls a macro with every weight type: its [`DType`](super::DType), its module, and which kernels read it: `own` ones
/// (`shaders/weights/MODULE.wgsl`, `exec/cpu/kernels/MODULE.rs`) or those of the form `int8`.
macro_rules! with_weight_types {
    ($callback:ident) => {
        $callback! {
            /// IEEE 754 single precision.
            F32 f32 own;
            /// IEEE 754 half precision.
            F16 f16 own;
            /// The upper half of an `f32`.
            BF16 bf16 own;
            /// 32 x 4 bits, f16 scale.
            Q4_0 q4_0 own;
            /// 32 x 4 bits, f16 scale and minimum.
            Q4_1 q4_1 own;
            /// 32 x 5 bits, f16 scale.
            Q5_0 q5_0 own;
            /// 32 x 5 bits, f16 scale and minimum.
            Q5_1 q5_1 own;
            /// 32 x 8 bits, f16 scale.
            Q8_0 q8_0 own;
            /// 256 x 2 bits in groups of 16, with 4-bit scales and minima.
            Q2_K q2_k own;
            /// 256 x 3 bits in groups of 16, with 6-bit scales.
            Q3_K q3_k own;
            /// 256 x 4 bits in groups of 32, with 6-bit scales and minima.
            Q4_K q4_k own;
            /// 256 x 5 bits in groups of 32, with 6-bit scales and minima.
            Q5_K q5_k own;
            /// 256 x 6 bits in groups of 16, with 8-bit scales.
            Q6_K q6_k own;
            /// 1.56 bits per weight: groups of 8 from a codebook of 2048 ternary vectors.
            IQ1_S iq1_s int8;
            /// 1.75 bits per weight: as `IQ1_S` with finer scales.
            IQ1_M iq1_m int8;
            /// 2.06 bits per weight: groups of 8 from a codebook of 256, plus signs.
            IQ2_XXS iq2_xxs int8;
            /// 2.31 bits per weight: a codebook of 512.
            IQ2_XS iq2_xs int8;
            /// 2.5 bits per weight: a codebook of 1024, with explicit signs.
            IQ2_S iq2_s int8;
            /// 3.06 bits per weight: groups of 4 from a codebook of 256.
            IQ3_XXS iq3_xxs int8;
            /// 3.44 bits per weight: a codebook of 512, with explicit signs.
            IQ3_S iq3_s int8;
            /// 32 x 4 bits that index a table of 16 levels, f16 scale.
            IQ4_NL iq4_nl own;
            /// 256 x the levels of `IQ4_NL`, in groups of 32 with 6-bit scales.
            IQ4_XS iq4_xs own;
            /// 1.69 bits per weight: five ternary digits in a byte.
            TQ1_0 tq1_0 int8;
            /// 2.06 bits per weight: ternary digits of 2 bits.
            TQ2_0 tq2_0 int8;
            /// 32 x E2M1 with one power-of-two scale (OCP Microscaling 1.0).
            MXFP4 mxfp4 own;
            /// 64 x E2M1 in groups of 16, each with an unsigned E4M3 scale.
            NVFP4 nvfp4 int8;
        }
    };
}

macro_rules! modules {
    ($($(#[$doc:meta])* $dtype:ident $module:ident $kernels:ident;)*) => {
        $(mod $module;)*

        /// Every type, in the order of the list.
        pub(super) static ALL: &[super::blocks::WeightType] = &[$($module::TYPE),*];
    };
}

with_weight_types!(modules);
pub(crate) use with_weight_types;
