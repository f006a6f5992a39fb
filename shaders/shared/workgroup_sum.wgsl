// Sums over a workgroup of 64 invocations.
const WORKGROUP: u32 = 64u;

var<workgroup> terms: array<f32, WORKGROUP>;

// The sum of `term` over the workgroup, for every invocation. All of them must call it.
fn workgroup_sum(i: u32, term: f32) -> f32 {
    terms[i] = term;
    workgroupBarrier();
    var sum = 0.0;
    for (var n = 0u; n < WORKGROUP; n++) { sum += terms[n]; }
    return sum;
}
