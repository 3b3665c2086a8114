//! The table of errors is data: what is written about it must be what the code says.

use whimbrel::{ErrorKind, error_table_markdown};

#[test]
fn docs_errors_md_is_current() {
    let committed = include_str!("../../docs/errors.md");
    assert!(committed == error_table_markdown(), "docs/errors.md is not current; run: cargo xtask gen");
}

#[test]
fn every_kind_has_a_row() {
    let table = error_table_markdown();
    for kind in ErrorKind::ALL {
        let row =
            format!("| {} | `{}` | {} | {} |", kind.code(), kind.name(), kind.retry().name(), kind.meaning());
        assert!(table.lines().any(|line| line == row), "no row {row:?}");
        assert!(kind.meaning().ends_with('.') && !kind.meaning().contains('|'), "{}", kind.meaning());
    }
}

/// Codes of kinds that were taken out. They stay here, so that no new kind gets one.
const RETIRED: &[u16] = &[];

#[test]
fn retired_codes_are_not_used_again() {
    assert!(ErrorKind::ALL.iter().all(|kind| !RETIRED.contains(&kind.code())));
}
