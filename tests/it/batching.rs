//! Many requests at once: each gets what it would get alone, and none waits for longer than it must.

use crate::support::harness::{engine, gpu_engine, tiny};
use llamero::engine::{Event, Generation, JobResult, Model, Request, RequestId, Update};
use llamero::error::{Error, ErrorKind, Result};
use llamero::exec::cpu::{CpuExecutor, CpuOptions};
use llamero::exec::gpu::{CacheType, GpuOptions};
use llamero::exec::reference::ReferenceExecutor;
use llamero::exec::{Executor, ExecutorInfo, Limits, LocalBoxFuture, Pending, Step};
use llamero::plan::{History, Plan, Sampling, TensorId, TokenMask};
use std::cell::RefCell;
use std::rc::Rc;

/// A prompt of `len` ids that `seed` makes different from others, from its first one on.
fn ids(len: u32, seed: u32) -> Vec<u32> {
    (0..len)
        .map(|i| (i * i * 7 + i * 13 + seed * 31 + 5) % 250)
        .collect()
}

fn greedy(prompt: Vec<u32>, tokens: u32) -> Request {
    Request {
        ids: Some(prompt),
        max_new_tokens: Some(tokens),
        ignore_eos: Some(true),
        ..Request::default()
    }
}

fn sampled(prompt: Vec<u32>, tokens: u32, seed: u64) -> Request {
    Request {
        temperature: Some(1.5),
        top_p: Some(0.95),
        seed: Some(seed),
        ..greedy(prompt, tokens)
    }
}

/// What came of a request.
#[derive(Default)]
struct Outcome {
    events: Vec<Event>,
    result: Option<Result<Generation>>,
}

impl Outcome {
    fn generation(&self) -> &Generation {
        self.result
            .as_ref()
            .expect("it is done")
            .as_ref()
            .expect("a result")
    }

    fn sequences(&self) -> Vec<(Vec<u32>, String, &'static str)> {
        let sequences = self.generation().sequences.iter();
        sequences
            .map(|s| (s.ids.clone(), s.text.clone(), s.finish_reason))
            .collect()
    }

    fn tokens(&self) -> usize {
        self.events
            .iter()
            .filter(|event| matches!(event, Event::Token { .. }))
            .count()
    }
}

/// Runs requests, each from a given step on, to the end. `between` sees the engine, the ids so far and what came of
/// them after every step. Returns the outcomes, the order in which requests ended, and the number of steps.
fn drive(
    engine: &mut Model,
    arrivals: &[(usize, Request)],
    mut between: impl FnMut(&mut Model, &[RequestId], &[Outcome]),
) -> (Vec<Outcome>, Vec<usize>, usize) {
    let (mut requests, mut outcomes, mut ended, mut steps) =
        (Vec::new(), Vec::<Outcome>::new(), Vec::new(), 0);
    loop {
        while let Some((_, request)) = arrivals.get(requests.len()).filter(|(at, _)| *at <= steps) {
            requests.push(engine.enqueue(request, 0).unwrap());
            outcomes.push(Outcome::default());
        }
        let goes_on = pollster::block_on(engine.step());
        steps += 1;
        for (id, update) in engine.updates() {
            let at = requests
                .iter()
                .position(|request| *request == id)
                .expect("an id that was given");
            assert!(outcomes[at].result.is_none(), "nothing comes after the end");
            match update {
                Update::Event(event) => outcomes[at].events.push(event),
                Update::Done(result) => {
                    outcomes[at].result = Some(result.and_then(JobResult::generation));
                    ended.push(at);
                }
            }
        }
        between(engine, &requests, &outcomes);
        if !goes_on
            && requests.len() == arrivals.len()
            && outcomes.iter().all(|o| o.result.is_some())
        {
            return (outcomes, ended, steps);
        }
        assert!(steps < 10_000, "it does not end");
    }
}

