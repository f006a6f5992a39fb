//! What wgpu 30 cannot do on the web. Each entry says why it is here; delete it when wgpu gains it.

use super::device::Capabilities;
use crate::error::{Error, ErrorKind, Result};
use wasm_bindgen::prelude::wasm_bindgen;

#[wasm_bindgen(inline_js = r#"
export function webgpu_available() {
    return typeof navigator === "object" && !!navigator.gpu;
}

// wgpu's feature map for the web has no `subgroups` (gfx-rs/wgpu issue 10146), so it never asks for it.
let asked_adapter = null;
export function patch_request_device() {
    if (typeof GPUAdapter === "undefined" || GPUAdapter.prototype.llameroPatched) return;
    const request = GPUAdapter.prototype.requestDevice;
    GPUAdapter.prototype.llameroPatched = true;
    GPUAdapter.prototype.requestDevice = function (descriptor = {}) {
        asked_adapter = this;
        const features = new Set(descriptor.requiredFeatures || []);
        if (this.features.has("subgroups")) features.add("subgroups");
        return request.call(this, { ...descriptor, requiredFeatures: [...features] });
    };
}

// wgpu leaves name, vendor and architecture empty on the web.
export function adapter_info() {
    const info = (asked_adapter && asked_adapter.info) || {};
    const text = (key) => (typeof info[key] === "string" ? info[key] : "");
    return [text("vendor"), text("architecture"), text("device"), text("description"),
        info.isFallbackAdapter || (asked_adapter && asked_adapter.isFallbackAdapter) ? "fallback" : "",
        asked_adapter && asked_adapter.features.has("subgroups") ? "subgroups" : "",
        // Firefox looks at finished work every 100 ms (bug 1870699).
        /Firefox\//.test(navigator.userAgent || "") ? "firefox" : ""];
}
"#)]
extern "C" {
    fn webgpu_available() -> bool;
    fn patch_request_device();
    fn adapter_info() -> Vec<String>;
}

/// A clear error where the browser has no WebGPU at all.
pub fn check_available() -> Result<()> {
    if webgpu_available() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::WebGpuUnavailable,
        "this browser (or this page: WebGPU needs https or localhost) offers no WebGPU; use a current Chrome, Edge, Safari \
         or Firefox",
    ))
}

/// Makes the next device have subgroups if the adapter has them.
pub fn enable_subgroups() {
    patch_request_device();
}

/// Fills in what wgpu leaves empty.
pub fn describe(_device: &wgpu::Device, capabilities: &mut Capabilities) {
    let info = adapter_info();
    let text = |i: usize| info.get(i).cloned().unwrap_or_default();
    capabilities.vendor = text(0);
    capabilities.architecture = text(1);
    capabilities.name = [text(3), text(2)]
        .into_iter()
        .find(|s| !s.is_empty())
        .unwrap_or_default();
    capabilities.software = !text(4).is_empty() || capabilities.architecture == "swiftshader";
    capabilities.subgroups = !text(5).is_empty();
    // Chromium demands the line for a shader that uses subgroups; naga (native, Firefox) does not know it.
    capabilities.subgroups_preamble = "enable subgroups;\n";
    capabilities.slow_await = !text(6).is_empty();
}
