// Sums over the lanes of a quad: by shuffles inside each subgroup, then through workgroup memory where a quad spans
// several subgroups. Subgroups may have any power-of-two size; invocations are laid out in index order in them (the
// start-up self-test shows a device where they are not).

// How many neighbouring lanes have the same sum after `fold`.
fn folded(lanes: u32, subgroup_size: u32) -> u32 { return min(lanes, subgroup_size); }

fn fold(rows: vec4<f32>, width: u32) -> vec4<f32> {
    var sum = rows;
    for (var step = width / 2u; step > 0u; step /= 2u) { sum += subgroupShuffleXor(sum, step); }
    return sum;
}

fn fold_one(squares: f32, width: u32) -> f32 {
    var sum = squares;
    for (var step = width / 2u; step > 0u; step /= 2u) { sum += subgroupShuffleXor(sum, step); }
    return sum;
}
