//! Which experts a row goes to: the definition, shared by the executors that run on the processor.

use super::{Experts, Gating};

/// `[T, X] -> [T, used]`: experts and weights; of equal logits the first.
pub fn route(logits: &[f32], experts: Experts, routes: &mut Vec<(u32, f32)>) {
    routes.clear();
    let mut order = Vec::with_capacity(experts.count as usize);
    for logits in logits.chunks_exact(experts.count as usize) {
        order.clear();
        order.extend(0..logits.len());
        order.sort_by(|a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]));
        let picked = &order[..experts.used as usize];
        // Of a softmax over all, made to sum to 1 over the picked, what is not picked drops out.
        let share = |x: usize| f64::from(logits[x] - logits[picked[0]]).exp();
        let total: f64 = picked.iter().map(|x| share(*x)).sum();
        routes.extend(picked.iter().map(|x| {
            let weight = match experts.gating {
                Gating::Softmax => share(*x) / total,
                Gating::Sigmoid => 1.0 / (1.0 + f64::from(-logits[*x]).exp()),
            };
            (*x as u32, weight as f32)
        }));
    }
}
