//! What the engine knows of GPUs in a build without the feature `gpu`: there is none.

use crate::error::Result;

/// A GPU; there is no value of this type.
#[derive(Clone, Copy, Debug)]
pub enum Gpu {}

impl Gpu {
    /// Bytes per second of copies.
    ///
    /// # Errors
    ///
    /// None: there is no GPU to ask.
    pub async fn copy_bandwidth(&self) -> Result<f64> {
        match *self {}
    }
}
