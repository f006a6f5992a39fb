//! Log-probabilities of tokens, from logits.

/// A token and the natural logarithm of its probability.
#[derive(Copy, Clone, Debug, PartialEq, serde::Serialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct TokenLogprob {
    /// Token id.
    pub id: u32,
    /// At most 0; minus infinity for a token that cannot be.
    pub logprob: f32,
}

/// Log-probabilities at one position.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logprobs {
    /// The token that was asked for, or drawn.
    pub token: Option<TokenLogprob>,
    /// The most likely tokens, the likeliest first, of equals the lower id.
    pub top: Vec<TokenLogprob>,
}

impl Logprobs {
    /// From logits `[V]`: the `top` most likely tokens, and `token`.
    pub fn new(logits: &[f32], top: u32, token: Option<u32>) -> Self {
        let total = log_sum_exp(logits);
        let at = |id: u32| TokenLogprob {
            id,
            logprob: logits.get(id as usize).map_or(f32::NEG_INFINITY, |logit| {
                (f64::from(*logit) - total) as f32
            }),
        };
        let top = (top as usize).min(logits.len());
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let likelier = |a: &u32, b: &u32| {
            logits[*b as usize]
                .total_cmp(&logits[*a as usize])
                .then(a.cmp(b))
        };
        if top > 0 && top < order.len() {
            order.select_nth_unstable_by(top - 1, likelier);
        }
        order.truncate(top);
        order.sort_unstable_by(likelier);
        Self {
            token: token.map(at),
            top: order.into_iter().map(at).collect(),
        }
    }
}

/// `ln(sum(exp(logits)))`
fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits
        .iter()
        .map(|logit| (f64::from(*logit) - f64::from(max)).exp())
        .sum();
    f64::from(max) + total.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one_and_come_in_order() {
        let logits = [0.5, 2.0, -1.0, 2.0, 0.0];
        let all = Logprobs::new(&logits, 9, Some(2));
        let ids: Vec<u32> = all.top.iter().map(|token| token.id).collect();
        assert_eq!(ids, [1, 3, 0, 4, 2]);
        let sum: f32 = all.top.iter().map(|token| token.logprob.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        assert_eq!(all.token, Some(all.top[4]));
        assert_eq!(Logprobs::new(&logits, 2, None).top, all.top[..2]);
        assert!(Logprobs::new(&logits, 0, None).top.is_empty());
    }
}
