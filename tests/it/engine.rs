//! The generation loop on a model that the command line makes: what a request means, on every executor.

use crate::support::harness;
use crate::support::harness::{assert_agree, executors, tiny};
use llamero::engine::{Event, Generation, Host, Model, Request};
use llamero::error::{Error, ErrorKind, Result};
use llamero::exec::gpu::{CacheType, GpuOptions};

/// Collects events; cancels after some tokens.
#[derive(Default)]
struct Listener {
    events: Vec<Event>,
    cancel_after: Option<usize>,
}

impl Listener {
    fn tokens(&self) -> usize {
        self.events
            .iter()
            .filter(|event| matches!(event, Event::Token { .. }))
            .count()
    }

    fn text(&self, sequence: u32) -> String {
        let text = |event: &Event| match event {
            Event::Token { index, text, .. } if *index == sequence => Some(text.clone()),
            _ => None,
        };
        self.events.iter().filter_map(text).collect()
    }
}

impl Host for Listener {
    fn event(&mut self, event: Event) -> Result<()> {
        self.events.push(event);
        Ok(())
    }

    fn cancelled(&self) -> bool {
        self.cancel_after.is_some_and(|n| self.tokens() >= n)
    }
}

fn prompt(text: &str, tokens: u32) -> Request {
    Request {
        prompt: Some(text.into()),
        max_new_tokens: Some(tokens),
        ignore_eos: Some(true),
        ..Request::default()
    }
}

fn sampled(text: &str, tokens: u32, sequences: u32) -> Request {
    Request {
        temperature: Some(1.5),
        top_k: Some(40),
        top_p: Some(0.95),
        seed: Some(11),
        num_return_sequences: Some(sequences),
        ..prompt(text, tokens)
    }
}

fn generate(engine: &mut Model, request: &Request) -> Generation {
    try_generate(engine, request, &mut Listener::default()).unwrap()
}

fn try_generate(
    engine: &mut Model,
    request: &Request,
    listener: &mut Listener,
) -> Result<Generation> {
    pollster::block_on(engine.generate(request, 0, listener))
}

fn ids(generation: &Generation) -> Vec<Vec<u32>> {
    generation
        .sequences
        .iter()
        .map(|sequence| sequence.ids.clone())
        .collect()
}

fn error(engine: &mut Model, request: &Request) -> Error {
    try_generate(engine, request, &mut Listener::default()).expect_err("an error")
}

#[test]
fn a_stream_spells_the_result() {
    for (name, mut engine) in executors(&tiny("Q8_0"), 128, &GpuOptions::default()) {
        let mut listener = Listener::default();
        let generation =
            try_generate(&mut engine, &sampled("Hello world", 24, 3), &mut listener).unwrap();
        assert_eq!(generation.sequences.len(), 3, "{name}");
        for (index, sequence) in generation.sequences.iter().enumerate() {
            assert_eq!(sequence.ids.len(), 24, "{name}");
            assert_eq!(sequence.finish_reason, "length", "{name}");
            assert_eq!(listener.text(index as u32), sequence.text, "{name}");
        }
        assert_eq!(listener.tokens(), 72, "{name}");
        assert_eq!(generation.usage.completion_tokens, 72, "{name}");
        let done: Vec<(u32, u32)> = listener
            .events
            .iter()
            .filter_map(|event| match event {
                Event::Prefill { done, total } => Some((*done, *total)),
                Event::Token { .. } | Event::Logits { .. } => None,
            })
            .collect();
        let prompt = generation.usage.prompt_tokens;
        assert_eq!(done.last(), Some(&(prompt, prompt)), "{name}: {done:?}");
    }
}

#[test]
fn one_seed_gives_one_text_on_every_executor() {
    let path = tiny("F32");
    let options = GpuOptions {
        cache: Some(CacheType::F32),
        ..GpuOptions::default()
    };
    let all: Vec<_> = executors(&path, 128, &options)
        .into_iter()
        .map(|(name, mut engine)| {
            let first = ids(&generate(&mut engine, &sampled("Hello", 20, 4)));
            assert_eq!(
                first,
                ids(&generate(&mut engine, &sampled("Hello", 20, 4))),
                "{name}: once more"
            );
            let other = Request {
                seed: Some(12),
                ..sampled("Hello", 20, 4)
            };
            assert_ne!(
                first,
                ids(&generate(&mut engine, &other)),
                "{name}: another seed"
            );
            (name, first)
        })
        .collect();
    assert_agree(&all);
}

