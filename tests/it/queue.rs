//! Jobs of every kind in one queue: each gives what it gives alone, each can be cancelled anywhere, and none starves.

use crate::support::harness::{assert_close, executors, tiny};
use llamero::engine::{
    EmbedRequest, Event, Extras, JobResult, Model, Pooling, Request, RequestId, ScoreRequest,
    TextOrIds, TokenConstraint, Update,
};
use llamero::error::{ErrorKind, Result};
use llamero::exec::gpu::{CacheType, GpuOptions};
use llamero::plan::{Edit, EditKind, Point, TokenMask, Trace};
use std::collections::BTreeMap;

const VOCAB: usize = 320;

fn ids(len: u32, seed: u32) -> Vec<u32> {
    (0..len)
        .map(|i| (i * i * 7 + i * 13 + seed * 31 + 5) % 250)
        .collect()
}

/// Kernels and caches that are exact but for the order of sums, so that company does not change a choice.
fn exact() -> GpuOptions {
    GpuOptions {
        cache: Some(CacheType::F32),
        int8: Some(false),
        f16: Some(false),
        ..GpuOptions::default()
    }
}

fn models(context: u32) -> Vec<(&'static str, Model)> {
    executors(&tiny("F32"), context, &exact())
}

/// One of each kind of job.
#[derive(Clone)]
enum Work {
    Generate(Request),
    /// Draws even ids alone, and ends after 6.
    Constrained(Request),
    Edited(Request),
    Score(ScoreRequest),
    Logits(Vec<u32>),
    Embed(EmbedRequest),
    Capture(Vec<u32>),
}

fn greedy(prompt: Vec<u32>, tokens: u32) -> Request {
    Request {
        ids: Some(prompt),
        max_new_tokens: Some(tokens),
        ignore_eos: Some(true),
        ..Request::default()
    }
}

/// The `number`th job.
fn work(number: u32) -> Work {
    let text = |len: u32| ids(len + number % 7, number);
    let embed = |pooling| {
        Work::Embed(EmbedRequest {
            texts: vec![text(9).into(), text(30).into()],
            pooling,
            normalize: Some(true),
        })
    };
    match number % 9 {
        0 => Work::Generate(Request {
            temperature: Some(1.2),
            seed: Some(u64::from(number)),
            num_return_sequences: Some(2),
            ..greedy(text(12), 9)
        }),
        1 => Work::Logits(text(70)),
        2 => Work::Score(ScoreRequest {
            prompt: text(40).into(),
            continuations: vec![ids(3, 1).into(), ids(5, 2).into(), Vec::new().into()],
        }),
        3 => embed(Pooling::Mean),
        4 => embed(Pooling::Last),
        5 => Work::Capture(text(20)),
        6 => Work::Constrained(greedy(text(6), 20)),
        7 => Work::Edited(greedy(text(5), 7)),
        _ => Work::Generate(Request {
            top_logprobs: Some(3),
            repetition_penalty: Some(1.3),
            ..greedy(text(33), 12)
        }),
    }
}

/// Even ids alone; nothing follows the sixth.
struct Even {
    drawn: usize,
}

impl TokenConstraint for Even {
    fn restrict(&mut self, mask: &mut TokenMask) -> Result<()> {
        (1..VOCAB as u32)
            .step_by(2)
            .for_each(|id| mask.set(id, false));
        Ok(())
    }

    fn accept(&mut self, id: u32) -> Result<()> {
        assert_eq!(id % 2, 0, "token {id} is not allowed");
        self.drawn += 1;
        Ok(())
    }

    fn is_finished(&self) -> bool {
        self.drawn == 6
    }
}

fn edits() -> Trace {
    let point = Point::parse("blocks.1.hook_resid_post").unwrap();
    let values = (0..64).map(|i| (i % 5) as f32 - 2.0).collect();
    Trace {
        taps: Vec::new(),
        edits: vec![Edit {
            point,
            kind: EditKind::Add,
            seq: None,
            positions: None,
            values,
            width: 64,
        }],
    }
}

