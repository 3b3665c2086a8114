//! Percent-encoding: RFC 3986 unreserved characters stay, everything else is escaped; reading is lenient.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Appends `text` with every byte escaped that is not an ASCII letter, digit or one of `-._~`.
pub fn encode(text: &str, out: &mut String) {
    out.extend(utf8_percent_encode(text, ESCAPED));
}

/// [`encode`] into a new string.
pub fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 4);
    encode(text, &mut out);
    out
}

/// Undoes [`encode`], borrowing when there is nothing to undo. A stray `%` stays, `+` is a plus, escapes may have
/// either case; bytes that are not UTF-8 become U+FFFD.
pub fn decode(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8_lossy()
}

const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_out_lenient_in() {
        assert_eq!(encoded("a b/c&d=e+f%-._~é"), "a%20b%2Fc%26d%3De%2Bf%25-._~%C3%A9");
        for (text, read) in [
            ("a%20b%2fc", "a b/c"),
            ("100%", "100%"),
            ("%zz%4", "%zz%4"),
            ("a+b", "a+b"),
            ("%ff", "\u{fffd}"),
            ("a b", "a b"),
        ] {
            assert_eq!(decode(text), read);
        }
        assert!(matches!(decode("plain"), Cow::Borrowed("plain")));
    }
}
