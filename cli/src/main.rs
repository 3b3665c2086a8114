//! The `whimbrel` command: runs a hub, manages devices, sends, watches. Thin: what it does, the libraries do.

mod as_device;
mod commands;
mod demo;
mod failure;
mod output;
mod service;

use std::{io::IsTerminal, process::ExitCode};

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use commands::{command, device, feedback, hub, monitor, reference, send};

/// Durable messages between devices and a back end, at least once, through bad networks and power cuts.
#[derive(Parser)]
#[command(name = "whimbrel", version, propagate_version = true, after_help = AFTER_HELP)]
struct Whimbrel {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
In an empty folder:
  whimbrel hub                                 runs a hub, data in ./whimbrel-data, for this machine only
  whimbrel device add thermostat-1             a device, and its connection string
  whimbrel send thermostat-1 '{\"t\":21.5}'      an event from it
  whimbrel monitor --follow                    events as they come
  whimbrel command send thermostat-1 reboot    a command to it, kept until it comes
  whimbrel device receive thermostat-1         commands, as the device gets them
Without any folder:
  whimbrel demo                                all of it, with cut networks and killed processes

Exit codes:
  0  done
  1  failed
  2  wrong usage or settings
  3  not everything was delivered, and what is left stays in the outbox; or a command was not completed
  4  the hub cannot be reached, or none is running
  5  the hub refused the credentials

Variables: WHIMBREL_DATA, WHIMBREL_SERVER, WHIMBREL_CONNECTION_STRING, WHIMBREL_CA as the options of these names;
WHIMBREL_HUB_… as the settings of the hub; WHIMBREL_LOG for the log on stderr, such as debug or whimbrel_hub=debug.";

#[derive(Subcommand)]
enum Command {
    /// Run a hub on this machine
    Hub(hub::Arguments),
    /// Create, list, show, enable, disable and delete devices; rotate their keys
    #[command(subcommand)]
    Device(device::Command),
    /// Send events as a device, through a durable outbox
    Send(send::Arguments),
    /// Show events: those there are, or as they come
    Monitor(monitor::Arguments),
    /// Send commands to devices, and see how they ended
    #[command(subcommand)]
    Command(command::Command),
    /// Show what became of commands that asked for feedback
    Feedback(feedback::Arguments),
    /// Show the main job while everything goes wrong: cut network, killed device, killed hub
    Demo(demo::Options),
    #[command(hide = true)]
    DemoDevice(demo::device::Options),
    #[command(hide = true)]
    DemoHub(demo::hub::Options),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print a part of the documentation that is made from the code
    #[command(hide = true)]
    Reference(reference::Arguments),
}

fn main() -> ExitCode {
    let arguments = Whimbrel::parse();
    let usual = if matches!(arguments.command, Command::Hub(_)) { "info" } else { "warn" };
    let filter = EnvFilter::try_from_env("WHIMBREL_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();

    let result = match arguments.command {
        Command::Reference(arguments) => reference::run(&arguments),
        Command::Completions { shell } => {
            commands::completions::<Whimbrel>(shell);
            Ok(ExitCode::SUCCESS)
        }
        Command::Hub(arguments) => in_runtime(hub::run(arguments)),
        Command::Device(command) => in_runtime(device::run(command)),
        Command::Send(arguments) => in_runtime(send::run(arguments)),
        Command::Demo(options) => in_runtime(demo::run(options)),
        Command::DemoDevice(options) => in_runtime(demo::device::run(options)),
        Command::DemoHub(options) => in_runtime(demo::hub::run(options)),
        Command::Monitor(arguments) => in_runtime(monitor::run(arguments)),
        Command::Command(command) => in_runtime(command::run(command)),
        Command::Feedback(arguments) => in_runtime(feedback::run(arguments)),
    };
    result.unwrap_or_else(|failure| failure.report())
}

fn in_runtime(work: impl Future<Output = failure::Result<ExitCode>>) -> failure::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| failure::Failure::new("the program cannot start its threads").caused_by(error))?;
    let result = runtime.block_on(work);
    // Reading from a terminal blocks a thread for ever: do not wait for it.
    runtime.shutdown_background();
    result
}
