//! The hub of the demo: a process of its own, to be killed on the way.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Args;
use whimbrel_hub::{Hub, config::Listen};

use crate::{failure::Result, output};

#[derive(Args)]
pub(crate) struct Options {
    #[arg(long)]
    data: PathBuf,
    #[arg(long)]
    mqtts: SocketAddr,
    #[arg(long)]
    http: SocketAddr,
}

/// Runs until the parent's end of standard input is gone.
pub(crate) async fn run(options: Options) -> Result<ExitCode> {
    let hub = Hub::builder()
        .data_dir(options.data)
        .mqtt(Listen::OFF)
        .mqtts(Listen::on(options.mqtts))
        .amqp(Listen::OFF)
        .amqps(Listen::OFF)
        .http(Listen::on(options.http))
        .https(Listen::OFF)
        .start()
        .await?;
    output::line("ready")?;
    let (gone, parent) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = gone.send(());
    });
    let _ = parent.await;
    hub.stop().await?;
    Ok(ExitCode::SUCCESS)
}
