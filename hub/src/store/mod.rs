//! Where the hub keeps things: trait `Store` and its engines. One test suite runs against each.