/// Penalties, biases and a mask.
fn adjusted(request: Request) -> Request {
    Request {
        repetition_penalty: Some(1.3),
        presence_penalty: Some(0.25),
        frequency_penalty: Some(0.5),
        logit_bias: Some(vec![(40, 1.5), (41, -100.0)]),
        suppress_tokens: Some(vec![50, 51]),
        ..request
    }
}

/// The formulas of Transformers and `OpenAI`, applied by hand to the logits that the engine reports.
#[test]
fn greedy_with_penalties_is_what_the_formulas_say() {
    for (name, mut engine) in executors(
        &tiny("F32"),
        128,
        &GpuOptions {
            cache: Some(CacheType::F32),
            ..GpuOptions::default()
        },
    ) {
        let mut held: Vec<u32> = vec![5, 9, 200, 9];
        let request = Request {
            prompt: None,
            ids: Some(held.clone()),
            ..adjusted(prompt("", 16))
        };
        let got = ids(&generate(&mut engine, &request)).remove(0);
        let prompt_len = held.len();
        for (step, token) in got.iter().enumerate() {
            let mut last = Vec::new();
            let keep = |_: usize, rows: &[f32]| {
                last = rows[rows.len() - 320..].to_vec();
                Ok(())
            };
            pollster::block_on(engine.logits(&held, keep)).unwrap();
            let score = |id: u32| {
                let mut l = last[id as usize] + if id == 40 { 1.5 } else { 0.0 }
                    - if id == 41 { 100.0 } else { 0.0 };
                if held.contains(&id) {
                    l = if l > 0.0 { l / 1.3 } else { l * 1.3 };
                }
                let count = held[prompt_len..].iter().filter(|t| **t == id).count() as f32;
                let present = if count > 0.0 { 0.25 } else { 0.0 };
                if id == 50 || id == 51 {
                    f32::NEG_INFINITY
                } else {
                    l - 0.5 * count - present
                }
            };
            let best = (0..320)
                .max_by(|a, b| score(*a).total_cmp(&score(*b)))
                .unwrap();
            assert_eq!(*token, best, "{name}: token {step} of {got:?}");
            held.push(*token);
        }
        let plain = Request {
            prompt: None,
            ids: Some(held[..prompt_len].to_vec()),
            ..prompt("", 16)
        };
        assert_ne!(
            ids(&generate(&mut engine, &plain))[0],
            got,
            "{name}: the settings are felt"
        );
    }
}

#[test]
fn one_seed_gives_one_text_with_penalties_too() {
    let options = GpuOptions {
        cache: Some(CacheType::F32),
        ..GpuOptions::default()
    };
    let all: Vec<_> = executors(&tiny("F32"), 128, &options)
        .into_iter()
        .map(|(name, mut engine)| {
            let whole = generate(&mut engine, &adjusted(sampled("Hello", 20, 4)));
            // A sequence that ends first has the others submitted anew: they must not count a token twice.
            let stop: String = whole.sequences[1].text.chars().skip(4).take(2).collect();
            let stopped = Request {
                stop: Some(vec![stop]),
                ..adjusted(sampled("Hello", 20, 4))
            };
            let stopped = ids(&generate(&mut engine, &stopped));
            assert!(stopped[1].len() < 20, "{name}");
            for (stopped, whole) in stopped.iter().zip(ids(&whole)) {
                assert_eq!(*stopped, whole[..stopped.len()], "{name}");
            }
            (name, (ids(&whole), stopped))
        })
        .collect();
    assert_agree(&all);
}

