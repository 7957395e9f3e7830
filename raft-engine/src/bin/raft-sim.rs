//! Runs simulator seeds and tells what they found: `raft-sim --seeds N [--from S] [--threads T]`, or
//! `raft-sim --seed X [--trace] [--without THING,...]` for one, with every step. The first seeds that fail are made
//! smaller: run again and again without what the failure does not need.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use raft_engine::sim::{Coverage, Options, Reduction, Report, run, shrink};

/// What the command line asks for.
struct Arguments {
    first: u64,
    count: u64,
    threads: u64,
    trace: bool,
    reductions: Vec<Reduction>,
    is_single: bool,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(message) => {
            eprintln!("raft-sim: {message}");
            eprintln!(
                "usage: raft-sim --seeds N [--from S] [--threads T] | raft-sim --seed X [--trace] [--without THING,...]"
            );
            return ExitCode::from(2);
        }
    };
    if arguments.is_single {
        let report = run(Options {
            seed: arguments.first,
            reductions: arguments.reductions,
            trace: arguments.trace,
            ..Options::default()
        });
        println!("seed {}: {} steps, trace hash {:016x}", report.seed, report.steps, report.trace_hash);
        if let Some(failure) = &report.failure {
            println!("{failure}");
            return ExitCode::FAILURE;
        }
        print!("{}", report.coverage);
        return ExitCode::SUCCESS;
    }
    many(&arguments)
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments =
        Arguments { first: 0, count: 200, threads: 1, trace: false, reductions: Vec::new(), is_single: false };
    while let Some(word) = words.next() {
        if word == "--without" {
            let list = words.next().ok_or("--without needs names")?;
            arguments.reductions = list.split(',').map(str::parse).collect::<Result<_, _>>()?;
            continue;
        }
        let mut number = || {
            let text = words.next().ok_or_else(|| format!("{word} needs a number"))?;
            text.parse::<u64>().map_err(|error| format!("{word} {text}: {error}"))
        };
        match word.as_str() {
            "--seeds" => arguments.count = number()?,
            "--from" => arguments.first = number()?,
            "--threads" => arguments.threads = number()?.max(1),
            "--seed" => {
                arguments.first = number()?;
                arguments.is_single = true;
            }
            "--trace" => arguments.trace = true,
            other => return Err(format!("unknown argument {other}")),
        }
    }
    Ok(arguments)
}

/// Runs seeds one after another on each thread; every seed is single-threaded in itself.
#[allow(clippy::disallowed_methods, reason = "it measures itself; no seed sees this clock")]
fn many(arguments: &Arguments) -> ExitCode {
    let begin = Instant::now();
    let end = arguments.first.saturating_add(arguments.count);
    let next = AtomicU64::new(arguments.first);
    let (reports, received) = mpsc::channel::<Report>();
    let (mut coverage, mut steps, mut done, mut failed) = (Coverage::default(), 0, 0_u64, Vec::new());
    let mut simulated = Duration::ZERO;
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads {
            let (reports, next) = (reports.clone(), &next);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || reports.send(run(Options { seed, ..Options::default() })).is_err() {
                        return;
                    }
                }
            });
        }
        drop(reports);
        for report in received {
            coverage.add(&report.coverage);
            steps += report.steps;
            simulated += report.simulated;
            done += 1;
            if let Some(failure) = &report.failure {
                if failed.len() < 3 {
                    println!("{}\n", shrink(&report).as_ref().unwrap_or(failure));
                } else {
                    println!("seed {} failed: {}", failure.seed, failure.what);
                }
                failed.push(failure.seed);
            }
            if done.is_multiple_of(500) {
                let hours = simulated.as_secs_f64() / 3600.0;
                let failed = failed.len();
                println!("{done} seeds, {failed} failed, {:.0} steps/s, {hours:.1} h simulated", rate(steps, begin));
            }
        }
    });
    print!("{coverage}");
    for never in coverage.never() {
        println!("NEVER REACHED: {never}");
    }
    let average = steps / done.max(1);
    let hours = simulated.as_secs_f64() / 3600.0;
    println!(
        "{done} seeds, {steps} steps ({average} a seed), {:.0} steps/s, {hours:.1} h simulated",
        rate(steps, begin)
    );
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    failed.sort_unstable();
    println!("{} failed: {failed:?}", failed.len());
    ExitCode::FAILURE
}

fn rate(steps: u64, begin: Instant) -> f64 {
    steps as f64 / begin.elapsed().as_secs_f64().max(1e-9)
}