fn enqueue(model: &mut Model, work: &Work) -> RequestId {
    let with = |model: &mut Model, request: &Request, extras| {
        model.enqueue_with(request, 0, extras).unwrap()
    };
    match work {
        Work::Generate(request) => model.enqueue(request, 0).unwrap(),
        Work::Constrained(request) => {
            let constraints = vec![Box::new(Even { drawn: 0 }) as Box<dyn TokenConstraint>];
            let extras = Extras {
                constraints,
                edits: None,
            };
            with(model, request, extras)
        }
        Work::Edited(request) => {
            let extras = Extras {
                constraints: Vec::new(),
                edits: Some(edits()),
            };
            with(model, request, extras)
        }
        Work::Score(request) => model.enqueue_score(request).unwrap(),
        Work::Logits(ids) => model.enqueue_logits(&ids.clone().into()).unwrap(),
        Work::Embed(request) => model.enqueue_embed(request).unwrap(),
        Work::Capture(ids) => {
            let taps = model.points("*hook_resid_mid").unwrap();
            let trace = Trace {
                taps,
                edits: edits().edits,
            };
            model.enqueue_capture(ids, &trace, true).unwrap()
        }
    }
}

/// What came of a job: what must be the same, and numbers that must be near.
#[derive(Debug, Default)]
struct Outcome {
    exact: String,
    numbers: Vec<f32>,
    /// How many steps it took from its start.
    steps: usize,
}

/// Runs all that is queued to the end; `between` sees the model and the updates after every step.
fn drain(
    model: &mut Model,
    mut between: impl FnMut(&mut Model, usize, &BTreeMap<RequestId, Result<JobResult>>),
) -> BTreeMap<RequestId, Outcome> {
    let mut done = BTreeMap::new();
    let mut outcomes: BTreeMap<RequestId, Outcome> = BTreeMap::new();
    let mut steps = 0;
    loop {
        let goes_on = pollster::block_on(model.step());
        steps += 1;
        for (id, update) in model.updates() {
            let outcome = outcomes.entry(id).or_default();
            match update {
                Update::Event(Event::Logits { values, .. }) => outcome.numbers.extend(values),
                Update::Event(_) => {}
                Update::Done(result) => {
                    outcome.steps = steps;
                    done.insert(id, result);
                }
            }
        }
        between(model, steps, &done);
        if !goes_on {
            break;
        }
        assert!(steps < 5000, "it does not end");
    }
    for (id, result) in done {
        let outcome = outcomes.get_mut(&id).unwrap();
        match result.unwrap() {
            JobResult::Generation(generation) => {
                for sequence in &generation.sequences {
                    outcome.exact += &format!("{:?} {}", sequence.ids, sequence.finish_reason);
                    for token in &sequence.logprobs {
                        outcome.numbers.push(token.logprob);
                        outcome.exact += &format!("{:?}", token.top.first().map(|top| top.id));
                        outcome
                            .numbers
                            .extend(token.top.iter().map(|top| top.logprob));
                    }
                }
            }
            JobResult::Scores(scores) => {
                for score in scores {
                    outcome.exact += &format!("{:?}", score.ids);
                    outcome.numbers.push(score.logprob as f32);
                    outcome.numbers.extend(score.logprobs);
                }
            }
            JobResult::Logits(positions) => outcome.exact = positions.to_string(),
            JobResult::Embeddings(vectors) => outcome.numbers = vectors.concat(),
            JobResult::Captured(captured) => {
                outcome.numbers = captured.logits;
                for tap in captured.taps {
                    outcome.exact += &format!("{} {:?}", tap.point, tap.shape);
                    outcome.numbers.extend(tap.values);
                }
            }
        }
    }
    outcomes
}

fn alone(model: &mut Model, work: &Work) -> Outcome {
    let id = enqueue(model, work);
    drain(model, |_, _, _| {}).remove(&id).unwrap()
}

