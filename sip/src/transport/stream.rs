//! Framing on TCP and TLS by Content-Length (RFC 3261 §18.3), with the CRLF ping and pong of RFC 5626 §3.5.1.

use crate::error::ParseError;
use crate::parse::frame_length;

/// What a stream carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// One message, head and body.
    Message(Vec<u8>),
    /// CRLF CRLF: answer with CRLF.
    Ping,
    /// CRLF.
    Pong,
}

/// Cuts a stream into messages. Its buffer holds at most one message and one read.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: Vec<u8>,
}

impl Framer {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what was read, cut anywhere. Drain [`Framer::next_frame`] afterwards.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete frame, `None` if more bytes are needed.
    ///
    /// # Errors
    ///
    /// If the length of a message cannot be told, or is too large: the stream is lost and must be closed.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, ParseError> {
        if self.buffer.starts_with(b"\r\n\r\n") {
            self.buffer.drain(..4);
            return Ok(Some(Frame::Ping));
        }
        // Three bytes are the beginning of a ping.
        if self.buffer.starts_with(b"\r\n") && self.buffer != b"\r\n\r" {
            self.buffer.drain(..2);
            return Ok(Some(Frame::Pong));
        }
        if matches!(self.buffer.as_slice(), [] | b"\r" | b"\r\n\r") {
            return Ok(None);
        }
        let Some(length) = frame_length(&self.buffer)? else { return Ok(None) };
        if self.buffer.len() < length {
            return Ok(None);
        }
        Ok(Some(Frame::Message(self.buffer.drain(..length).collect())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &[u8] = b"OPTIONS sip:a@b SIP/2.0\r\nContent-Length: 4\r\n\r\nbody";

    fn frames(pieces: &[&[u8]]) -> Vec<Frame> {
        let mut framer = Framer::new();
        let mut found = Vec::new();
        for piece in pieces {
            framer.push(piece);
            while let Some(frame) = framer.next_frame().unwrap() {
                found.push(frame);
            }
        }
        found
    }

    #[test]
    fn a_stream_is_cut_at_content_length_wherever_the_reads_end() {
        let message = Frame::Message(MESSAGE.to_vec());
        let doubled = [MESSAGE, MESSAGE].concat();
        for cut in 0..doubled.len() {
            let (head, tail) = doubled.split_at(cut);
            assert_eq!(frames(&[head, tail]), [message.clone(), message.clone()], "cut at {cut}");
        }
    }

    #[test]
    fn pings_and_pongs_between_messages_are_told_apart() {
        let message = Frame::Message(MESSAGE.to_vec());
        assert_eq!(frames(&[b"\r\n\r\n"]), [Frame::Ping]);
        assert_eq!(frames(&[b"\r\n"]), [Frame::Pong]);
        assert_eq!(frames(&[b"\r\n\r\n", b"\r\n", MESSAGE]), [Frame::Ping, Frame::Pong, message]);
    }

    #[test]
    fn a_stream_that_is_not_sip_is_an_error_before_it_fills_the_memory() {
        let mut framer = Framer::new();
        framer.push(&vec![b'x'; crate::parse::MESSAGE_MAX + 1]);
        assert!(framer.next_frame().is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_cut_or_refused_without_panic(bytes: Vec<u8>) {
            let mut framer = Framer::new();
            framer.push(&bytes);
            while let Ok(Some(_)) = framer.next_frame() {}
        }
    }
}
