//! The NAT matrix with whole phones: three mappings times three filterings per side, and UDP blocked. Every call takes the
//! path that the oracle names. Each test runs some rows, so that they share the processors.

use std::fmt::Write as _;
use std::ops::Range;

use tests::sim::oracle::Side;
use tests::sim::phone_cell::{PhoneCell, run};

/// Rows of the matrix: Alice is behind one of these edges, Bob behind each of the ten.
fn rows(range: Range<usize>) -> String {
    let (mut text, mut failures) = (String::new(), Vec::new());
    for left in &Side::all()[range] {
        let mut cells = Vec::new();
        for right in Side::all() {
            match run(*left, right, 1) {
                Ok(cell) => cells.push(cell),
                Err(failure) => failures.push(failure),
            }
        }
        text += &block(*left, &cells);
    }
    let names: Vec<&str> = failures.iter().map(|failure| failure.lines().next().unwrap_or_default()).collect();
    let first = failures.first().cloned().unwrap_or_default();
    assert!(failures.is_empty(), "{} calls failed:\n{}\n\nthe first:\n{first}", failures.len(), names.join("\n"));
    text
}

fn block(left: Side, cells: &[PhoneCell]) -> String {
    let mut text = format!("{left:22}");
    for side in Side::all() {
        let _ = write!(text, " {side:>9}");
    }
    let mut line = |title: &str, show: &dyn Fn(&PhoneCell) -> String| {
        let _ = write!(text, "\n  {title:20}");
        for cell in cells {
            let _ = write!(text, " {:>9}", show(cell));
        }
    };
    line("path", &|cell| cell.class.to_string());
    line("ms to media both ways", &|cell| cell.first_media.as_millis().to_string());
    line("ms to announced", &|cell| cell.announced.as_millis().to_string());
    text + "\n\n"
}

#[test]
fn phones_behind_endpoint_independent_mappings_take_the_path_that_the_oracle_names() {
    insta::assert_snapshot!("phone_matrix_eim", rows(0..3));
}

#[test]
fn phones_behind_mappings_per_address_take_the_path_that_the_oracle_names() {
    insta::assert_snapshot!("phone_matrix_adm", rows(3..6));
}

#[test]
fn phones_behind_mappings_per_address_and_port_take_the_path_that_the_oracle_names() {
    insta::assert_snapshot!("phone_matrix_apdm", rows(6..9));
}

#[test]
fn phones_whose_udp_is_blocked_take_the_path_that_the_oracle_names() {
    insta::assert_snapshot!("phone_matrix_no_udp", rows(9..10));
}
