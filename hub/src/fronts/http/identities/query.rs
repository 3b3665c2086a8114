//! The small part of the contract's query language that this hub knows:
//!
//! ```text
//! SELECT * FROM devices [WHERE <comparison> [AND <comparison>]…]
//! comparison: deviceId = 'x'   also != <> < <= > >=, and IN ['x', 'y']
//!             status = 'enabled' | 'disabled'                also != <> and IN
//!             connectionState = 'Connected' | 'Disconnected' also != <> and IN
//! ```
//!
//! Words and names have any case, values have one. A name may have `devices.` before it. Everything else is refused:
//! a condition that is passed over finds the wrong devices.

use std::borrow::Cow;

/// Devices to look for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    conditions: Vec<Condition>,
}

#[derive(Debug, PartialEq, Eq)]
struct Condition {
    field: Field,
    test: Test,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    DeviceId,
    Status,
    ConnectionState,
}

#[derive(Debug, PartialEq, Eq)]
enum Test {
    Equal(String),
    NotEqual(String),
    Less(String),
    AtMost(String),
    More(String),
    AtLeast(String),
    In(Vec<String>),
}

/// What is asked of a device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub(super) device_id: &'a str,
    pub(super) status: &'a str,
    pub(super) connection_state: &'a str,
}

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    /// What cannot be read, for people.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = Tokens(tokens(text)?.into_iter().peekable());
        for word in ["select", "*", "from", "devices"] {
            tokens.expect(word)?;
        }
        let mut conditions = Vec::new();
        if tokens.take_word("where") {
            loop {
                conditions.push(tokens.condition()?);
                if !tokens.take_word("and") {
                    break;
                }
            }
        }
        match tokens.0.next() {
            None => Ok(Self { conditions }),
            Some(token) => Err(tokens.refuse(&token)),
        }
    }

    /// Whether it finds this device.
    pub(super) fn finds(&self, subject: Subject<'_>) -> bool {
        self.conditions.iter().all(|Condition { field, test }| {
            let value = match field {
                Field::DeviceId => subject.device_id,
                Field::Status => subject.status,
                Field::ConnectionState => subject.connection_state,
            };
            match test {
                Test::Equal(wanted) => value == wanted,
                Test::NotEqual(wanted) => value != wanted,
                Test::Less(wanted) => value < wanted.as_str(),
                Test::AtMost(wanted) => value <= wanted.as_str(),
                Test::More(wanted) => value > wanted.as_str(),
                Test::AtLeast(wanted) => value >= wanted.as_str(),
                Test::In(wanted) => wanted.iter().any(|wanted| value == wanted),
            }
        })
    }

    /// The one device it can find at most, when it names one.
    pub(super) fn only(&self) -> Option<&str> {
        self.conditions.iter().find_map(|condition| match condition {
            Condition { field: Field::DeviceId, test: Test::Equal(id) } => Some(id.as_str()),
            _ => None,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token<'a> {
    /// A name, a word or a sign.
    Word(&'a str),
    Text(Cow<'a, str>),
}

struct Tokens<'a>(std::iter::Peekable<std::vec::IntoIter<Token<'a>>>);

impl<'a> Tokens<'a> {
    fn take_word(&mut self, wanted: &str) -> bool {
        let is = |token: &Token<'_>| matches!(token, Token::Word(word) if word.eq_ignore_ascii_case(wanted));
        self.0.next_if(is).is_some()
    }

    fn expect(&mut self, wanted: &str) -> Result<(), String> {
        if self.take_word(wanted) {
            return Ok(());
        }
        match self.0.next() {
            Some(token) => Err(self.refuse(&token)),
            None => Err(format!("the query ends where {wanted} is expected; {KNOWN}")),
        }
    }

    fn refuse(&self, token: &Token<'_>) -> String {
        match token {
            Token::Word(word) => format!("{word:?} is not understood here; {KNOWN}"),
            Token::Text(text) => format!("the text '{text}' is not understood here; {KNOWN}"),
        }
    }

    fn condition(&mut self) -> Result<Condition, String> {
        let name = self.word()?;
        let name = match name.split_once('.') {
            Some((alias, name)) if alias.eq_ignore_ascii_case("devices") => name,
            _ => name,
        };
        let field = [
            ("deviceId", Field::DeviceId),
            ("status", Field::Status),
            ("connectionState", Field::ConnectionState),
        ]
        .into_iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, field)| field)
        .ok_or_else(|| format!("{name:?} cannot be asked for; {KNOWN}"))?;
        let sign = self.word()?;
        let test = match sign {
            "=" => Test::Equal(self.text()?),
            "!=" | "<>" => Test::NotEqual(self.text()?),
            "<" if field == Field::DeviceId => Test::Less(self.text()?),
            "<=" if field == Field::DeviceId => Test::AtMost(self.text()?),
            ">" if field == Field::DeviceId => Test::More(self.text()?),
            ">=" if field == Field::DeviceId => Test::AtLeast(self.text()?),
            word if word.eq_ignore_ascii_case("in") => Test::In(self.texts()?),
            other => return Err(format!("{name} cannot be compared by {other:?}; {KNOWN}")),
        };
        Ok(Condition { field, test })
    }

    fn word(&mut self) -> Result<&'a str, String> {
        match self.0.next() {
            Some(Token::Word(word)) => Ok(word),
            Some(token) => Err(self.refuse(&token)),
            None => Err(format!("the query ends too early; {KNOWN}")),
        }
    }

    fn text(&mut self) -> Result<String, String> {
        match self.0.next() {
            Some(Token::Text(text)) => Ok(text.into_owned()),
            Some(token) => Err(self.refuse(&token)),
            None => Err(format!("the query ends where a text is expected; {KNOWN}")),
        }
    }

    fn texts(&mut self) -> Result<Vec<String>, String> {
        self.expect("[")?;
        let mut texts = vec![self.text()?];
        while self.take_word(",") {
            texts.push(self.text()?);
        }
        self.expect("]")?;
        Ok(texts)
    }
}

