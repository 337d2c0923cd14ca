//! From serde's words to advice: "unknown key, did you mean …?".

/// Further away than this a key is something else, not a slip of the finger.
const DISTANCE_MAX: usize = 3;

/// Rewrites the messages for unknown keys and values; all others pass.
pub(super) fn improve(message: &str) -> String {
    let message = message.lines().next().unwrap_or(message).trim();
    let (what, rest) = if let Some(rest) = message.strip_prefix("unknown field ") {
        ("key", rest)
    } else if let Some(rest) = message.strip_prefix("unknown variant ") {
        ("value", rest)
    } else {
        return other(message);
    };
    let mut quoted = rest.split('`').skip(1).step_by(2);
    let Some(found) = quoted.next() else { return message.to_owned() };
    let known: Vec<&str> = quoted.collect();
    match nearest(found, &known) {
        Some(meant) => format!("unknown {what} {found:?}; did you mean {meant:?}?"),
        None => format!("unknown {what} {found:?}; it must be one of {}", known.join(", ")),
    }
}

fn other(message: &str) -> String {
    if let Some(key) = message.strip_prefix("missing field ") {
        return format!("the key {:?} is missing", key.trim_matches('`'));
    }
    if message == "invalid socket address syntax" {
        return "this must be an address with a port, like \"192.0.2.53:53\"".to_owned();
    }
    message.to_owned()
}

fn nearest<'a>(found: &str, known: &[&'a str]) -> Option<&'a str> {
    let limit = DISTANCE_MAX.min(found.len().div_ceil(2));
    known
        .iter()
        .map(|candidate| (distance(found, candidate), letters(found) != letters(candidate), *candidate))
        .filter(|(distance, ..)| *distance <= limit)
        // Of two that are equally far, the one with the same letters: "tsl" is "tls", not "tcp".
        .min()
        .map(|(.., candidate)| candidate)
}

fn letters(word: &str) -> Vec<char> {
    let mut letters: Vec<char> = word.chars().collect();
    letters.sort_unstable();
    letters
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for (j, right) in b.iter().enumerate() {
            let replaced = row.get(j).copied().unwrap_or(0) + usize::from(left != *right);
            let deleted = row.get(j + 1).copied().unwrap_or(0) + 1;
            let inserted = next.last().copied().unwrap_or(0) + 1;
            next.push(replaced.min(deleted).min(inserted));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod suggest_tests {
    use super::*;

    #[test]
    fn a_slip_is_corrected_and_something_else_gets_the_list() {
        let cases = [
            (
                "unknown field `transprot`, expected one of `aor`, `transport`",
                r#"unknown key "transprot"; did you mean "transport"?"#,
            ),
            ("unknown variant `tsl`, expected one of `auto`, `tls`", r#"unknown value "tsl"; did you mean "tls"?"#),
            (
                "unknown field `colour`, expected `aor` or `edge`",
                r#"unknown key "colour"; it must be one of aor, edge"#,
            ),
            ("invalid type: integer `3`, expected a string", "invalid type: integer `3`, expected a string"),
        ];
        for (message, want) in cases {
            assert_eq!(improve(message), want);
        }
    }
}
