//! Programs from the quick start.
