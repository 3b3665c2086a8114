//! Benchmarks of Whimbrel: `cargo xtask bench`, or one of them: `cargo xtask bench ingest`.
//!
//! Every figure stands beside the limit of the machine it was measured on; only that ratio says something elsewhere.
// A benchmark that is wrong should stop.
#![allow(clippy::indexing_slicing)]

mod append;
mod commands;
mod ingest;
mod null_server;
mod outbox;
mod outcomes;
mod publish;
mod read;

use clap::{Parser, Subcommand};

/// Benchmarks of Whimbrel.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    benchmark: Benchmark,
    /// Shorter runs: to see that it runs, not to compare.
    #[arg(long, global = true)]
    quick: bool,
}

#[derive(Subcommand)]
enum Benchmark {
    /// Everything.
    All,
    /// Durable appends to a journal, and opening one with a backlog.
    Append(append::Options),
    /// Commands sent to devices, delivered, completed, and told of.
    Commands(commands::Options),
    /// Devices publish to a hub on loopback, which stores before it acknowledges.
    Ingest(ingest::Options),
    /// No benchmark: an MQTT server that acknowledges at once, for the clients of other languages.
    NullServer(null_server::Options),
    /// Messages into an outbox and out of it, beside the bare journal.
    Outbox(outbox::Options),
    /// How long the service client waits until a command is stored, and until it hears how it ended.
    Outcomes(outcomes::Options),
    /// A device publishes through its outbox to a server that acknowledges at once, beside rumqttc without an outbox.
    Publish(publish::Options),
    /// Events read over AMQP, beside the AMQP crate alone and beside reading in process.
    Read(read::Options),
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    match options.benchmark {
        Benchmark::All => {
            append::run(&append::Options::default(), options.quick)?;
            outbox::run(&outbox::Options::default(), options.quick)?;
            ingest::run(&ingest::Options::default(), options.quick)?;
            commands::run(&commands::Options::default(), options.quick)?;
            outcomes::run(&outcomes::Options::default(), options.quick)?;
            publish::run(&publish::Options::default(), options.quick)?;
            read::run(&read::Options::default(), options.quick)
        }
        Benchmark::Append(append) => append::run(&append, options.quick),
        Benchmark::Commands(commands) => commands::run(&commands, options.quick),
        Benchmark::Ingest(ingest) => ingest::run(&ingest, options.quick),
        Benchmark::NullServer(server) => null_server::run(&server),
        Benchmark::Outbox(outbox) => outbox::run(&outbox, options.quick),
        Benchmark::Outcomes(outcomes) => outcomes::run(&outcomes, options.quick),
        Benchmark::Publish(publish) => publish::run(&publish, options.quick),
        Benchmark::Read(read) => read::run(&read, options.quick),
    }
}
