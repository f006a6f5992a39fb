// Sums over the lanes of a quad: by shuffles inside each subgroup, then through workgroup memory where a quad spans
// several subgroups. Valid in the first lane of each quad. Subgroups may have any power-of-two size; invocations are
// laid out in index order in them (the start-up self-test would show a device where they are not).

struct Sum { rows: vec4<f32>, squares: f32 }

var<workgroup> lane_rows: array<vec4<f32>, 64>;
var<workgroup> lane_squares: array<f32, 64>;

fn reduce(rows: vec4<f32>, squares: f32, i: u32, lanes: u32, subgroup_size: u32, subgroup_lane: u32) -> Sum {
    let width = min(lanes, subgroup_size);
    var sum = Sum(rows, squares);
    for (var step = width / 2u; step > 0u; step /= 2u) {
        sum.rows += subgroupShuffleXor(sum.rows, step);
        sum.squares += subgroupShuffleXor(sum.squares, step);
    }
    lane_rows[i] = sum.rows;
    lane_squares[i] = sum.squares;
    workgroupBarrier();
    if i % lanes == 0u {
        for (var l = width; l < lanes; l += width) {
            sum.rows += lane_rows[i + l];
            sum.squares += lane_squares[i + l];
        }
    }
    return sum;
}
