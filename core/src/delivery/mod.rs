//! Decides what is sent when: window, order, retry, backoff, token renewal, throttling. A plain state machine fed with
//! inputs and a clock; no `async`, no sockets, no `Instant::now()`.
