//! The service client.
