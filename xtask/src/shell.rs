//! Runs other programs and says so.

use std::{
    fmt::Write as _,
    io::{self, BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

/// One line about what is happening now.
pub(crate) fn say(line: impl AsRef<str>) {
    println!("==> {}", line.as_ref());
}

/// What a program that was run left behind.
pub(crate) struct Finished {
    /// `None` when it was killed because its time was up.
    pub(crate) status: Option<ExitStatus>,
    /// Its output and its error output, in the order the lines came.
    pub(crate) lines: Vec<String>,
}

impl Finished {
    pub(crate) fn success(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// How it ended, for people.
    pub(crate) fn ending(&self) -> String {
        match self.status {
            Some(status) => status.to_string(),
            None => "killed: its time was up".into(),
        }
    }

    /// The last `count` lines, indented.
    pub(crate) fn tail(&self, count: usize) -> String {
        let start = self.lines.len().saturating_sub(count);
        self.lines.iter().skip(start).fold(String::new(), |mut text, line| {
            let _ = writeln!(text, "    {line}");
            text
        })
    }
}

/// Runs `command` with its output going to the terminal; whether it succeeded.
pub(crate) fn pass_through(command: &mut Command) -> io::Result<bool> {
    let status = command.status();
    named(command, status).map(|status| status.success())
}

/// Runs a program as part of this one; it has to succeed.
///
/// # Errors
/// `otherwise`, or why it could not be started.
pub(crate) fn done(command: &mut Command, otherwise: &str) -> io::Result<()> {
    match pass_through(command) {
        Ok(true) => Ok(()),
        Ok(false) => Err(io::Error::other(otherwise.to_owned())),
        Err(error) => Err(io::Error::other(format!("{otherwise}: {error}"))),
    }
}

/// Runs `command`, whose output is wanted and whose error output goes to the terminal.
pub(crate) fn output(command: &mut Command) -> io::Result<(bool, String)> {
    let output = command.stderr(Stdio::inherit()).output();
    let output = named(command, output)?;
    Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// Runs `command` and hands each line of its output and error output to `on_line`, which also sees `None` once a second
/// while nothing comes. Kills it when it takes longer than `limit`.
pub(crate) fn watch(
    command: &mut Command,
    limit: Duration,
    mut on_line: impl FnMut(Option<&str>),
) -> io::Result<Finished> {
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = Killed(named(command, spawned)?);
    let (send, receive) = mpsc::channel();
    let pipes: [Option<Box<dyn Read + Send>>; 2] = [
        child.0.stdout.take().map(|pipe| Box::new(pipe) as _),
        child.0.stderr.take().map(|pipe| Box::new(pipe) as _),
    ];
    for pipe in pipes.into_iter().flatten() {
        let send = send.clone();
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                if send.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                    break;
                }
            }
        });
    }
    drop(send);

    let end = Instant::now() + limit;
    let mut lines = Vec::new();
    let mut exited: Option<Instant> = None;
    loop {
        match receive.recv_timeout(Duration::from_secs(1)) {
            Ok(line) => {
                on_line(Some(&line));
                lines.push(line);
            }
            Err(RecvTimeoutError::Timeout) => on_line(None),
            Err(RecvTimeoutError::Disconnected) => break,
        }
        // A grandchild that outlives the program may hold the pipe open: do not wait for it for long.
        if exited.is_none() && child.0.try_wait()?.is_some() {
            exited = Some(Instant::now());
        }
        if Instant::now() > end || exited.is_some_and(|at| at.elapsed() > Duration::from_secs(5)) {
            break;
        }
    }
    loop {
        if let Some(status) = child.0.try_wait()? {
            return Ok(Finished { status: Some(status), lines });
        }
        if Instant::now() > end {
            return Ok(Finished { status: None, lines });
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Where `program` is found in `PATH`.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// `cargo`, the one that runs this.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Names the program in the error of starting it.
fn named<T>(command: &Command, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot run {}: {error}", command.get_program().to_string_lossy()),
        )
    })
}
