//! Carries messages to a hub and acknowledgements back. No persistence, no policy.
