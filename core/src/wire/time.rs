//! Placeholder until the encodings land.