fn tokens(text: &str) -> Result<Vec<Token<'_>>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, after) = match first {
            '\'' | '"' => quoted(rest, first)?,
            _ => {
                let length = match first {
                    '<' | '>' | '!' | '=' => ["<=", ">=", "<>", "!="]
                        .into_iter()
                        .find(|sign| rest.starts_with(sign))
                        .map_or(1, str::len),
                    _ if is_name(first) => rest.find(|c| !is_name(c)).unwrap_or(rest.len()),
                    _ => first.len_utf8(),
                };
                let (word, after) = rest.split_at(length);
                (Token::Word(word), after)
            }
        };
        tokens.push(token);
        rest = after.trim_start();
    }
    Ok(tokens)
}

const fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$')
}

/// A text in quotes; a backslash takes the next character as it is.
fn quoted(text: &str, quote: char) -> Result<(Token<'_>, &str), String> {
    let mut value = String::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => match characters.next() {
                Some((_, escaped)) => value.push(escaped),
                None => break,
            },
            c if c == quote => {
                let after = text.get(at + c.len_utf8()..).unwrap_or_default();
                return Ok((Token::Text(Cow::Owned(value)), after));
            }
            c => value.push(c),
        }
    }
    Err(format!("a text has no end; {KNOWN}"))
}

const KNOWN: &str = "this hub knows SELECT * FROM devices, with WHERE over deviceId, status and connectionState, \
     compared by = != <> < <= > >= IN and joined by AND";

#[cfg(test)]
mod tests {
    use super::*;

    fn finds(query: &str) -> Vec<&'static str> {
        let query = Query::parse(query).unwrap_or_else(|problem| panic!("{query}: {problem}"));
        [
            ("a", "enabled", "Connected"),
            ("B", "disabled", "Disconnected"),
            ("it's", "enabled", "Disconnected"),
        ]
        .into_iter()
        .filter(|(device_id, status, connection_state)| {
            query.finds(Subject { device_id, status, connection_state })
        })
        .map(|(id, ..)| id)
        .collect()
    }

    #[test]
    fn what_is_found() {
        for (query, expected) in [
            ("SELECT * FROM devices", vec!["a", "B", "it's"]),
            ("select*from DEVICES", vec!["a", "B", "it's"]),
            ("SELECT * FROM devices WHERE deviceId = 'a'", vec!["a"]),
            ("SELECT * FROM devices WHERE devices.DeviceID=\"B\"", vec!["B"]),
            ("SELECT * FROM devices WHERE deviceId = 'A'", vec![]),
            (r"SELECT * FROM devices WHERE deviceId = 'it\'s'", vec!["it's"]),
            ("SELECT * FROM devices WHERE deviceId IN ['a','it\\'s']", vec!["a", "it's"]),
            ("SELECT * FROM devices WHERE deviceId > 'B' AND deviceId <= 'a'", vec!["a"]),
            ("SELECT * FROM devices WHERE deviceId >= 'B' AND deviceId < 'a'", vec!["B"]),
            (
                "SELECT * FROM devices WHERE status = 'enabled' and connectionState <> 'Connected'",
                vec!["it's"],
            ),
            ("SELECT * FROM devices WHERE status != 'enabled'", vec!["B"]),
        ] {
            assert_eq!(finds(query), expected, "{query}");
        }
        assert_eq!(Query::parse("SELECT * FROM devices WHERE deviceId = 'x'").unwrap().only(), Some("x"));
        assert_eq!(Query::parse("SELECT * FROM devices WHERE deviceId != 'x'").unwrap().only(), None);
    }

    #[test]
    fn everything_else_is_refused() {
        for query in [
            "",
            "SELECT",
            "SELECT deviceId FROM devices",
            "SELECT * FROM devices.modules",
            "SELECT * FROM devices WHERE",
            "SELECT * FROM devices WHERE tags.x = 'y'",
            "SELECT * FROM devices WHERE deviceId",
            "SELECT * FROM devices WHERE deviceId =",
            "SELECT * FROM devices WHERE deviceId = a",
            "SELECT * FROM devices WHERE deviceId = 'a",
            "SELECT * FROM devices WHERE deviceId = 'a' OR deviceId = 'b'",
            "SELECT * FROM devices WHERE NOT deviceId = 'a'",
            "SELECT * FROM devices WHERE (deviceId = 'a')",
            "SELECT * FROM devices WHERE status > 'a'",
            "SELECT * FROM devices WHERE deviceId IN 'a'",
            "SELECT * FROM devices WHERE deviceId IN ['a'",
            "SELECT * FROM devices ORDER BY deviceId",
            "SELECT * FROM devices; DROP",
            "SELECT * FROM jobs",
        ] {
            let problem = Query::parse(query).unwrap_err();
            assert!(problem.contains(KNOWN), "{query}: {problem}");
        }
    }

    #[test]
    fn no_text_makes_it_panic() {
        for text in ["'\\", "\"", "é=é", "SELECT * FROM devices WHERE deviceId = 'é\\'", "<", "!", "[]"] {
            let _ = Query::parse(text);
        }
    }
}
