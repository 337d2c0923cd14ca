//! Channels, RFC 8656 §12: ChannelData on the wire, and which number belongs to which peer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// RFC 8656 §12.
pub const NUMBERS: RangeInclusive<u16> = 0x4000..=0x4FFF;
/// Bindings are renewed a minute before they run out.
const RENEW_AFTER: Duration = Duration::from_mins(9);
/// RFC 8656 §12: a binding lasts ten minutes …
pub const LIFETIME: Duration = Duration::from_mins(10);
/// … and for five more, neither its number nor its peer may be bound to another partner.
pub const QUARANTINE: Duration = Duration::from_mins(5);
/// Peers of one call: a handful. More would be a fault of ours; the server pays for each.
const CHANNELS_MAX: usize = 64;

/// One ChannelData message. On a stream it is padded to 4 bytes, uncounted (RFC 8656 §12.5).
/// `None` if the payload is longer than the length field can say.
pub fn encode(number: u16, payload: &[u8], is_stream: bool) -> Option<Vec<u8>> {
    let length = u16::try_from(payload.len()).ok()?;
    let mut bytes = Vec::with_capacity(payload.len() + 7);
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(payload);
    if is_stream {
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    Some(bytes)
}

/// Number and payload of a ChannelData message; trailing padding is allowed on UDP too (RFC 8656 §12.6).
pub fn decode(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let ([n0, n1, l0, l1], rest) = bytes.split_first_chunk()?;
    let number = u16::from_be_bytes([*n0, *n1]);
    let payload = rest.get(..usize::from(u16::from_be_bytes([*l0, *l1])))?;
    NUMBERS.contains(&number).then_some((number, payload))
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Channel {
    pub(super) number: u16,
    /// The server has confirmed it at least once, and it has not run out since.
    pub(super) bound_until: Option<Instant>,
    /// Renewed while wanted.
    renew_at: Option<Instant>,
    /// From then on peer and number are free for other partners.
    reusable_at: Option<Instant>,
}

/// The client's table.
#[derive(Debug, Default)]
pub(super) struct Channels {
    by_peer: BTreeMap<SocketAddr, Channel>,
}

impl Channels {
    /// The number to bind `peer` with: its own again if it has or had one. `None` if all are taken.
    pub(super) fn reserve(&mut self, now: Instant, peer: SocketAddr) -> Option<u16> {
        self.by_peer.retain(|_, channel| channel.reusable_at.is_none_or(|at| now < at));
        if let Some(channel) = self.by_peer.get(&peer) {
            return Some(channel.number);
        }
        if self.by_peer.len() >= CHANNELS_MAX {
            return None;
        }
        let number = NUMBERS.into_iter().find(|number| self.by_peer.values().all(|other| other.number != *number))?;
        self.by_peer.insert(peer, Channel { number, bound_until: None, renew_at: None, reusable_at: None });
        Some(number)
    }

    /// The server confirmed; true if it is news.
    pub(super) fn confirm(&mut self, now: Instant, peer: SocketAddr) -> bool {
        let Some(channel) = self.by_peer.get_mut(&peer) else { return false };
        let is_news = channel.bound_until.is_none();
        channel.bound_until = Some(now + LIFETIME);
        channel.renew_at = Some(now + RENEW_AFTER);
        channel.reusable_at = Some(now + LIFETIME + QUARANTINE);
        is_news
    }

    /// The server refused or was silent: no more renewals. A number that may be bound stays in quarantine.
    pub(super) fn give_up(&mut self, now: Instant, peer: SocketAddr) {
        if let Some(channel) = self.by_peer.get_mut(&peer) {
            channel.bound_until = None;
            channel.renew_at = None;
            channel.reusable_at.get_or_insert(now + LIFETIME + QUARANTINE);
        }
    }

    /// The owner no longer needs it; it runs out by itself.
    pub(super) fn release(&mut self, peer: SocketAddr) {
        if let Some(channel) = self.by_peer.get_mut(&peer) {
            channel.renew_at = None;
        }
    }

    /// The number to send to `peer` with.
    pub(super) fn bound(&self, now: Instant, peer: SocketAddr) -> Option<u16> {
        let channel = self.by_peer.get(&peer)?;
        channel.bound_until.filter(|until| now < *until).map(|_| channel.number)
    }

    /// Whose data arrives on `number`. Also before the confirmation, which data may overtake.
    pub(super) fn peer(&self, number: u16) -> Option<SocketAddr> {
        self.by_peer.iter().find(|(_, channel)| channel.number == number).map(|(peer, _)| *peer)
    }

    pub(super) fn number(&self, peer: SocketAddr) -> Option<u16> {
        self.by_peer.get(&peer).map(|channel| channel.number)
    }

    /// Takes the peers whose binding is to be renewed now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<SocketAddr> {
        let due = self.by_peer.iter_mut().filter(|(_, channel)| channel.renew_at.is_some_and(|at| at <= now));
        due.map(|(peer, channel)| {
            channel.renew_at = None;
            *peer
        })
        .collect()
    }

    pub(super) fn next_renewal(&self) -> Option<(Instant, SocketAddr)> {
        self.by_peer.iter().filter_map(|(peer, channel)| Some((channel.renew_at?, *peer))).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn channel_data_is_padded_on_streams_only_and_the_padding_is_not_counted() {
        assert_eq!(encode(0x4001, b"abcde", false).unwrap(), b"\x40\x01\x00\x05abcde");
        assert_eq!(encode(0x4001, b"abcde", true).unwrap(), b"\x40\x01\x00\x05abcde\0\0\0");
        assert_eq!(decode(b"\x40\x01\x00\x05abcde\0\0\0"), Some((0x4001, b"abcde".as_slice())));
        assert_eq!(decode(b"\x40\x01\x00\x06abcde"), None, "shorter than announced");
        assert_eq!(decode(b"\x50\x01\x00\x01a"), None, "not a channel number");
        assert_eq!(encode(0x4001, &vec![0; 65_536], false), None);
    }

    #[test]
    fn a_released_peer_keeps_its_number_and_frees_it_five_minutes_after_the_binding_ran_out() {
        let start = crate::epoch();
        let mut channels = Channels::default();
        assert_eq!(channels.reserve(start, peer(1)), Some(0x4000));
        assert!(channels.confirm(start, peer(1)));
        channels.release(peer(1));
        let almost = start + Duration::from_secs(899);
        assert_eq!(channels.bound(almost, peer(1)), None);
        assert_eq!(channels.reserve(almost, peer(2)), Some(0x4001), "0x4000 is still tied to its peer");
        assert_eq!(channels.reserve(almost, peer(1)), Some(0x4000), "and the peer to its number");
        assert_eq!(channels.reserve(start + Duration::from_secs(901), peer(3)), Some(0x4000));
    }

    #[test]
    fn a_bound_channel_is_renewed_after_nine_minutes() {
        let start = crate::epoch();
        let mut channels = Channels::default();
        channels.reserve(start, peer(1)).unwrap();
        channels.confirm(start, peer(1));
        assert_eq!(channels.next_renewal(), Some((start + Duration::from_mins(9), peer(1))));
        assert!(channels.due(start + Duration::from_secs(539)).is_empty());
        assert_eq!(channels.due(start + Duration::from_mins(9)), [peer(1)]);
    }
}
