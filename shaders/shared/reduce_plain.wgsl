// Sums over the lanes of a quad, through workgroup memory. Valid in the first lane of each quad.

struct Sum { rows: vec4<f32>, squares: f32 }

var<workgroup> lane_rows: array<vec4<f32>, 64>;
var<workgroup> lane_squares: array<f32, 64>;

fn reduce(rows: vec4<f32>, squares: f32, i: u32, lanes: u32) -> Sum {
    lane_rows[i] = rows;
    lane_squares[i] = squares;
    workgroupBarrier();
    var sum = Sum(vec4<f32>(0.0), 0.0);
    if i % lanes == 0u {
        for (var l = 0u; l < lanes; l++) {
            sum.rows += lane_rows[i + l];
            sum.squares += lane_squares[i + l];
        }
    }
    return sum;
}
