// Changes some rows of a value.
//
// Dispatch: [width / 64, edited rows]

struct Params {
    width: u32,         // values per edited row
    base: u32,          // where row 0 starts
    stride: u32,        // between rows
    part: u32,          // values that lie `step` apart …
    part_stride: u32,   // … before the next ones begin
    step: u32,
    add: u32,           // 1: added to what is there
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> rows: array<u32>;            // [edited rows]: the row of the step
@group(0) @binding(2) var<storage, read> values: array<f32>;          // [edited rows, width]
@group(0) @binding(3) var<storage, read_write> output: array<u32>;    // [T, stride]: f32 by their bits

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let column = group.x * 64u + i;
    if column >= params.width { return; }
    let at = params.base + rows[group.y] * params.stride + column / params.part * params.part_stride
        + column % params.part * params.step;
    var v = values[group.y * params.width + column];
    if params.add == 1u { v += bitcast<f32>(output[at]); }
    output[at] = bitcast<u32>(v);
}