#[test]
fn fifty_jobs_together_are_as_each_alone() {
    for (name, mut model) in models(512) {
        let (_, mut other) = models(512)
            .into_iter()
            .find(|(other, _)| *other == name)
            .unwrap();
        let jobs: Vec<Work> = (0..50).map(work).collect();
        let ids: Vec<RequestId> = jobs.iter().map(|job| enqueue(&mut model, job)).collect();
        let outcomes = drain(&mut model, |_, _, _| {});
        assert_eq!(outcomes.len(), 50, "{name}");
        for (number, (id, job)) in ids.iter().zip(&jobs).enumerate() {
            let (together, alone) = (&outcomes[id], alone(&mut other, job));
            assert_eq!(together.exact, alone.exact, "{name}: job {number}");
            let what = format!("{name}: job {number}");
            assert_close(&what, &together.numbers, &alone.numbers, 2e-3);
        }
    }
}

#[test]
fn a_job_can_be_cancelled_at_every_step() {
    for (name, mut model) in models(512) {
        let company = Work::Generate(greedy(ids(8, 99), 25));
        let expected = alone(&mut model, &company).exact;
        for number in 0..9 {
            for at in [0, 1, 2, 4] {
                let job = enqueue(&mut model, &work(number));
                let other = enqueue(&mut model, &company);
                let mut done = BTreeMap::new();
                if at == 0 {
                    model.cancel(job);
                }
                for step in 1.. {
                    let goes_on = pollster::block_on(model.step());
                    if step == at {
                        model.cancel(job);
                        // Once more does nothing.
                        model.cancel(job);
                    }
                    for (id, update) in model.updates() {
                        assert!(
                            !done.contains_key(&id),
                            "{name}: nothing comes after the end"
                        );
                        if let Update::Done(result) = update {
                            done.insert(id, result);
                        }
                    }
                    assert!(
                        step < at || done.contains_key(&job),
                        "{name}: job {number} is answered at once"
                    );
                    if !goes_on {
                        break;
                    }
                }
                match done.remove(&job).unwrap() {
                    Ok(JobResult::Generation(_)) => {}
                    Ok(_) => assert!(at > 0, "{name}: job {number} ended before it was cancelled"),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Aborted, "{name}"),
                }
                let other = done.remove(&other).unwrap().unwrap().generation().unwrap();
                let sequence = &other.sequences[0];
                let got = format!("{:?} {}", sequence.ids, sequence.finish_reason);
                assert_eq!(got, expected, "{name}: beside job {number}");
            }
        }
        // All pages are free again, or can be: the whole context fits.
        alone(&mut model, &Work::Generate(greedy(ids(300, 5), 212)));
    }
}

#[test]
fn no_job_starves() {
    for (name, mut model) in models(512) {
        // Long texts first, which fill many steps.
        let long: Vec<Work> = (0..3).map(|seed| Work::Logits(ids(450, seed))).collect();
        let long_steps = alone(&mut model, &long[0]).steps;
        for job in &long {
            enqueue(&mut model, job);
        }
        let many = Work::Generate(Request {
            temperature: Some(1.0),
            num_return_sequences: Some(100),
            ..greedy(ids(4, 7), 8)
        });
        enqueue(&mut model, &many);
        let short: Vec<RequestId> = [
            Work::Embed(EmbedRequest {
                texts: vec![ids(5, 3).into()],
                ..EmbedRequest::default()
            }),
            Work::Generate(greedy(ids(5, 4), 4)),
            Work::Capture(ids(5, 5)),
            Work::Constrained(greedy(ids(5, 6), 6)),
        ]
        .iter()
        .map(|job| enqueue(&mut model, job))
        .collect();
        let outcomes = drain(&mut model, |_, _, _| {});
        let all = outcomes
            .values()
            .map(|outcome| outcome.steps)
            .max()
            .unwrap();
        for (number, id) in short.iter().enumerate() {
            let steps = outcomes[id].steps;
            // What does not fit waits for one long text at most, of the three and a hundred sequences.
            assert!(
                steps <= 4 * long_steps + 40 && steps < all,
                "{name}: short job {number} took {steps} steps of {all}; one long text takes {long_steps}"
            );
        }
    }
}

