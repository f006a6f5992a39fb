//! The device: adapter choice, limits, capabilities, and counters of everything that costs.

use super::lower::Tuning;
use super::pipelines::Pipelines;
use crate::error::{Error, ErrorKind, Result};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

/// What the adapter can do, as far as kernels are chosen by it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Capabilities {
    /// `subgroups` is enabled.
    pub subgroups: bool,
    /// Lines to put before every shader that uses subgroups (Chromium wants one, naga refuses it).
    pub subgroups_preamble: &'static str,
    /// `shader-f16` is enabled.
    pub shader_f16: bool,
    /// Largest storage binding.
    pub max_binding: u64,
    /// Largest buffer.
    pub max_buffer: u64,
    /// Adapter description.
    pub name: String,
    /// Vendor name.
    pub vendor: String,
    /// Architecture name.
    pub architecture: String,
    /// A software implementation.
    pub software: bool,
    /// Kernels can be timed, and are.
    pub timestamps: bool,
    /// Waiting for a result takes about 100 ms (Firefox polls), so many steps must be in flight.
    pub slow_await: bool,
}

impl Capabilities {
    /// Which kernels suit this adapter, where nobody asks for others.
    ///
    /// Integer dot products: measured faster on NVIDIA, AMD and Intel, slower on Apple (llama.cpp pull request 23594;
    /// ONNX Runtime chooses alike); their activations have 8 bits, so they are the default only there. Tiles of f16 round
    /// activations too, and what a GPU gains by them we have not measured, so they are nobody's default
    /// (`kernels: { f16: true }` asks for them). A software adapter compiles slowly and gains nothing from variants for
    /// a few rows.
    pub fn tuning(&self) -> Tuning {
        let vendor = self.vendor.to_lowercase();
        let is = |names: &[&str]| names.iter().any(|name| vendor == *name);
        let int8 = is(&["nvidia", "amd", "intel", "0x10de", "0x1002", "0x8086"]);
        let plain = self.software;
        Tuning {
            subgroups: self.subgroups,
            int8: int8 && !plain,
            columns: !plain,
            splits: !plain,
            ..Tuning::PLAIN
        }
    }
}

/// How often something happened since the device was made.
#[derive(Debug, Default)]
pub struct Counters {
    /// Steps.
    pub steps: Cell<u64>,
    /// Microseconds spent on encoding and submitting them.
    pub encode_micros: Cell<f64>,
    /// Kernel launches.
    pub dispatches: Cell<u64>,
    /// Compute passes.
    pub passes: Cell<u64>,
    /// Queue submissions.
    pub submits: Cell<u64>,
    /// Bind groups made.
    pub bind_groups: Cell<u64>,
    /// Pipelines made.
    pub pipelines: Cell<u64>,
    /// Buffers made.
    pub buffers: Cell<u64>,
    /// Buffer writes.
    pub writes: Cell<u64>,
    /// Bytes written to buffers.
    pub written_bytes: Cell<u64>,
    /// Bytes read back.
    pub read_bytes: Cell<u64>,
}

pub(super) fn add(counter: &Cell<u64>, n: u64) {
    counter.set(counter.get() + n);
}

/// A device and its queue. Cheap to clone.
#[derive(Clone)]
pub struct Gpu {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    capabilities: Rc<Capabilities>,
    counters: Rc<Counters>,
    pub(super) pipelines: Rc<RefCell<Pipelines>>,
    broken: Rc<RefCell<Vec<String>>>,
    /// First error that no one waited for, or the reason why the device is gone.
    failure: Arc<Mutex<Option<String>>>,
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpu").finish_non_exhaustive()
    }
}

