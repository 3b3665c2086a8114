//! Actors that do not do what they say, so that the tests of the driver see it caught. The argument says how it lies: `ok` says
//! that everything went well, `silent` says nothing.
#![forbid(unsafe_code)]

use std::io::{BufRead as _, Write as _};

use serde_json::{Value, json};

fn main() {
    let lie = std::env::args().nth(1).unwrap_or_default();
    let mut output = std::io::stdout();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let id = serde_json::from_str::<Value>(&line).ok().and_then(|request| request.get("id").cloned());
        if lie == "ok" {
            // The end of the pipe is the end of the driver.
            let _ = writeln!(output, "{}", json!({"id": id, "ok": {}}));
            let _ = output.flush();
        }
    }
}
