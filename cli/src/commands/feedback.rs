//! `whimbrel feedback`: what became of commands that asked for feedback.

use std::process::ExitCode;

use clap::Args;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::time::{Duration, sleep};

use crate::{
    failure::{Failure, Result},
    output,
    service::{Service, Target},
};

/// The hub is asked again after so long; it answers as soon as there is something.
const WAIT: &str = "20s";
/// Pause before a hub that is away is asked again.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Args)]
#[command(after_help = "\
Feedback is a queue that all readers share: what is shown here is taken from it, once it is printed. To learn of one
command without taking anything from anybody, use: whimbrel command outcome

Examples:
  whimbrel feedback                    what there is now
  whimbrel feedback --follow --json | while read -r record; do …; done")]
pub(crate) struct Arguments {
    /// Go on with what comes instead of ending with the last record there is
    #[arg(long, short)]
    follow: bool,
    /// Records as lines of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let service = Service::find(&arguments.target)?;
    tokio::select! {
        ended = read(&service, &arguments) => ended?,
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(ExitCode::SUCCESS)
}

async fn read(service: &Service, arguments: &Arguments) -> Result<()> {
    let mut reached = false;
    loop {
        match take(service, arguments).await {
            Ok(true) => reached = true,
            Ok(false) if arguments.follow => reached = true,
            Ok(false) => return Ok(()),
            Err(failure) if arguments.follow && reached && failure.is_unreachable() => sleep(PAUSE).await,
            Err(failure) => return Err(failure),
        }
    }
}

/// Takes one batch, prints it, and completes it. Whether there was one.
async fn take(service: &Service, arguments: &Arguments) -> Result<bool> {
    let mut request = service.request(Method::GET, &["feedback"]);
    if arguments.follow {
        request = request.query(&[("wait", WAIT)]);
    }
    let response = service.answer(request).await?;
    if response.status() == StatusCode::NO_CONTENT {
        return Ok(false);
    }
    let batch: Value = response
        .json()
        .await
        .map_err(|error| Failure::unreachable("the feedback did not arrive whole").caused_by(error))?;
    for record in batch.get("records").and_then(Value::as_array).into_iter().flatten() {
        if arguments.json {
            output::json(record)?;
        } else {
            output::line(&for_people(record))?;
        }
    }
    let lock = batch.get("lock").and_then(Value::as_str).unwrap_or_default();
    // Only now: what could not be printed comes again.
    service.json(service.request(Method::DELETE, &["feedback", lock])).await?;
    Ok(true)
}

/// `12:34:56.789 thermostat-1 m-1 Completed`
fn for_people(record: &Value) -> String {
    let text = |name| record.get(name).and_then(Value::as_str).unwrap_or_default();
    let outcome = match text("statusCode") {
        "Success" => "Completed",
        other => other,
    };
    let at = text("enqueuedTimeUtc").get(11..23).unwrap_or_default();
    output::harmless(&format!("{at} {} {} {outcome}", text("deviceId"), text("originalMessageId")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn a_record_for_people() {
        let record = json!({
            "originalMessageId": "m-1", "enqueuedTimeUtc": "2026-01-31T12:34:56.7890000Z", "statusCode": "Success",
            "deviceId": "d1\n",
        });
        assert_eq!(super::for_people(&record), "12:34:56.789 d1\u{fffd} m-1 Completed");
    }
}
