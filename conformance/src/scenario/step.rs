//! The steps a scenario is made of. Each is a table whose one verb says what it does; `schema.json` describes the same.
//!
//! Texts that begin with `$` stand for what was saved before; `$folder` is the folder of the scenario, and may be followed by
//! more, and `$name/3` is a third of a number. A `body` is a text, `{ base64 = "…" }` or `{ size = n }` (so many `x`). `{ utf16 = […] }` is a text that may be none.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::{Table, Value};
use whimbrel::ErrorKind;

/// A step: what is done, and the table it was read from, to be shown.
#[derive(Debug)]
pub struct Step {
    /// What is done.
    pub deed: Deed,
    /// How it stands in the file.
    pub text: String,
}

macro_rules! deeds {
    ($($(#[$doc:meta])* $verb:literal $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* })*) => {
        /// What a step does.
        #[derive(Debug)]
        pub enum Deed {
            $($(#[$doc])* $name($name),)*
        }

        $(
            $(#[$doc])*
            #[derive(Clone, Debug, Deserialize)]
            #[serde(rename_all = "snake_case", deny_unknown_fields)]
            pub struct $name { $($(#[$field_doc])* pub $field: $kind,)* }
        )*

        /// The verbs.
        pub const VERBS: &[&str] = &[$($verb),*];

        impl Deed {
            fn read(verb: &str, table: Table) -> Result<Self, String> {
                let read = |error: toml::de::Error| error.message().to_owned();
                match verb {
                    $($verb => table.try_into().map(Self::$name).map_err(read),)*
                    _ => Err(format!("there is no verb {verb}")),
                }
            }
        }

        /// The fields of each verb, as the code has them.
        #[cfg(test)]
        pub(crate) fn fields(verb: &str) -> &'static [&'static str] {
            match verb {
                $($verb => super::schema_tests::fields_of::<$name>(),)*
                _ => &[],
            }
        }
    };
}

deeds! {
    /// Opens a device client, called by the verb's value, on the hub of the scenario.
    "open" Open {
        /// Name of the client.
        open: String,
        /// Id of the device. Default the client's name.
        device: Option<String>,
        /// What it speaks. Default `mqtt5`.
        protocol: Option<String>,
        /// Keeps the outbox in memory instead of in a folder.
        #[serde(default)] memory: bool,
        /// Folder of the outbox below that of the scenario. Default the device's id.
        folder: Option<String>,
        /// Uses a key that is not the device's.
        #[serde(default)] wrong_key: bool,
        /// More options, by the names of the protocol of the actors.
        #[serde(default)] options: Table,
        /// The error it ends with.
        error: Option<Value>,
    }
    /// Makes a service client of the hub of the scenario.
    "connect" Connect {
        /// Name of the client.
        connect: String,
        /// Uses a key that is not the policy's.
        #[serde(default)] wrong_key: bool,
        /// More options.
        #[serde(default)] options: Table,
        /// The error it ends with.
        error: Option<Value>,
    }
    /// Makes a call of the protocol of the actors.
    "call" Call {
        /// Which.
        call: String,
        /// The object it is made on.
        on: Option<String>,
        /// The name the result is kept by. Default one that is not used otherwise.
        r#as: Option<String>,
        /// Its arguments.
        #[serde(default)] args: Table,
        /// Goes on without waiting for the answer, which `wait` and `cancel` find by this name.
        start: Option<String>,
        /// Repeats the call until it ends as expected.
        #[serde(default)] until: bool,
        /// Repeats the call so often; each has to end as expected. `{n}` in texts is the number of the call, from 0, and the
        /// results are kept by the name with the number behind.
        times: Option<u32>,
        /// A call made on each result.
        then: Option<String>,
        /// What the answer has.
        ok: Option<Value>,
        /// The error it ends with.
        error: Option<Value>,
        /// Saves parts of the answer: a name, and where it is.
        #[serde(default)] save: BTreeMap<String, String>,
    }
    /// Waits for the answer of a call that was started.
    "wait" Wait {
        /// Which.
        wait: String,
        /// What the answer has.
        ok: Option<Value>,
        /// The error it ends with.
        error: Option<Value>,
        /// Saves parts of the answer.
        #[serde(default)] save: BTreeMap<String, String>,
    }
    /// Looks that a call that was started has not ended.
    "pending" Pending {
        /// Which.
        pending: String,
    }
    /// Cancels a call that was started; it has to end as cancelled.
    "cancel" Cancel {
        /// Which.
        cancel: String,
    }
    /// Makes a call many times and cancels each, some before they began, some while they are under way. Each ends as cancelled
    /// or well. `{n}` in texts is the number of the call, from 0.
    "storm" Storm {
        /// Which call.
        storm: String,
        /// The object it is made on.
        on: String,
        /// The names the results are kept by, with the number behind.
        r#as: Option<String>,
        /// Its arguments.
        #[serde(default)] args: Table,
        /// How often.
        count: u32,
        /// An answer that has this counts as done; others that went well do not.
        done_if: Option<Value>,
        /// A call made on each result that counts as done.
        then: Option<String>,
        /// Saves how many were done under this name.
        done: Option<String>,
    }
    /// Starts or stops the hub; it keeps its data.
    "hub" Hub {
        /// What happens to it.
        hub: HubChange,
    }
    /// Changes how the network behaves from now on.
    "link" Link {
        /// Which.
        link: LinkName,
        /// How.
        fault: FaultName,
    }
    /// Waits until something has happened on a link since its last `link` step.
    "until_link" UntilLink {
        /// Which.
        until_link: LinkName,
        /// So many connections were tried.
        #[serde(default)] connections: u64,
        /// So many bytes vanished.
        #[serde(default)] lost: u64,
    }
    /// Leads a link to a server that answers every request with this text.
    "impostor" Impostor {
        /// Which link.
        impostor: LinkName,
        /// What it says.
        answer: String,
    }
    /// Kills the actor (SIGKILL) and starts another one. Its objects are gone, its folders stay.
    "kill" Kill {
        /// Always `actor`.
        kill: ActorWord,
    }
    /// The hub takes in a command, by this message id.
    "command" Command {
        /// The id.
        command: String,
        /// For which device. Default `d1`.
        device: Option<String>,
        /// Its body. Default the id.
        body: Option<Value>,
        /// Its properties.
        #[serde(default)] properties: BTreeMap<String, String>,
        /// Its time to live.
        expires_in_ms: Option<u64>,
        /// The error the hub refuses it with.
        error: Option<String>,
    }
    /// Waits until the hub says of the command with this message id what is expected.
    "command_state" CommandState {
        /// The id.
        command_state: String,
        /// Of which device. Default `d1`.
        device: Option<String>,
        /// `enqueued`, `locked`, or an outcome.
        is: String,
    }
    /// Waits until the hub has stored as many messages of a device as are listed; they have to be these, in this order.
    "stored" Stored {
        /// The device.
        stored: String,
        /// Only those of which this is the start of the message id.
        prefix: Option<String>,
        /// Their bodies.
        bodies: Option<Vec<Value>>,
        /// What they have.
        messages: Option<Vec<Value>>,
        /// So many bodies that are their numbers, from 0.
        numbered: Option<u32>,
        /// How many, without looking at them.
        count: Option<Value>,
        /// Messages that come again are passed over: where delivery is at least once.
        #[serde(default)] at_least_once: bool,
    }
    /// Changes a device in the registry of the hub.
    "change" Change {
        /// Which.
        change: String,
        /// Whether it may connect.
        enabled: Option<bool>,
        /// It is deleted.
        #[serde(default)] deleted: bool,
    }
    /// The hub takes in events of a device, with these bodies, as if it had sent them.
    "events" Events {
        /// The device.
        events: String,
        /// Their bodies.
        bodies: Vec<String>,
    }
    /// Makes a consumer group at the hub.
    "group" Group {
        /// Its name.
        group: String,
    }
    /// Writes a file below the folder of the scenario.
    "file" File {
        /// Its path.
        file: String,
        /// Its text.
        text: Option<String>,
        /// Its bytes.
        base64: Option<String>,
        /// Writes them there into the file instead of making it anew.
        at: Option<u64>,
    }
    /// Looks that numbers never fall from one to the next.
    "rising" Rising {
        /// The numbers.
        rising: Vec<Value>,
    }
}

/// What can happen to a hub.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "they say what they are")]
pub enum HubChange {
    Start,
    Stop,
    Restart,
}

/// The links of a stage.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "they say what they are")]
pub enum LinkName {
    Mqtt,
    Amqp,
    Http,
}

/// The faults of [`whimbrel::testing::Fault`], and `cut`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "they say what they are")]
pub enum FaultName {
    None,
    Cut,
    Refuse,
    Swallow,
    Slow,
    Split,
    Garbage,
}

/// What can be killed.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "it says what it is")]
pub enum ActorWord {
    Actor,
}

/// How a call ends.
#[derive(Clone, Debug)]
pub enum Expected {
    /// Well, with an answer that has this.
    Ok(Value),
    /// With this error.
    Error(ExpectedError),
}

/// The error a call ends with. Code and retry are those of its kind; a message is always there.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedError {
    /// Name of the kind.
    pub kind: String,
    /// Names of details it has.
    #[serde(default)]
    pub details: Vec<String>,
    /// What the message says, among other things.
    pub says: Option<String>,
    /// The call it names.
    pub operation: Option<String>,
}

impl Expected {
    /// From the fields of a step: a well-ended call when nothing is said.
    ///
    /// # Errors
    /// When both are said, or the error is none.
    pub fn read(ok: Option<&Value>, error: Option<&Value>) -> Result<Self, String> {
        let error = match (ok, error) {
            (Some(_), Some(_)) => return Err("there is more than one expectation".to_owned()),
            (ok, None) => return Ok(Self::Ok(ok.cloned().unwrap_or_else(|| Value::Table(Table::new())))),
            (None, Some(Value::String(kind))) => {
                ExpectedError { kind: kind.clone(), details: Vec::new(), says: None, operation: None }
            }
            (None, Some(error)) => {
                error.clone().try_into::<ExpectedError>().map_err(|error| error.message().to_owned())?
            }
        };
        kind(&error.kind)?;
        Ok(Self::Error(error))
    }
}

/// The error kind of this name.
///
/// # Errors
/// When there is none.
pub fn kind(name: &str) -> Result<ErrorKind, String> {
    let found = ErrorKind::ALL.iter().copied().find(|kind| kind.name() == name);
    found.ok_or_else(|| format!("there is no error kind {name}"))
}

impl Step {
    /// Reads a step.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(table: Table) -> Result<Self, String> {
        let text = Value::Table(table.clone()).to_string();
        let mut verbs = VERBS.iter().filter(|verb| table.contains_key(**verb));
        let verb = match (verbs.next(), verbs.next()) {
            (Some(verb), None) => verb,
            (None, _) => return Err(format!("it does none of {VERBS:?}")),
            (Some(_), Some(_)) => return Err("it does two things".to_owned()),
        };
        let deed = Deed::read(verb, table)?;
        deed.check()?;
        Ok(Self { deed, text })
    }
}

impl Deed {
    /// How its call ends, where it makes one.
    ///
    /// # Errors
    /// What is wrong with the expectation.
    pub fn expected(&self) -> Result<Option<Expected>, String> {
        let (ok, error) = match self {
            Self::Open(Open { error, .. }) | Self::Connect(Connect { error, .. }) => (&None, error),
            Self::Call(Call { ok, error, .. }) | Self::Wait(Wait { ok, error, .. }) => (ok, error),
            _ => return Ok(None),
        };
        Expected::read(ok.as_ref(), error.as_ref()).map(Some)
    }

    fn check(&self) -> Result<(), String> {
        self.expected()?;
        match self {
            Self::Call(call) if call.start.is_some() && (call.ok.is_some() || call.error.is_some()) => {
                Err("what was started is looked at by `wait`".to_owned())
            }
            Self::Call(call) if call.until && (call.times.is_some() || call.start.is_some()) => {
                Err("`until` goes alone".to_owned())
            }
            Self::Command(Command { error: Some(error), .. }) => kind(error).map(drop),
            Self::Stored(Stored { bodies, messages, numbered, count, .. }) => {
                let said = [bodies.is_some(), messages.is_some(), numbered.is_some(), count.is_some()];
                match said.iter().filter(|said| **said).count() {
                    1 => Ok(()),
                    _ => Err("one of bodies, messages, numbered and count".to_owned()),
                }
            }
            Self::File(file) if file.text.is_some() == file.base64.is_some() => {
                Err("a file has a text or bytes".to_owned())
            }
            Self::UntilLink(UntilLink { connections: 0, lost: 0, .. }) => {
                Err("nothing is waited for".to_owned())
            }
            _ => Ok(()),
        }
    }
}
