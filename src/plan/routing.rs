//! Which experts a row goes to: the definition, shared by the executors that run on the processor.

use super::{Experts, Gating};

/// `[T, X] -> [T, used, 2]`: experts and weights; of equal logits the first.
pub fn route(logits: &[f32], experts: Experts, routes: &mut Vec<f32>) {
    pick(logits, experts, routes, |logits, picked| {
        // Of a softmax over all, made to sum to 1 over the picked, what is not picked drops out.
        let share = |x: usize| f64::from(logits[x] - logits[picked[0]]).exp();
        let total: f64 = picked.iter().map(|x| share(*x)).sum();
        let weight = |x: &usize| match experts.gating {
            Gating::Softmax => share(*x) / total,
            Gating::Sigmoid => 1.0 / (1.0 + f64::from(-logits[*x]).exp()),
        };
        picked.iter().map(weight).collect()
    });
}

/// `[T, X] -> [T, used, 2]`: the experts of largest weight; after a softmax their weights are made to sum to 1.
pub fn pick_experts(weights: &[f32], experts: Experts, routes: &mut Vec<f32>) {
    pick(weights, experts, routes, |weights, picked| {
        let own = picked.iter().map(|x| f64::from(weights[*x]));
        let total: f64 = if experts.gating == Gating::Softmax {
            own.clone().sum()
        } else {
            1.0
        };
        own.map(|weight| weight / total).collect()
    });
}

fn pick(
    values: &[f32],
    experts: Experts,
    routes: &mut Vec<f32>,
    weigh: impl Fn(&[f32], &[usize]) -> Vec<f64>,
) {
    routes.clear();
    let mut order = Vec::with_capacity(experts.count as usize);
    for values in values.chunks_exact(experts.count as usize) {
        order.clear();
        order.extend(0..values.len());
        order.sort_by(|a: &usize, b: &usize| values[*b].total_cmp(&values[*a]));
        let picked = &order[..experts.used as usize];
        let weights = weigh(values, picked);
        routes.extend(
            picked
                .iter()
                .zip(weights)
                .flat_map(|(x, weight)| [*x as f32, weight as f32]),
        );
    }
}

/// A row's experts and weights, of [`Role::Routes`](super::Role::Routes).
pub fn routes(values: &[f32]) -> impl Iterator<Item = (u32, f32)> + '_ {
    values.chunks_exact(2).map(|pair| (pair[0] as u32, pair[1]))
}
