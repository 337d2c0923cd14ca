//! Media for a peer that only signals: every RTP packet is counted and sent back, under another source.
//!
//! Packets with the phone's own SSRC would be a loop to it (RFC 3550 §8.2), and it would be right not to play them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The port in every description of `tests/sipp`.
pub const PORT: u16 = 7000;
const SSRC: [u8; 4] = *b"SIPp";
/// How soon the end is noticed.
const POLL: Duration = Duration::from_millis(50);

/// A thread that answers RTP until it is dropped.
pub struct Mirror {
    packets: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Mirror {
    /// Binds the port.
    ///
    /// # Errors
    ///
    /// If it is in use.
    pub fn start(at: Ipv4Addr) -> Result<Self, String> {
        let address = SocketAddr::new(IpAddr::V4(at), PORT);
        let socket = UdpSocket::bind(address).map_err(|error| format!("{address}: {error}"))?;
        socket.set_read_timeout(Some(POLL)).map_err(|error| error.to_string())?;
        let (packets, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, stopped) = (Arc::clone(&packets), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                // Version 2 and payload type 0, as the descriptions say (RFC 3550 §5.1, RFC 3551 §6).
                if length > 12 && buffer[0] >> 6 == 2 && buffer[1] & 0x7f == 0 {
                    counter.fetch_add(1, Ordering::Relaxed);
                    buffer[8..12].copy_from_slice(&SSRC);
                    let _ = socket.send_to(&buffer[..length], from);
                }
            }
        });
        Ok(Self { packets, stop, thread: Some(thread) })
    }

    /// How many packets of PCMU have arrived.
    pub fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
