//! What a call on the session can refuse. Bad packets are no errors: they are counted in [`crate::Stats`].

/// Why a method of [`crate::Session`] or a constructor was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MediaError {
    /// libopus could not make an encoder or decoder (out of memory, or a setting outside its range).
    #[error("Opus refused {what}: {cause}; check the audio.opus settings")]
    Opus {
        /// The operation, for example `"complexity 11"`.
        what: String,
        /// libopus' own description.
        cause: String,
    },
    /// The peer announced no `telephone-event`, so digits cannot be sent as RTP events (RFC 4733 §2.5.1.1).
    #[error("the peer takes no telephone-event; digits cannot be sent in this call")]
    NoTelephoneEvent,
    /// A character that is no key of a telephone.
    #[error("{0:?} is no DTMF digit; use 0-9, *, # and A-D")]
    NotADigit(char),
    /// More digits wait than the queue takes.
    #[error("more than {0} digits wait to be sent; send fewer at a time")]
    TooManyDigits(usize),
    /// A key that does not fit its suite. Cannot happen with a key parsed by [`crate::srtp::sdes`].
    #[error("SRTP refused the {direction} key: {cause}")]
    Key {
        /// `"local"` or `"remote"`.
        direction: &'static str,
        /// The library's description; never the key.
        cause: String,
    },
    /// The session has been stopped.
    #[error("the media session has been stopped")]
    Stopped,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_what_failed_and_what_to_do() {
        let errors = [
            MediaError::Opus { what: "complexity 11".to_owned(), cause: "invalid argument".to_owned() },
            MediaError::NoTelephoneEvent,
            MediaError::NotADigit('x'),
            MediaError::TooManyDigits(64),
            MediaError::Key { direction: "remote", cause: "salt length".to_owned() },
            MediaError::Stopped,
        ];
        let text = errors.map(|error| error.to_string()).join("\n");
        insta::assert_snapshot!(text, @r"
        Opus refused complexity 11: invalid argument; check the audio.opus settings
        the peer takes no telephone-event; digits cannot be sent in this call
        'x' is no DTMF digit; use 0-9, *, # and A-D
        more than 64 digits wait to be sent; send fewer at a time
        SRTP refused the remote key: salt length
        the media session has been stopped
        ");
    }
}