#[test]
fn only_allowed_tokens_are_drawn() {
    for (name, mut engine) in executors(&tiny("Q8_0"), 128, &GpuOptions::default()) {
        let allowed = Request {
            allowed_tokens: Some(vec![7, 65, 319]),
            ..sampled("Hello", 30, 2)
        };
        let drawn = ids(&generate(&mut engine, &allowed)).concat();
        assert!(
            drawn.iter().all(|id| [7, 65, 319].contains(id)),
            "{name}: {drawn:?}"
        );
        assert!(drawn.iter().any(|id| *id != drawn[0]), "{name}: {drawn:?}");
        let one = Request {
            allowed_tokens: Some(vec![65]),
            ..prompt("Hello", 5)
        };
        assert_eq!(ids(&generate(&mut engine, &one)), [[65; 5]], "{name}");
        let beyond = Request {
            suppress_tokens: Some(vec![320]),
            ..prompt("Hello", 5)
        };
        let beyond = error(&mut engine, &beyond);
        assert_eq!(beyond.kind(), ErrorKind::InvalidInput, "{name}");
        assert!(
            beyond.to_string().contains("suppress_tokens"),
            "{name}: {beyond}"
        );
        // A setting of one request is not that of the next.
        assert_ne!(
            ids(&generate(&mut engine, &prompt("Hello", 5))),
            [[65; 5]],
            "{name}"
        );
    }
}

#[test]
fn sequences_together_are_as_each_alone() {
    for (name, mut engine) in executors(&tiny("F32"), 256, &GpuOptions::default()) {
        // 20 sequences need more than one group: there are 16 slots.
        let together = ids(&generate(&mut engine, &sampled("Once upon a time", 8, 20)));
        assert_eq!(together.len(), 20, "{name}");
        let alone = ids(&generate(&mut engine, &sampled("Once upon a time", 8, 1)));
        assert_eq!(together[0], alone[0], "{name}");
        let pair = ids(&generate(&mut engine, &sampled("Once upon a time", 8, 2)));
        assert_eq!(together[..2], pair[..], "{name}");
        let distinct: std::collections::HashSet<_> = together.iter().collect();
        assert!(
            distinct.len() > 15,
            "{name}: {} distinct of 20",
            distinct.len()
        );
    }
}

#[test]
fn stop_texts_end_the_text_before_themselves() {
    for (name, mut engine) in executors(&tiny("Q8_0"), 128, &GpuOptions::default()) {
        let request = Request {
            num_return_sequences: None,
            ..sampled("Hello", 40, 1)
        };
        let whole = generate(&mut engine, &request).sequences.remove(0).text;
        let letters: Vec<char> = whole.chars().collect();
        let stop: String = letters[10..13].iter().collect();
        let at = whole.find(&stop).unwrap();
        let mut listener = Listener::default();
        let request = Request {
            stop: Some(vec!["\u{1F999}".into(), stop.clone()]),
            ..request
        };
        let stopped = try_generate(&mut engine, &request, &mut listener)
            .unwrap()
            .sequences
            .remove(0);
        assert_eq!(stopped.finish_reason, "stop", "{name}");
        assert_eq!(stopped.text, whole[..at], "{name}");
        assert_eq!(
            listener.text(0),
            stopped.text,
            "{name}: the stream held the stop text back"
        );
        assert!(stopped.ids.len() < 40, "{name}");
    }
}

#[test]
#[cfg_attr(not(gpu), ignore = "needs a Vulkan driver")]
fn running_ahead_changes_nothing() {
    let path = tiny("Q8_0");
    let stop = {
        let mut engine = harness::gpu_engine(&path, 128, &GpuOptions::default());
        let whole = generate(&mut engine, &sampled("Hello", 30, 1))
            .sequences
            .remove(0)
            .text;
        whole.chars().skip(9).take(2).collect::<String>()
    };
    let all: Vec<_> = [1, 2, 4]
        .into_iter()
        .map(|run_ahead| {
            let options = GpuOptions {
                run_ahead: Some(run_ahead),
                ..GpuOptions::default()
            };
            let mut engine = harness::gpu_engine(&path, 128, &options);
            let stopped = Request {
                stop: Some(vec![stop.clone()]),
                ..sampled("Hello", 30, 1)
            };
            let mut runs = vec![
                generate(&mut engine, &stopped),
                generate(&mut engine, &prompt("Hello there", 20)),
            ];
            // What ran past the stop is not in the cache.
            runs.push(generate(&mut engine, &stopped));
            (
                format!("{run_ahead} ahead"),
                runs.iter().map(ids).collect::<Vec<_>>(),
            )
        })
        .collect();
    assert_agree(&all);
}

