//! What a peer or a user presents: user name and client id, tokens, connection strings.
#![no_main]

use libfuzzer_sys::fuzz_target;
use whimbrel::{
    auth::{ConnectionString, SasToken},
    wire::user_name::UserName,
};

fuzz_target!(|input: (&str, &str)| {
    let (text, client_id) = input;
    if let Ok(name) = UserName::parse(text, client_id) {
        let _ = (name.query("api-version"), name.query("model-id"));
    }
    if let Ok(token) = SasToken::parse(text) {
        let _ = (token.covers(client_id), token.expires_at());
    }
    if let Ok(read) = text.parse::<ConnectionString>() {
        assert_eq!(read.reveal().parse::<ConnectionString>().expect("our own text"), read);
    }
});