#[test]
fn constraints_keep_to_their_tokens_and_end() {
    /// Digits of the byte-level vocabulary.
    struct Digits;
    impl TokenConstraint for Digits {
        fn restrict(&mut self, mask: &mut TokenMask) -> Result<()> {
            for id in 0..VOCAB as u32 {
                mask.set(id, mask.allows(id) && (10..20).contains(&id));
            }
            Ok(())
        }

        fn accept(&mut self, _: u32) -> Result<()> {
            Ok(())
        }
    }
    /// Allows nothing.
    struct Nothing;
    impl TokenConstraint for Nothing {
        fn restrict(&mut self, mask: &mut TokenMask) -> Result<()> {
            (0..VOCAB as u32).for_each(|id| mask.set(id, false));
            Ok(())
        }

        fn accept(&mut self, _: u32) -> Result<()> {
            Ok(())
        }
    }
    for (name, mut model) in models(256) {
        let free = greedy(ids(7, 1), 15);
        let expected = alone(&mut model, &Work::Generate(free.clone())).exact;
        let company = enqueue(&mut model, &Work::Generate(free));
        let request = Request {
            temperature: Some(2.0),
            seed: Some(3),
            num_return_sequences: Some(2),
            suppress_tokens: Some(vec![12]),
            ..greedy(ids(9, 2), 12)
        };
        let digits = || Box::new(Digits) as Box<dyn TokenConstraint>;
        let extras = |constraints| Extras {
            constraints,
            edits: None,
        };
        let constrained = model
            .enqueue_with(&request, 0, extras(vec![digits(), digits()]))
            .unwrap();
        let one = greedy(ids(9, 3), 12);
        let finished = enqueue(&mut model, &Work::Constrained(one.clone()));
        let stuck = model
            .enqueue_with(&one, 0, extras(vec![Box::new(Nothing)]))
            .unwrap();
        let few = model.enqueue_with(&request, 0, extras(vec![digits()]));
        assert!(
            few.unwrap_err().to_string().contains("2 sequences"),
            "{name}"
        );
        let mut done = BTreeMap::new();
        while pollster::block_on(model.step()) {
            for (id, update) in model.updates() {
                if let Update::Done(result) = update {
                    done.insert(id, result);
                }
            }
        }
        let mut generation = |id| done.remove(&id).unwrap().unwrap().generation().unwrap();
        for sequence in generation(constrained).sequences {
            assert_eq!(sequence.ids.len(), 12, "{name}");
            let fits = |id: &u32| (10..20).contains(id) && *id != 12;
            assert!(sequence.ids.iter().all(fits), "{name}: {:?}", sequence.ids);
        }
        let finished = generation(finished).sequences.remove(0);
        assert_eq!(
            (finished.ids.len(), finished.finish_reason),
            (6, "stop"),
            "{name}"
        );
        let free = generation(company).sequences.remove(0);
        assert_eq!(
            format!("{:?} {}", free.ids, free.finish_reason),
            expected,
            "{name}"
        );
        let error = done.remove(&stuck).unwrap().unwrap_err();
        assert!(error.to_string().contains("no token"), "{name}: {error}");
    }
}

