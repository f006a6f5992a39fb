//! The native command line.
//!
//! Results are JSON on stdout. Warnings, progress and streamed text go to stderr. The exit status is 0, or 1 after an
//! error of one line.

mod args;
mod commands;
mod files;
mod gguf_writer;
mod load;
mod npy;
mod output;

use args::{Cli, Command};
use clap::Parser;
use commands::{
    bench, capture, detokenize, generate, inspect, logits, make, perplexity, requantize, score,
    template, tokenize,
};
use llamero::error::Result;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // --help and --version
        Err(told) if !told.use_stderr() => {
            print!("{told}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let words = error.to_string();
            let lines: Vec<&str> = words
                .lines()
                .map(str::trim)
                .take_while(|line| !line.starts_with("Usage:"))
                .collect();
            eprintln!("{}; see --help", lines.join(" ").trim());
            return ExitCode::FAILURE;
        }
    };
    match pollster::block_on(run(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Inspect(args) => inspect::run(args).await,
        Command::Tokenize(args) => tokenize::run(args).await,
        Command::Detokenize(args) => detokenize::run(args).await,
        Command::Template(args) => template::run(args).await,
        Command::Logits(args) => logits::run(args).await,
        Command::Score(args) => score::run(args).await,
        Command::Capture(args) => capture::run(args).await,
        Command::Generate(args) => generate::run(*args).await,
        Command::Perplexity(args) => perplexity::run(args).await,
        Command::Bench(args) => bench::run(args).await,
        Command::Make(args) => make::run(args),
        Command::Requantize(args) => requantize::run(args).await,
    }
}
