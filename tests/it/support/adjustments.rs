//! Penalties, biases and masks: that two executors whose plan is the sampler alone draw the same tokens, step by step.

use super::harness::Random;
use llamero::exec::{Head, Inspect, Step, Want};
use llamero::plan::{History, MAX_BIASES, Penalties, Role, Row, Sampling, TokenMask};
use std::rc::Rc;

/// Logits of a step: peaked like a model's, with equal values among them.
fn logits(vocab: u32, random: &mut Random) -> Vec<f32> {
    (0..vocab)
        .map(|_| ((random.value() * 8.0).powi(3) / 64.0 * 16.0).round() / 16.0)
        .collect()
}

fn bias(vocab: u32, entries: u32, value: impl Fn(u32) -> f32) -> Option<Rc<[(u32, f32)]>> {
    let step = vocab.div_ceil(entries).max(1);
    Some(
        (0..vocab)
            .step_by(step as usize)
            .map(|id| (id, value(id)))
            .collect(),
    )
}

fn mask(vocab: u32, allows: impl Fn(u32) -> bool) -> Option<Rc<TokenMask>> {
    let mut mask = TokenMask::new(vocab, false);
    (0..vocab).for_each(|id| mask.set(id, allows(id)));
    Some(Rc::new(mask))
}

/// Settings by name, greedy and drawn.
fn settings(vocab: u32) -> Vec<(&'static str, Sampling)> {
    let drawn = Sampling {
        temperature: 0.8,
        top_k: 50,
        top_p: 0.95,
        min_p: 0.01,
        seed: 5,
        ..Sampling::GREEDY
    };
    let hot = Sampling {
        temperature: 2.0,
        seed: 6,
        ..Sampling::GREEDY
    };
    let penalties = |repetition, presence, frequency| Penalties {
        repetition,
        presence,
        frequency,
    };
    // Exact in binary, so that equal logits stay equal.
    let strong = penalties(2.0, 0.5, 0.25);
    let mut list = Vec::new();
    for base in [Sampling::GREEDY, drawn, hot] {
        let with = |name, change: &dyn Fn(&mut Sampling)| {
            let mut sampling = base.clone();
            change(&mut sampling);
            (name, sampling)
        };
        list.extend([
            with("repetition", &|s| s.penalties = penalties(1.3, 0.0, 0.0)),
            with("repetition below 1", &|s| {
                s.penalties = penalties(0.5, 0.0, 0.0);
            }),
            with("presence", &|s| s.penalties = penalties(1.0, 1.5, 0.0)),
            with("frequency", &|s| s.penalties = penalties(1.0, 0.0, 2.0)),
            with("negative", &|s| s.penalties = penalties(1.0, -2.0, -2.0)),
            with("bias", &|s| {
                s.bias = bias(vocab, 30, |id| if id % 2 == 0 { 100.0 } else { -100.0 });
            }),
            with("many biases", &|s| {
                s.bias = bias(vocab, MAX_BIASES as u32, |id| (id % 7) as f32 - 3.0);
            }),
            with("half", &|s| s.mask = mask(vocab, |id| id % 2 == 0)),
            with("the last alone", &|s| {
                s.mask = mask(vocab, |id| id == vocab - 1);
            }),
            with("none", &|s| s.mask = mask(vocab, |_| false)),
            with("all", &|s| {
                s.penalties = strong;
                s.bias = bias(vocab, 100, |id| (id % 5) as f32);
                s.mask = mask(vocab, |id| id % 3 != 1);
            }),
        ]);
    }
    list
}

/// Sequence 0 draws eight tokens, each counted for the next; then it is given up to the third, and draws again as before.
pub fn compare(vocab: u32, mut executors: [&mut dyn Inspect; 2]) {
    const STEPS: usize = 8;
    let mut random = Random(u64::from(vocab));
    for (name, sampling) in settings(vocab) {
        let prompt: Vec<u32> = (0..10)
            .map(|_| (random.bits() % u64::from(vocab)) as u32)
            .collect();
        // The same logits for pairs of steps: a penalty then shows.
        let steps: Vec<Vec<f32>> = (0..STEPS / 2).map(|_| logits(vocab, &mut random)).collect();
        let [first, second] = executors.each_mut().map(|executor| {
            let mut run = |from: usize, generated: &[u32]| -> Vec<u32> {
                executor
                    .set_sampling(
                        0,
                        &sampling,
                        History {
                            prompt: &prompt,
                            generated,
                        },
                    )
                    .expect("settings");
                let draw = |step: usize| draw(*executor, &steps[step / 2], step as u32);
                (from..STEPS).map(draw).collect()
            };
            let whole = run(0, &[]);
            assert_eq!(
                run(3, &whole[..3]),
                whole[3..],
                "rewound: vocabulary {vocab}, {name}, {sampling:?}"
            );
            whole
        });
        assert_eq!(first, second, "vocabulary {vocab}, {name}, {sampling:?}");
        match &sampling.mask {
            Some(mask) if mask.count() == 0 => assert_eq!(first, [0; STEPS], "{name}"),
            Some(mask) => assert!(first.iter().all(|id| mask.allows(*id)), "{name}: {first:?}"),
            None if name == "bias" && vocab >= 255 => {
                let liked = |id: &u32| {
                    sampling
                        .bias
                        .iter()
                        .flat_map(|b| b.iter())
                        .any(|(b, v)| b == id && *v > 0.0)
                };
                assert!(first.iter().all(liked), "{name}: {first:?}");
            }
            None => {}
        }
    }
}

fn draw(executor: &mut dyn Inspect, logits: &[f32], pos: u32) -> u32 {
    executor.poke(Role::Logits, logits, None).expect("logits");
    let row = [Row {
        token: 0,
        seq: 0,
        pos,
    }];
    let step = Step::Rows {
        rows: &row,
        heads: &Head::all(&[0], Want::ID),
        trace: None,
    };
    let output = pollster::block_on(executor.submit(step).expect("a step"));
    output.expect("a token").ids()[0]
}