/// Where a device's failure will be: its first error that no one waits for, or the reason why it is gone.
fn watch(device: &wgpu::Device) -> Arc<Mutex<Option<String>>> {
    let failure = Arc::new(Mutex::new(None));
    let note = |failure: &Arc<Mutex<Option<String>>>, message: String| {
        if let Ok(mut failure) = failure.lock() {
            failure.get_or_insert(message);
        }
    };
    let on_error = failure.clone();
    device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
        note(&on_error, error.to_string());
    }));
    let on_lost = failure.clone();
    device.set_device_lost_callback(move |reason, message| {
        // Dropping the device is no failure.
        if reason != wgpu::DeviceLostReason::Destroyed {
            note(&on_lost, format!("device lost: {message}"));
        }
    });
    failure
}

impl Gpu {
    /// The best adapter of this machine, with every limit and feature it offers that the kernels can use.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::WebGpuUnavailable`] where no adapter is found or it makes no device.
    pub async fn request() -> Result<Self> {
        Self::request_with(false).await
    }

    /// As [`Gpu::request`]; `profile`: one that can time kernels. Such a device is slower throughout (on Metal the bare
    /// request for timestamps costs up to two thirds of the decode speed), so it is for profiling alone.
    ///
    /// # Errors
    /// Also `Unsupported` where the adapter has no timestamps.
    pub async fn request_with(profile: bool) -> Result<Self> {
        #[cfg(target_arch = "wasm32")]
        super::web::check_available()?;
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let options = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..wgpu::RequestAdapterOptions::default()
        };
        let adapter = instance.request_adapter(&options).await.map_err(|e| {
            let error = Error::new(
                ErrorKind::WebGpuUnavailable,
                "no GPU adapter was found; enable WebGPU (and hardware acceleration) in the browser's settings, or update \
                 the graphics driver",
            );
            // In a browser wgpu knows no more than that, and says it at length.
            if cfg!(target_arch = "wasm32") { error } else { error.with_source(e.to_string()) }
        })?;
        let mut features = wgpu::Features::empty();
        for wanted in [wgpu::Features::SUBGROUP, wgpu::Features::SHADER_F16] {
            if adapter.features().contains(wanted) {
                features |= wanted;
            }
        }
        if profile {
            if !adapter.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
                return Err(Error::unsupported(
                    "this adapter cannot time kernels (timestamp-query)",
                ));
            }
            features |= wgpu::Features::TIMESTAMP_QUERY;
        }
        let limits = adapter.limits();
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("llamero"),
            required_features: features,
            required_limits: limits.clone(),
            memory_hints: wgpu::MemoryHints::Performance,
            ..wgpu::DeviceDescriptor::default()
        };
        #[cfg(target_arch = "wasm32")]
        super::web::enable_subgroups();
        let (device, queue) = adapter.request_device(&descriptor).await.map_err(|e| {
            Error::new(
                ErrorKind::WebGpuUnavailable,
                "the GPU adapter refused to make a device; reload the page, or restart \
                                                      the browser",
            )
            .with_source(e.to_string())
        })?;
        let mut capabilities = describe(&adapter.get_info());
        capabilities.timestamps = profile;
        capabilities.shader_f16 = features.contains(wgpu::Features::SHADER_F16);
        capabilities.max_binding = limits
            .max_storage_buffer_binding_size
            .min(limits.max_buffer_size);
        capabilities.max_buffer = limits.max_buffer_size;
        #[cfg(not(target_arch = "wasm32"))]
        {
            capabilities.subgroups = features.contains(wgpu::Features::SUBGROUP);
        }
        #[cfg(target_arch = "wasm32")]
        super::web::describe(&device, &mut capabilities);

        Ok(Self {
            failure: watch(&device),
            device,
            queue,
            capabilities: Rc::new(capabilities),
            counters: Rc::default(),
            pipelines: Rc::default(),
            broken: Rc::default(),
        })
    }

    /// What it can do.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// What was done so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// For tests of the self-test: pipelines of variants whose name begins so, made from now on, leave their first
    /// workgroups idle.
    #[doc(hidden)]
    pub fn break_kernels(&self, prefix: &str) {
        self.broken.borrow_mut().push(prefix.to_owned());
    }

    pub(super) fn is_broken(&self, variant: &str) -> bool {
        self.broken
            .borrow()
            .iter()
            .any(|prefix| variant.starts_with(prefix))
    }

    /// The error that the device reported, if it did.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::DeviceLost`] once it reported one.
    pub fn check(&self) -> Result<()> {
        let failure = self.failure.lock().ok().and_then(|f| f.clone());
        match failure {
            None => Ok(()),
            Some(message) => Err(Error::new(
                ErrorKind::DeviceLost,
                format!(
                    "the GPU device failed: {message}; load the model again (with a smaller max_context if memory ran out)"
                ),
            )),
        }
    }

    pub(super) fn buffer(
        &self,
        label: &str,
        size: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<wgpu::Buffer> {
        let most = self.capabilities.max_buffer;
        if size > most {
            return Err(Error::new(
                ErrorKind::ModelTooLarge,
                format!(
                    "{label} needs a buffer of {} MB; this device's largest is {} MB",
                    size >> 20,
                    most >> 20
                ),
            ));
        }
        add(&self.counters.buffers, 1);
        Ok(self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: size.next_multiple_of(16),
            usage,
            mapped_at_creation: false,
        }))
    }

    pub(super) fn write(&self, buffer: &wgpu::Buffer, offset: u64, bytes: &[u8]) {
        add(&self.counters.writes, 1);
        add(&self.counters.written_bytes, bytes.len() as u64);
        self.queue.write_buffer(buffer, offset, bytes);
    }

    /// Starts reading a mappable buffer; the future resolves to its first `len` bytes.
    pub(super) fn read(
        &self,
        buffer: &wgpu::Buffer,
        len: u64,
    ) -> impl Future<Output = Result<Vec<u8>>> + 'static {
        add(&self.counters.read_bytes, len);
        let (sender, receiver) = futures_channel::oneshot::channel();
        buffer.map_async(wgpu::MapMode::Read, ..len, move |result| {
            // The receiver is gone only if nobody wants the bytes any more.
            let _ = sender.send(result);
        });
        let (buffer, gpu) = (buffer.clone(), self.clone());
        async move {
            gpu.wait()?;
            let mapped = receiver
                .await
                .map_err(|_| Error::internal("the device dropped a readback"))?;
            gpu.check()?;
            mapped.map_err(|e| {
                Error::new(
                    ErrorKind::DeviceLost,
                    "reading from the GPU failed; load the model again",
                )
                .with_source(e.to_string())
            })?;
            let bytes = buffer
                .get_mapped_range(..len)
                .map_err(|e| {
                    Error::internal("a mapped buffer is not readable").with_source(e.to_string())
                })?
                .to_vec();
            buffer.unmap();
            Ok(bytes)
        }
    }

    /// Resolves when all that was submitted is done.
    pub(super) fn idle(&self) -> impl Future<Output = Result<()>> + 'static {
        let (sender, receiver) = futures_channel::oneshot::channel();
        add(&self.counters.submits, 1);
        self.queue.submit([]);
        self.queue.on_submitted_work_done(move || {
            let _ = sender.send(());
        });
        let gpu = self.clone();
        async move {
            gpu.wait()?;
            let done = receiver.await;
            gpu.check()?;
            done.map_err(|_| Error::internal("the device dropped a callback"))
        }
    }

    /// Natively, callbacks run only while someone polls; browsers do it themselves.
    fn wait(&self) -> Result<()> {
        #[cfg(not(target_arch = "wasm32"))]
        self.device
            .poll(wgpu::PollType::wait_indefinitely())
            .map_err(|e| {
                Error::new(
                    ErrorKind::DeviceLost,
                    "waiting for the GPU failed; load the model again",
                )
                .with_source(e.to_string())
            })?;
        Ok(())
    }
}

fn describe(info: &wgpu::AdapterInfo) -> Capabilities {
    Capabilities {
        name: info.name.clone(),
        vendor: if info.vendor == 0 {
            String::new()
        } else {
            format!("{:#06x}", info.vendor)
        },
        architecture: info.driver.clone(),
        software: info.device_type == wgpu::DeviceType::Cpu,
        ..Capabilities::default()
    }
}