fn alone(engine: &mut Model, request: &Request) -> Outcome {
    drive(engine, &[(0, request.clone())], |_, _, _| {})
        .0
        .remove(0)
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

type Make = Box<dyn Fn() -> Model>;

/// Makes engines: on every executor, and on the GPU with small steps, of which more or fewer run ahead.
fn makers(context: u32) -> Vec<(&'static str, Make)> {
    let mut makers: Vec<(&'static str, Make)> = vec![
        (
            "reference",
            Box::new(move || {
                engine(&tiny("F32"), context, |plan| {
                    Box::new(reference(plan, context))
                })
            }),
        ),
        (
            "cpu",
            Box::new(move || {
                let options = CpuOptions {
                    cache_f16: Some(false),
                    ..CpuOptions::default()
                };
                engine(&tiny("F32"), context, |plan| {
                    Box::new(CpuExecutor::new(plan.clone(), context, options).unwrap())
                })
            }),
        ),
    ];
    if cfg!(gpu) {
        for (name, max_rows, run_ahead) in [
            ("gpu", None, None),
            ("gpu, small steps", Some(16), Some(4)),
            ("gpu, none ahead", Some(16), Some(1)),
        ] {
            let options = GpuOptions {
                max_rows,
                run_ahead,
                ..exact()
            };
            makers.push((
                name,
                Box::new(move || gpu_engine(&tiny("F32"), context, &options)),
            ));
        }
    }
    makers
}

fn reference(plan: &Plan, context: u32) -> ReferenceExecutor {
    ReferenceExecutor::new(plan.clone(), Limits::for_context(context, 64, 1)).unwrap()
}

#[test]
fn requests_together_are_as_each_alone() {
    // The second and the last begin alike; the long ones take several steps.
    let stop = |text: &str| Some(vec![text.into()]);
    let requests = [
        greedy(ids(5, 1), 30),
        sampled(ids(150, 2), 12, 3),
        Request {
            num_return_sequences: Some(3),
            ..sampled(ids(40, 3), 20, 4)
        },
        Request {
            stop: stop("e"),
            ..sampled(ids(9, 4), 40, 5)
        },
        Request {
            repetition_penalty: Some(1.3),
            frequency_penalty: Some(0.5),
            ..greedy(ids(33, 5), 25)
        },
        Request {
            presence_penalty: Some(1.0),
            stop: stop("a"),
            ..sampled(ids(1, 6), 40, 6)
        },
        sampled(ids(151, 2), 10, 7),
    ];
    for (name, make) in makers(512) {
        let mut engine = make();
        let all_alone: Vec<Outcome> = requests
            .iter()
            .map(|request| alone(&mut engine, request))
            .collect();
        let mut engine = make();
        for apart in [0, 1, 3] {
            let arrivals: Vec<_> = requests
                .iter()
                .enumerate()
                .map(|(i, r)| (i * apart, r.clone()))
                .collect();
            let (together, ..) = drive(&mut engine, &arrivals, |_, _, _| {});
            for (i, (together, alone)) in together.iter().zip(&all_alone).enumerate() {
                assert_eq!(
                    together.sequences(),
                    alone.sequences(),
                    "{name}: request {i}, {apart} steps apart"
                );
                for (index, sequence) in together.generation().sequences.iter().enumerate() {
                    let text: String = together
                        .events
                        .iter()
                        .filter_map(|e| text_of(e, index as u32))
                        .collect();
                    assert_eq!(
                        text, sequence.text,
                        "{name}: request {i} streams its own text"
                    );
                }
            }
        }
    }
}

fn text_of(event: &Event, sequence: u32) -> Option<&str> {
    match event {
        Event::Token { index, text, .. } if *index == sequence => Some(text),
        _ => None,
    }
}

#[test]
fn company_takes_no_more_steps() {
    for (name, make) in makers(512) {
        let request = |seed: u32| greedy(ids(6, seed), 20);
        let mut engine = make();
        let (_, _, one) = drive(&mut engine, &[(0, request(0))], |_, _, _| {});
        let four: Vec<_> = (1..5).map(|seed| (0, request(seed))).collect();
        let (_, _, steps) = drive(&mut engine, &four, |_, _, _| {});
        // On small steps the four prompts do not fit one.
        assert!(
            steps <= one + 4,
            "{name}: {steps} steps for four, {one} for one"
        );
    }
}

#[test]
fn a_long_prompt_does_not_hold_the_others_up() {
    for (name, make) in makers(512) {
        let arrivals = [(0, greedy(ids(4, 1), 60)), (6, greedy(ids(400, 2), 4))];
        // Tokens of the first after each chunk of the second's prompt.
        let mut seen: Vec<(usize, usize)> = Vec::new();
        let (outcomes, ..) = drive(&mut make(), &arrivals, |_, _, outcomes| {
            let chunks = outcomes.get(1).map_or(0, |o| o.events.len() - o.tokens());
            seen.push((chunks, outcomes[0].tokens()));
        });
        assert_eq!(outcomes[0].tokens(), 60, "{name}");
        let chunks = outcomes[1].events.len() - outcomes[1].tokens();
        assert!(chunks >= 3, "{name}: {chunks} reports of 400 positions");
        // As it ran ahead, several chunks may be reported at once, but then as many tokens come.
        let before = seen.iter().find(|(chunks, _)| *chunks > 0).unwrap().1;
        let after = seen.iter().find(|(n, _)| *n == chunks).unwrap().1;
        assert!(
            after - before + 4 >= (chunks - 1).min(60 - before),
            "{name}: {} tokens in {chunks} chunks",
            after - before
        );
    }
}

#[test]
fn what_does_not_fit_waits_its_turn() {
    for (name, make) in makers(64) {
        // Two pages: each of these needs both.
        let requests: Vec<Request> = (0..3)
            .map(|seed| sampled(ids(30, seed), 30, u64::from(seed)))
            .collect();
        let arrivals: Vec<_> = requests
            .iter()
            .map(|request| (0, request.clone()))
            .collect();
        let (mut engine, mut other) = (make(), make());
        let (outcomes, ended, _) = drive(&mut engine, &arrivals, |_, _, _| {});
        assert_eq!(ended, [0, 1, 2], "{name}");
        for (outcome, request) in outcomes.iter().zip(&requests) {
            assert_eq!(
                outcome.sequences(),
                alone(&mut other, request).sequences(),
                "{name}"
            );
        }
        // These run two at a time.
        let many: Vec<_> = (0..40)
            .map(|seed| (0, sampled(ids(3, seed), 4, 1)))
            .collect();
        let (outcomes, ..) = drive(&mut engine, &many, |_, _, _| {});
        assert!(
            outcomes.iter().all(|outcome| outcome.tokens() == 4),
            "{name}"
        );
    }
}

#[test]
fn a_cancelled_request_leaves_the_others_be() {
    for (name, make) in makers(512) {
        let requests = [
            sampled(ids(20, 1), 30, 1),
            Request {
                num_return_sequences: Some(4),
                ..sampled(ids(70, 2), 200, 2)
            },
            sampled(ids(30, 3), 30, 3),
            // Cancelled before it is begun: nothing is left for it.
            greedy(ids(300, 4), 212),
        ];
        let arrivals: Vec<_> = requests
            .iter()
            .map(|request| (0, request.clone()))
            .collect();
        let (mut engine, mut other) = (make(), make());
        let mut cancelled = 0;
        let (outcomes, ..) = drive(&mut engine, &arrivals, |engine, requests, outcomes| {
            if cancelled == 0 && outcomes[1].tokens() >= 8 {
                engine.cancel(requests[1]);
                engine.cancel(requests[3]);
                // Once more does nothing.
                engine.cancel(requests[1]);
                cancelled += 1;
            }
        });
        let partial = outcomes[1].sequences();
        assert_eq!(partial.len(), 4, "{name}");
        for ((ids, text, reason), whole) in partial
            .iter()
            .zip(alone(&mut other, &requests[1]).sequences())
        {
            assert_eq!(*reason, "aborted", "{name}");
            assert!(
                ids.len() < 200 && whole.0.starts_with(ids),
                "{name}: {ids:?}"
            );
            assert!(
                whole.1.starts_with(text.trim_end_matches('\u{FFFD}')),
                "{name}: {text:?}"
            );
        }
        assert_eq!(
            outcomes[1].generation().usage.completion_tokens as usize,
            outcomes[1].tokens(),
            "{name}"
        );
        assert_eq!(
            outcomes[3].sequences(),
            [(Vec::new(), String::new(), "aborted")],
            "{name}"
        );
        for at in [0, 2] {
            assert_eq!(
                outcomes[at].sequences(),
                alone(&mut other, &requests[at]).sequences(),
                "{name}"
            );
        }
        // All pages are free again, or can be: the whole context fits.
        let whole = greedy(ids(300, 5), 212);
        assert_eq!(
            alone(&mut engine, &whole).sequences(),
            alone(&mut other, &whole).sequences(),
            "{name}"
        );
    }
}

/// Drives a request and cancels it once it has so many tokens.
fn cancelled_after(engine: &mut Model, request: &Request, tokens: usize) -> Outcome {
    let cancel = |engine: &mut Model, requests: &[RequestId], outcomes: &[Outcome]| {
        if outcomes[0].result.is_none() && outcomes[0].tokens() >= tokens {
            engine.cancel(requests[0]);
        }
    };
    drive(engine, &[(0, request.clone())], cancel).0.remove(0)
}

#[test]
fn a_cancelled_request_gives_what_a_shorter_one_would() {
    for (name, make) in makers(512) {
        let (mut engine, mut other) = (make(), make());
        for request in [sampled(ids(20, 1), 200, 1), greedy(ids(150, 2), 200)] {
            let outcome = cancelled_after(&mut engine, &request, 7);
            let partial = outcome.generation();
            assert_eq!(partial.sequences[0].finish_reason, "aborted", "{name}");
            assert_eq!(outcome.tokens(), 7, "{name}: it ended at once");
            let shorter = alone(
                &mut other,
                &Request {
                    max_new_tokens: Some(7),
                    ..request.clone()
                },
            );
            let (ids, text, _) = shorter.sequences().remove(0);
            assert_eq!(
                (&partial.sequences[0].ids, &partial.sequences[0].text),
                (&ids, &text),
                "{name}"
            );
            assert_eq!(partial.usage, shorter.generation().usage, "{name}");
            assert!(
                partial.timings.prefill_ms > 0.0 && partial.timings.decode_tokens_per_second > 0.0,
                "{name}"
            );
            // What it left in the cache is right.
            let again = alone(
                &mut engine,
                &Request {
                    max_new_tokens: Some(30),
                    ..request.clone()
                },
            );
            assert!(again.generation().usage.cached_tokens > 0, "{name}");
            let fresh = alone(
                &mut make(),
                &Request {
                    max_new_tokens: Some(30),
                    ..request
                },
            );
            assert_eq!(again.sequences(), fresh.sequences(), "{name}");
        }
    }
}

#[test]
fn a_prompt_that_is_given_up_leaves_what_was_computed() {
    for (name, make) in makers(512) {
        let mut engine = make();
        let prompt = greedy(ids(400, 1), 20);
        let mut steps = 0;
        let (outcomes, ..) = drive(
            &mut engine,
            &[(0, prompt.clone())],
            |engine, requests, outcomes| {
                if outcomes[0].result.is_none() {
                    steps += 1;
                    engine.cancel(requests[0]);
                }
            },
        );
        assert_eq!(steps, 1, "{name}: it is answered with the next step");
        let generation = outcomes[0].generation();
        assert_eq!(
            outcomes[0].sequences(),
            [(Vec::new(), String::new(), "aborted")],
            "{name}"
        );
        let usage = &generation.usage;
        assert_eq!(
            (
                usage.prompt_tokens,
                usage.completion_tokens,
                usage.total_tokens
            ),
            (400, 0, 400),
            "{name}"
        );
        let timings = &generation.timings;
        assert!(
            timings.prefill_ms > 0.0 && timings.prefill_tokens_per_second > 0.0,
            "{name}: {timings:?}"
        );
        assert_eq!(
            (timings.decode_ms, timings.decode_tokens_per_second),
            (0.0, 0.0),
            "{name}"
        );
        let again = alone(&mut engine, &prompt);
        assert!(again.generation().usage.cached_tokens > 0, "{name}");
        assert_eq!(
            again.sequences(),
            alone(&mut make(), &prompt).sequences(),
            "{name}"
        );
    }
}

#[test]
fn cancelled_before_its_first_step() {
    let (mut engine, log) = watched(128);
    let id = engine
        .enqueue(
            &Request {
                num_return_sequences: Some(2),
                ..sampled(ids(9, 1), 5, 1)
            },
            0,
        )
        .unwrap();
    engine.cancel(id);
    assert!(!pollster::block_on(engine.step()));
    let mut updates = engine.updates();
    let Some((_, Update::Done(Ok(JobResult::Generation(generation))))) = updates.pop() else {
        panic!("no result")
    };
    assert!(updates.is_empty());
    assert_eq!(
        generation
            .sequences
            .iter()
            .map(|s| (s.ids.len(), s.finish_reason))
            .collect::<Vec<_>>(),
        [(0, "aborted"), (0, "aborted")]
    );
    assert_eq!(
        (
            generation.usage.prompt_tokens,
            generation.usage.completion_tokens
        ),
        (9, 0)
    );
    assert!(log.borrow().steps.is_empty());
}

#[test]
fn text_that_was_held_back_is_part_of_an_aborted_result() {
    let mut engine = makers(512).remove(0).1();
    let request = sampled(ids(20, 1), 60, 1);
    let whole = alone(&mut engine, &request);
    // A token after which the text ends in a plain character, which could begin a stop text.
    let mut text = String::new();
    let mut tokens = 0;
    for event in whole
        .events
        .iter()
        .filter(|event| matches!(event, Event::Token { .. }))
    {
        text.push_str(text_of(event, 0).unwrap());
        tokens += 1;
        if tokens > 3 && text.ends_with(|c: char| c.is_ascii_graphic()) {
            break;
        }
    }
    let stop = format!("{}\u{1F999}", text.chars().last().unwrap());
    let outcome = cancelled_after(
        &mut engine,
        &Request {
            stop: Some(vec![stop]),
            ..request
        },
        tokens,
    );
    assert_eq!(
        outcome.sequences(),
        [(
            whole.sequences()[0].0[..tokens].to_vec(),
            text.clone(),
            "aborted"
        )]
    );
    let streamed: String = outcome
        .events
        .iter()
        .filter_map(|event| text_of(event, 0))
        .collect();
    assert!(
        text.starts_with(&streamed) && streamed.len() < text.len(),
        "{streamed:?} of {text:?}"
    );
}

#[test]
fn what_the_cache_holds_is_computed_once() {
    for (name, make) in makers(512) {
        let mut engine = make();
        let first = alone(&mut engine, &greedy(ids(80, 1), 12));
        assert_eq!(first.generation().usage.cached_tokens, 0, "{name}");
        // The next turn of a chat.
        let mut longer = ids(80, 1);
        longer.extend(&first.generation().sequences[0].ids);
        longer.extend([70, 71, 72]);
        // Another conversation in between.
        alone(&mut engine, &greedy(ids(60, 2), 5));
        let warm = alone(&mut engine, &greedy(longer.clone(), 6));
        // All but the three new ones and the last token drawn, which was never run.
        assert_eq!(warm.generation().usage.cached_tokens, 91, "{name}");
        assert_eq!(
            warm.sequences(),
            alone(&mut make(), &greedy(longer.clone(), 6)).sequences(),
            "{name}"
        );
        // What parts ways in the second page shares the first, and leaves the others to their owner.
        let mut parted = longer.clone();
        parted[40] += 1;
        assert_eq!(
            alone(&mut engine, &greedy(parted, 6))
                .generation()
                .usage
                .cached_tokens,
            32,
            "{name}"
        );
        let again = alone(&mut engine, &greedy(longer, 6));
        assert_eq!(again.generation().usage.cached_tokens, 64, "{name}");
        assert_eq!(again.sequences(), warm.sequences(), "{name}");
    }
}

#[test]
fn pages_that_were_not_used_for_longest_go_first() {
    let mut engine = makers(128).remove(0).1();
    let cached = |engine: &mut Model, seed| {
        alone(engine, &greedy(ids(33, seed), 2))
            .generation()
            .usage
            .cached_tokens
    };
    // Four pages: each of these leaves one and a part of another.
    assert_eq!(cached(&mut engine, 1), 0);
    assert_eq!(cached(&mut engine, 2), 0);
    assert_eq!(cached(&mut engine, 1), 32);
    assert_eq!(cached(&mut engine, 3), 0);
    assert_eq!(cached(&mut engine, 1), 32, "used lately");
    assert_eq!(cached(&mut engine, 2), 0, "gone");
}

/// What an executor was asked: rows and heads of each step, and when it is to fail.
#[derive(Default)]
struct Log {
    steps: Vec<(usize, usize)>,
    fail_at: Option<usize>,
}

struct Watched {
    inner: ReferenceExecutor,
    log: Rc<RefCell<Log>>,
}

impl Executor for Watched {
    fn info(&self) -> ExecutorInfo {
        self.inner.info()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn load_rows(&mut self, tensor: TensorId, first_row: u64, bytes: &[u8]) -> Result<()> {
        self.inner.load_rows(tensor, first_row, bytes)
    }

    fn flush_loads(&mut self) -> LocalBoxFuture<'static, Result<()>> {
        self.inner.flush_loads()
    }

    fn set_pages(&mut self, seq: u32, pages: &[u32]) -> Result<()> {
        self.inner.set_pages(seq, pages)
    }

    fn set_sampling(&mut self, seq: u32, sampling: &Sampling, history: History<'_>) -> Result<()> {
        self.inner.set_sampling(seq, sampling, history)
    }

    fn set_mask(&mut self, seq: u32, mask: &TokenMask) -> Result<()> {
        self.inner.set_mask(seq, mask)
    }

    fn submit(&mut self, step: Step<'_>) -> Result<Pending> {
        let mut log = self.log.borrow_mut();
        if let Step::Rows { rows, heads, .. } = &step {
            log.steps.push((rows.len(), heads.len()));
        }
        if log.fail_at == Some(log.steps.len()) {
            log.fail_at = None;
            return Ok(Box::pin(async {
                Err(Error::new(ErrorKind::DeviceLost, "unplugged"))
            }));
        }
        self.inner.submit(step)
    }
}

fn watched(context: u32) -> (Model, Rc<RefCell<Log>>) {
    let log = Rc::<RefCell<Log>>::default();
    let theirs = log.clone();
    let engine = engine(&tiny("F32"), context, |plan| {
        Box::new(Watched {
            inner: reference(plan, context),
            log: theirs,
        })
    });
    (engine, log)
}

#[test]
fn one_prompt_is_computed_once_for_all_its_sequences() {
    let (mut engine, log) = watched(512);
    let request = Request {
        num_return_sequences: Some(4),
        ..sampled(ids(40, 1), 5, 1)
    };
    alone(&mut engine, &request);
    // One step: the page that all share, and what follows it for each. Nothing but sampled steps comes after.
    assert_eq!(log.borrow().steps, [(32 + 4 * 8, 4)]);

    // Two callers with the same beginning, at the same time.
    let (mut engine, log) = watched(512);
    let arrivals = [
        (0, greedy(ids(100, 2), 3)),
        (0, greedy([ids(90, 2), ids(10, 3)].concat(), 3)),
    ];
    let (outcomes, ..) = drive(&mut engine, &arrivals, |_, _, _| {});
    assert_eq!(outcomes[1].generation().usage.cached_tokens, 64);
    let prompts: usize = log
        .borrow()
        .steps
        .iter()
        .map(|(rows, heads)| if *rows > 2 { *rows - *heads } else { 0 })
        .sum();
    assert!(prompts <= 100 + 36, "{:?}", log.borrow().steps);
}

#[test]
fn a_step_that_fails_fails_what_runs_and_nothing_after() {
    let (mut engine, log) = watched(128);
    log.borrow_mut().fail_at = Some(2);
    let arrivals = [(0, greedy(ids(70, 1), 5)), (0, greedy(ids(20, 2), 5))];
    let (outcomes, ..) = drive(&mut engine, &arrivals, |_, _, _| {});
    for outcome in &outcomes {
        let error = outcome
            .result
            .as_ref()
            .unwrap()
            .as_ref()
            .expect_err("the device is gone");
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::DeviceLost, "unplugged")
        );
    }
    let after = alone(&mut engine, &greedy(ids(70, 1), 58));
    assert_eq!(
        after.generation().usage.cached_tokens,
        0,
        "what it left in the cache is not trusted"
    );
    assert_eq!(
        after.sequences(),
        alone(&mut watched(128).0, &greedy(ids(70, 1), 58)).sequences()
    );
}

#[test]
fn logits_run_beside_requests() {
    let (mut engine, _) = watched(128);
    let id = engine.enqueue(&greedy(ids(3, 1), 5), 0).unwrap();
    pollster::block_on(engine.step());
    let mut rows = 0;
    let count = |_: usize, values: &[f32]| {
        rows += values.len() / 320;
        Ok(())
    };
    pollster::block_on(engine.logits(&ids(64, 1), count)).unwrap();
    assert_eq!(rows, 64);
    let tokens = |updates: &[(RequestId, Update)]| {
        updates
            .iter()
            .filter(|(of, update)| {
                *of == id && matches!(update, Update::Event(Event::Token { .. }))
            })
            .count()
    };
    assert!(tokens(&engine.updates()) > 0, "the request went on");
}