#[test]
fn a_cancelled_request_ends_and_the_next_one_runs() {
    for (name, mut engine) in executors(&tiny("Q8_0"), 128, &GpuOptions::default()) {
        let mut listener = Listener {
            cancel_after: Some(3),
            ..Listener::default()
        };
        let partial = try_generate(&mut engine, &prompt("Hello", 100), &mut listener).unwrap();
        assert_eq!(partial.sequences[0].finish_reason, "aborted", "{name}");
        assert_eq!(partial.sequences[0].ids.len(), listener.tokens(), "{name}");
        assert_eq!(
            partial.usage.completion_tokens as usize,
            listener.tokens(),
            "{name}"
        );
        assert_eq!(listener.tokens(), 3, "{name}");
        let after = generate(&mut engine, &prompt("Hello", 10));
        let fresh = executors(&tiny("Q8_0"), 128, &GpuOptions::default())
            .into_iter()
            .find(|(n, _)| *n == name)
            .unwrap();
        assert_eq!(
            ids(&after),
            ids(&generate(&mut { fresh.1 }, &prompt("Hello", 10))),
            "{name}"
        );
    }
}

#[test]
fn the_context_is_a_limit_with_words() {
    for (name, mut engine) in executors(&tiny("Q8_0"), 64, &GpuOptions::default()) {
        let long = error(&mut engine, &prompt(&"word ".repeat(100), 5));
        assert_eq!(long.kind(), ErrorKind::ContextOverflow, "{name}");
        assert!(long.to_string().contains("64"), "{name}: {long}");
        // What fits only in part is cut at the context's end.
        let filled = generate(&mut engine, &prompt("Hello", 1000));
        assert_eq!(filled.usage.total_tokens, 64, "{name}");
        assert_eq!(filled.sequences[0].finish_reason, "length", "{name}");
        // And five that do not fit side by side run one after the other.
        assert_eq!(
            generate(&mut engine, &sampled("Hello", 40, 5))
                .sequences
                .len(),
            5,
            "{name}"
        );
    }
}

#[test]
fn bad_requests_name_what_is_wrong() {
    let (_, mut engine) = executors(&tiny("Q8_0"), 64, &GpuOptions::default()).remove(0);
    let both = Request {
        ids: Some(vec![1]),
        ..prompt("a", 1)
    };
    assert!(
        error(&mut engine, &both)
            .to_string()
            .contains("exactly one")
    );
    let beyond = Request {
        prompt: None,
        ids: Some(vec![1, 320]),
        ..prompt("", 1)
    };
    let beyond = error(&mut engine, &beyond);
    assert_eq!(beyond.kind(), ErrorKind::InvalidInput);
    assert!(beyond.to_string().contains("320"), "{beyond}");
    let no_list = Request {
        prompt: None,
        messages: Some("hi".into()),
        ..prompt("", 1)
    };
    assert!(matches!(
        error(&mut engine, &no_list).kind(),
        ErrorKind::InvalidInput | ErrorKind::Template
    ));
    assert_eq!(
        generate(&mut engine, &prompt("", 3)).sequences[0].ids.len(),
        3,
        "an empty prompt starts from BOS"
    );
}

#[test]
fn perplexity_is_the_mean_of_the_logits_it_reports() {
    let (_, mut engine) = executors(&tiny("F32"), 64, &GpuOptions::default()).remove(0);
    let text: Vec<u32> = (0..50).map(|i| (i * 37 + 5) % 256).collect();
    let mut log_likelihood = 0.0;
    let collect = |first: usize, rows: &[f32]| {
        for (row, next) in rows.chunks_exact(320).zip(&text[first + 1..]) {
            let peak = row.iter().fold(f32::MIN, |a, b| a.max(*b));
            let sum: f64 = row.iter().map(|x| f64::from(x - peak).exp()).sum();
            log_likelihood += f64::from(row[*next as usize] - peak) - sum.ln();
        }
        Ok(())
    };
    pollster::block_on(engine.logits(&text, collect)).unwrap();
    let (perplexity, counted) = pollster::block_on(engine.perplexity(&text, 64)).unwrap();
    assert!(counted > 0);
    // The whole text fits one window, of which every token but the first is counted.
    assert_eq!(counted, text.len() - 1);
    let want = (-log_likelihood / counted as f64).exp();
    assert!(
        (perplexity / want - 1.0).abs() < 1e-5,
        "{perplexity} and {want}"
    );
}
