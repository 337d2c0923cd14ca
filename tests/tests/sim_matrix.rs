//! The NAT matrix: three mappings times three filterings per side, and UDP blocked. Every cell is what the oracle says.

use std::fmt::Write as _;

use tests::sim::cell::{Cell, Setting, run};
use tests::sim::oracle::Side;

/// Every cell of the matrix with one setting; all that failed are named at once.
fn matrix(setting: Setting) -> Vec<(Side, Vec<Cell>)> {
    let mut failures = Vec::new();
    let mut rows = Vec::new();
    for left in Side::all() {
        let mut row = Vec::new();
        for right in Side::all() {
            match run(left, right, setting) {
                Ok(cell) => row.push(cell),
                Err(failure) => failures.push(failure),
            }
        }
        rows.push((left, row));
    }
    let first = failures.first().cloned().unwrap_or_default();
    let names: Vec<&str> = failures.iter().map(|failure| failure.lines().next().unwrap_or_default()).collect();
    assert!(failures.is_empty(), "{} cells failed:\n{}\n\nthe first:\n{first}", failures.len(), names.join("\n"));
    rows
}

fn table(title: &str, rows: &[(Side, Vec<Cell>)], show: impl Fn(&Cell) -> String) -> String {
    let mut text = format!("{title}\n{:10}", "");
    for (side, _) in rows {
        let _ = write!(text, " {side:>9}");
    }
    for (side, row) in rows {
        let _ = write!(text, "\n{side:10}");
        for cell in row {
            let _ = write!(text, " {:>9}", show(cell));
        }
    }
    text + "\n"
}

#[test]
fn every_cell_of_the_nat_matrix_is_as_the_oracle_says() {
    let rows = matrix(Setting::default());
    let cells = rows.iter().map(|(_, row)| row.len()).sum::<usize>();
    assert_eq!(cells, 100);
    let text = [
        table("final path (left called)", &rows, |cell| cell.class.to_string()),
        table("ms from the answer to media both ways", &rows, |cell| cell.first_media.as_millis().to_string()),
        table("ms from the answer to the promotion of both sides", &rows, |cell| cell.promoted.as_millis().to_string()),
    ];
    insta::assert_snapshot!("nat_matrix", text.join("\n"));
}

#[test]
fn the_matrix_holds_when_the_other_side_calls() {
    matrix(Setting { left_controls: false, seed: 2, ..Setting::default() });
}

/// A check that the other side's filter dropped is sent again after 500 ms (RFC 8445 §14.3), and with two components each has
/// its own such check: the one that lags behind is waited for, as the other has shown that the path exists.
#[test]
fn the_matrix_holds_with_two_components() {
    matrix(Setting { mux: false, ..Setting::default() });
}

#[test]
fn the_same_seed_gives_the_same_bytes_in_a_cell() {
    let sides = Side::all();
    for (left, right) in [(0, 2), (8, 8), (9, 3), (4, 7)] {
        let hash = |seed| run(sides[left], sides[right], Setting { seed, ..Setting::default() }).unwrap().hash;
        assert_eq!(hash(3), hash(3));
        assert_ne!(hash(3), hash(4));
    }
}