#[test]
fn logprobs_are_the_log_softmax_of_logits() {
    for (name, mut model) in models(128) {
        let prompt = ids(11, 1);
        let request = Request {
            temperature: Some(1.3),
            seed: Some(5),
            top_logprobs: Some(4),
            presence_penalty: Some(1.0),
            ..greedy(prompt.clone(), 10)
        };
        let generation = pollster::block_on(model.generate(&request, 0, &mut ())).unwrap();
        let sequence = &generation.sequences[0];
        assert_eq!(sequence.logprobs.len(), 10, "{name}");
        let text = [&prompt[..], &sequence.ids].concat();
        let mut logits = Vec::new();
        let keep = |_: usize, values: &[f32]| {
            logits.extend_from_slice(values);
            Ok(())
        };
        pollster::block_on(model.logits(&text, keep)).unwrap();
        for (i, token) in sequence.logprobs.iter().enumerate() {
            let row = &logits[(prompt.len() - 1 + i) * VOCAB..][..VOCAB];
            let total: f64 = row.iter().map(|v| f64::from(*v).exp()).sum();
            let logprob = |id: u32| (f64::from(row[id as usize]) - total.ln()) as f32;
            assert_eq!(token.id, sequence.ids[i], "{name}");
            assert_close(name, &[token.logprob], &[logprob(token.id)], 1e-3);
            assert_eq!(token.top.len(), 4, "{name}");
            for (rank, top) in token.top.iter().enumerate() {
                assert_close(name, &[top.logprob], &[logprob(top.id)], 1e-3);
                let likelier = (0..VOCAB as u32)
                    .filter(|id| logprob(*id) > top.logprob + 1e-3)
                    .count();
                assert!(likelier <= rank, "{name}: rank {rank}");
            }
        }
        // The same numbers by scoring what was written.
        let request = ScoreRequest {
            prompt: prompt.into(),
            continuations: vec![TextOrIds::Ids(sequence.ids.clone())],
        };
        let score = pollster::block_on(model.score(&request)).unwrap().remove(0);
        let drawn: Vec<f32> = sequence.logprobs.iter().map(|t| t.logprob).collect();
        assert_close(name, &score.logprobs, &drawn, 1e-3);
        let sum: f64 = drawn.iter().map(|v| f64::from(*v)).sum();
        assert!((score.logprob - sum).abs() < 1e-2, "{name}");
    }
}

#[test]
fn embeddings_are_the_final_norm_of_the_text() {
    for (name, mut model) in models(128) {
        let text = ids(40, 2);
        let trace = Trace {
            taps: vec![Point::parse("final_norm_output").unwrap()],
            edits: Vec::new(),
        };
        let captured = pollster::block_on(model.trace(&text, &trace, false)).unwrap();
        let rows: Vec<&[f32]> = captured.taps[0].values.chunks_exact(64).collect();
        let mean: Vec<f32> = (0..64)
            .map(|i| rows.iter().map(|row| row[i]).sum::<f32>() / rows.len() as f32)
            .collect();
        for (pooling, expected) in [
            (Pooling::Mean, &mean[..]),
            (Pooling::Last, rows[rows.len() - 1]),
            (Pooling::Cls, rows[0]),
        ] {
            for normalize in [false, true] {
                let length = if normalize {
                    expected.iter().map(|v| v * v).sum::<f32>().sqrt()
                } else {
                    1.0
                };
                let expected: Vec<f32> = expected.iter().map(|v| v / length).collect();
                let request = EmbedRequest {
                    texts: vec![text.clone().into()],
                    pooling,
                    normalize: Some(normalize),
                };
                let got = pollster::block_on(model.embed(&request)).unwrap().remove(0);
                assert_close(&format!("{name}: {pooling:?}"), &got, &expected, 2e-3);
            }
        }
    }
}

#[test]
fn costs_are_there_while_jobs_run() {
    for (name, mut model) in models(256) {
        enqueue(&mut model, &Work::Logits(ids(200, 1)));
        enqueue(&mut model, &Work::Generate(greedy(ids(20, 1), 5)));
        let mut pending = model.advance();
        while let Some(step) = pending {
            // A step is under way: nothing is lent.
            let costs = model.executor().costs();
            assert!(name != "gpu" || costs.steps > 0, "{name}");
            assert!(model.executor().cache_bytes_per_position() > 0.0, "{name}");
            model.arrived(pollster::block_on(step));
            pending = model.advance();
        }
        let done = |(_, update): &(RequestId, Update)| matches!(update, Update::Done(Ok(_)));
        assert_eq!(
            model.updates().iter().filter(|u| done(u)).count(),
            2,
            "{name}"
        );
    }
}
