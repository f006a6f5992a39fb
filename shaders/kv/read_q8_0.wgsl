// A vector is blocks of 32 signed bytes, and after them a scale each as f16, two a u32.
@group(0) @binding(3) var<storage, read> cache: array<u32>;              // [page, 2, KV, PAGE, words]

// Four values of a cached vector.
fn load_cached(vector: u32, quad: u32) -> vec4<f32> {
    let blocks = (params.head_quads + 7u) / 8u;
    let at = vector * (blocks * 8u + (blocks + 1u) / 2u);
    let bytes = vec4<i32>(bitcast<i32>(cache[at + quad]));
    let scales = unpack2x16float(cache[at + blocks * 8u + quad / 16u]);
    let values = vec4<f32>((bytes << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u));
    return values * select(scales.x, scales.y, (quad & 8u) != 0u);
}
