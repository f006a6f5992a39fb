//! How each weight type is multiplied: one file per type, and what picks among them.
//!
//! (A module named `f32` hides the type of that name, so this file has nothing else.)

use super::matmul::Kernels;
use crate::quant::{DType, with_weight_types};

macro_rules! modules {
    // A type with kernels of its own has its module here.
    (@module own $module:ident) => { mod $module; };
    (@module int8 $module:ident) => {};
    (@kernels own $module:ident) => { $module::KERNELS };
    (@kernels int8 $module:ident) => { int8::KERNELS };
    ($($(#[$doc:meta])* $dtype:ident $module:ident $kernels:ident;)*) => {
        $(modules!(@module $kernels $module);)*

        /// The kernels of a type.
        pub(super) fn kernels_of(dtype: DType) -> &'static Kernels {
            match dtype {
                $(DType::$dtype => { const K: Kernels = modules!(@kernels $kernels $module); &K })*
            }
        }
    };
}

pub(super) mod int8;
with_weight_types!(modules);
