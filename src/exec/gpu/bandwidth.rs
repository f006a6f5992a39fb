//! How fast the device's memory is, to compare kernels with.

use super::device::Gpu;
use crate::error::Result;
use web_time::Instant;

/// Bytes per copy: larger than any cache of a GPU.
const BYTES: u64 = 256 << 20;
/// Copies per measurement, so that submitting and waiting do not count.
const COPIES: u32 = 8;
/// Measurements, of which the best is taken.
const TRIALS: u32 = 5;

impl Gpu {
    /// Bytes read and written per second by copying a large buffer to another, at best. Takes half a GB of the device's
    /// memory while it runs.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::DeviceLost`](crate::error::ErrorKind::DeviceLost) where the device fails.
    pub async fn copy_bandwidth(&self) -> Result<f64> {
        let size = BYTES.min(self.capabilities().max_buffer);
        let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let (from, to) = (
            self.buffer("bandwidth from", size, usage)?,
            self.buffer("bandwidth to", size, usage)?,
        );
        let mut best = f64::INFINITY;
        // The first clears the buffers, and is not counted.
        for trial in 0..=TRIALS {
            let mut encoder = self
                .device
                .create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            for _ in 0..COPIES {
                encoder.copy_buffer_to_buffer(&from, 0, &to, 0, size);
            }
            let start = Instant::now();
            self.queue.submit([encoder.finish()]);
            self.idle().await?;
            if trial > 0 {
                best = best.min(start.elapsed().as_secs_f64());
            }
        }
        Ok(2.0 * (size * u64::from(COPIES)) as f64 / best)
    }
}
