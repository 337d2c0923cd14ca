//! What NAT a host really sees, measured with sockets on the edge and on the public host.

use std::fmt;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use super::network::{Host, Network};

/// How long an answer may take inside one machine.
const ANSWER: Duration = Duration::from_millis(400);

/// Mapping or filtering, RFC 4787 §4.1 and §5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depends {
    Nothing,
    Address,
    AddressAndPort,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Measured {
    UdpBlocked,
    Nat { mapping: Depends, filtering: Depends, hairpins: bool },
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UdpBlocked => f.write_str("UDP is blocked"),
            Self::Nat { mapping, filtering, hairpins } => {
                write!(f, "mapping depends on {mapping:?}, filtering on {filtering:?}, hairpins: {hairpins}")
            }
        }
    }
}

/// Measures the NAT that `host` is behind.
///
/// # Errors
///
/// If no socket can be opened.
pub fn nat_of(network: &Network, host: Host) -> Result<Measured, String> {
    let open = |host: Host, ip: &str| {
        let at = format!("{ip}:0");
        let socket = network.host(host).within(move || UdpSocket::bind(at))?.map_err(|error| error.to_string())?;
        socket.set_read_timeout(Some(ANSWER)).map_err(|error| error.to_string())?;
        Ok::<_, String>(socket)
    };
    let (edge, other_port) = (open(Host::Edge, "203.0.113.10")?, open(Host::Edge, "203.0.113.10")?);
    let (dave, other_host) = (open(Host::Dave, "203.0.113.50")?, open(Host::Dave, "203.0.113.50")?);
    let inside = open(host, "0.0.0.0")?;
    let Some(mapped) = mapped(&inside, &edge) else { return Ok(Measured::UdpBlocked) };
    // Those that were not sent to answer first: being sent to opens the filter.
    let from_stranger = reaches(&other_host, mapped, &inside);
    let from_other_port = reaches(&other_port, mapped, &inside);
    let filtering = match (from_stranger, from_other_port) {
        (true, _) => Depends::Nothing,
        (false, true) => Depends::Address,
        (false, false) => Depends::AddressAndPort,
    };
    let mapping = match (self::mapped(&inside, &other_port), self::mapped(&inside, &dave)) {
        (Some(same), Some(also)) if same == mapped && also == mapped => Depends::Nothing,
        (Some(same), _) if same == mapped => Depends::Address,
        _ => Depends::AddressAndPort,
    };
    let neighbour = open(host, "0.0.0.0")?;
    let _ = self::mapped(&neighbour, &edge);
    Ok(Measured::Nat { mapping, filtering, hairpins: reaches(&neighbour, mapped, &inside) })
}

/// The address from which a packet of `from` arrives.
fn mapped(from: &UdpSocket, at: &UdpSocket) -> Option<SocketAddr> {
    from.send_to(b"question", at.local_addr().ok()?).ok()?;
    Some(at.recv_from(&mut [0; 64]).ok()?.1)
}

fn reaches(from: &UdpSocket, to: SocketAddr, inside: &UdpSocket) -> bool {
    from.send_to(b"answer", to).is_ok() && inside.recv_from(&mut [0; 64]).is_ok()
}
