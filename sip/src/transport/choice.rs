//! UDP or TCP, RFC 3261 §18.1.1: a request within 200 bytes of the path MTU must go over a congestion controlled
//! transport. Opening that flow is the owner's; here is only the verdict.

use crate::event::{CommandError, Transport};

/// Refuses a request that is too large for UDP; `limit: None` sends it in fragments.
///
/// # Errors
///
/// [`CommandError::TooLarge`] with both numbers.
pub fn check_size(transport: Transport, bytes: usize, limit: Option<usize>) -> Result<(), CommandError> {
    match (transport, limit) {
        (Transport::Udp, Some(limit)) if bytes > limit => Err(CommandError::TooLarge { bytes, limit }),
        (Transport::Udp | Transport::Tcp | Transport::Tls, _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_udp_with_a_limit_refuses_large_requests() {
        let cases = [
            ("at the limit", Transport::Udp, 1300, Some(1300), true),
            ("above", Transport::Udp, 1301, Some(1300), false),
            ("fragments allowed", Transport::Udp, 9000, None, true),
            ("a stream", Transport::Tls, 9000, Some(1300), true),
        ];
        for (name, transport, bytes, limit, fits) in cases {
            assert_eq!(check_size(transport, bytes, limit).is_ok(), fits, "case: {name}");
        }
    }
}
