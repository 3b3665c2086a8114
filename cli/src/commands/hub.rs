//! `whimbrel hub`.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};
use whimbrel_hub::{Config, Hub};

use crate::{
    failure::{Failure, Result},
    output, service,
};

const AFTER_HELP: &str = "\
Every setting is also a line of a file (--config, see --print-config) and a variable (WHIMBREL_HUB_MQTT=…); flags come
before variables, variables before the file.

Examples:
  whimbrel hub                                   this machine only, data in ./whimbrel-data
  whimbrel hub --mqtts 0.0.0.0:8883 --host-name hub.example
  whimbrel hub --print-config > hub.toml && whimbrel hub --config hub.toml
  whimbrel hub --while-stdin                     ends with the program at the other end of the pipe";

/// The settings of a hub as flags, made from the one table of settings.
pub(crate) struct Arguments {
    config: Option<PathBuf>,
    print_config: bool,
    while_stdin: bool,
    flags: Vec<(String, String)>,
}

impl Args for Arguments {
    fn augment_args(command: Command) -> Command {
        let command = command
            .after_help(AFTER_HELP)
            .arg(
                Arg::new("config")
                    .long("config")
                    .value_name("FILE")
                    .value_parser(value_parser!(PathBuf))
                    .help("Configuration file (TOML)"),
            )
            .arg(
                Arg::new("print-config")
                    .long("print-config")
                    .action(ArgAction::SetTrue)
                    .help("Print a configuration file with every setting explained, and end"),
            )
            .arg(Arg::new("while-stdin").long("while-stdin").action(ArgAction::SetTrue).help(
                "Stop when standard input ends, as it does when the program that started the hub is gone",
            ));
        Config::SETTINGS.iter().fold(command, |command, setting| {
            let name = setting.name();
            let default =
                setting.default_text().map(|text| format!(" [default: {}]", text.trim_matches('"')));
            let help = setting.help() + &default.unwrap_or_default();
            let argument = Arg::new(&name).long(&name).value_name(setting.kind()).help(help);
            command.arg(match setting.kind() {
                "BOOL" => argument.num_args(0..=1).require_equals(true).default_missing_value("true"),
                _ => argument,
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Arguments {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let flag = |name: String| Some((matches.get_one::<String>(&name)?.clone(), name));
        let flags = Config::SETTINGS.iter().filter_map(|setting| flag(setting.name()));
        Ok(Self {
            config: matches.get_one("config").cloned(),
            print_config: matches.get_flag("print-config"),
            while_stdin: matches.get_flag("while-stdin"),
            flags: flags.map(|(value, name)| (name, value)).collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    if arguments.print_config {
        output::line(Config::example().trim_end())?;
        return Ok(ExitCode::SUCCESS);
    }
    let config = Config::load_here(arguments.config.as_deref(), with_data(arguments.flags))?;
    let signals = Signals::new()?;
    let input_ended = input_end(arguments.while_stdin);
    let hub = Hub::builder().config(config.clone()).start().await?;
    greet(&config, &hub)?;
    tokio::select! {
        () = signals.first() => eprintln!("stopping; once more to stop at once"),
        () = input_ended => eprintln!("standard input has ended: stopping"),
    }
    tokio::select! {
        stopped = hub.stop() => stopped?,
        () = signals.first() => return Err(Failure::new("stopped before connections had ended")),
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends when standard input does; never, unless that was asked for. Watches from now on.
fn input_end(asked: bool) -> impl Future<Output = ()> {
    let end = asked.then(|| {
        let (ended, end) = tokio::sync::oneshot::channel::<()>();
        // A thread that nobody waits for: reading cannot be called off. What comes in means nothing.
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            drop(ended);
        });
        end
    });
    async {
        match end {
            Some(end) => drop(end.await),
            None => std::future::pending().await,
        }
    }
}

/// The other subcommands find the data folder by `WHIMBREL_DATA`: so does the hub, unless it is told otherwise.
fn with_data(mut flags: Vec<(String, String)>) -> Vec<(String, String)> {
    let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    let told = flags.iter().any(|(name, _)| name == "data") || variable("WHIMBREL_HUB_DATA").is_some();
    if let Some(folder) = variable(service::DATA_VARIABLE).filter(|_| !told) {
        flags.push(("data".to_owned(), folder));
    }
    flags
}

/// What a user needs next.
fn greet(config: &Config, hub: &Hub) -> Result<()> {
    let place = if config.memory {
        "everything in memory".to_owned()
    } else {
        let folder = std::path::absolute(&config.data).unwrap_or_else(|_| config.data.clone());
        format!("data in {}", folder.display())
    };
    let listeners = [
        ("MQTT", hub.mqtt_addr()),
        ("MQTT with TLS", hub.mqtts_addr()),
        ("AMQP", hub.amqp_addr()),
        ("AMQP with TLS", hub.amqps_addr()),
        ("HTTP", hub.http_addr()),
        ("HTTPS", hub.https_addr()),
    ];
    let open = |(name, address): (&str, Option<SocketAddr>)| Some(format!("{name} {}", address?));
    let open: Vec<String> = listeners.into_iter().filter_map(open).collect();
    output::line(&format!("The hub is up: {}; {place}.", open.join(", ")))?;
    if config.memory {
        return Ok(());
    }
    let usual = config.data == Config::default().data;
    let data = if usual { String::new() } else { format!(" --data {}", config.data.display()) };
    output::line(&format!("\n  whimbrel device add thermostat-1{data}"))?;
    output::line(&format!("  whimbrel send thermostat-1 '{{\"t\":21.5}}'{data}"))?;
    output::line(&format!("  whimbrel monitor --follow{data}\n"))?;
    Ok(())
}

/// The signals that mean "stop".
struct Signals {
    #[cfg(unix)]
    terminate: tokio::sync::Mutex<tokio::signal::unix::Signal>,
}

impl Signals {
    /// Listens from now on, so that none is missed while the hub starts.
    fn new() -> Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            terminate: {
                use tokio::signal::unix::{SignalKind, signal};
                let terminate = signal(SignalKind::terminate());
                terminate.map_err(|error| Failure::new("signals cannot be received").caused_by(error))?.into()
            },
        })
    }

    async fn first(&self) {
        #[cfg(unix)]
        {
            let mut terminate = self.terminate.lock().await;
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
    }
}
