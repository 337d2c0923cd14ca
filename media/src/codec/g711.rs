//! G.711 µ-law and A-law (ITU-T G.711, RFC 3551 §4.5.14): 16-bit linear at 8 kHz to 8 bits, and back.

/// Longest payload taken: 200 ms, the longest packet time peers agree on.
pub const PAYLOAD_BYTES_MAX: usize = 1_600; // bounds what one packet can make us decode

/// The two companding laws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Law {
    /// PCMU.
    Mu,
    /// PCMA.
    A,
}

impl Law {
    /// One sample to its code.
    pub fn encode(self, sample: i16) -> u8 {
        match self {
            Self::Mu => encode_mu(sample),
            Self::A => encode_a(sample),
        }
    }

    /// One code to its sample.
    pub fn decode(self, code: u8) -> i16 {
        match self {
            Self::Mu => decode_mu(code),
            Self::A => decode_a(code),
        }
    }
}

/// Added before the logarithm in µ-law, in 16-bit units.
const MU_BIAS: i32 = 0x84;
/// Largest magnitude that µ-law can code with its bias.
const MU_CLIP: i32 = 32_635;

fn encode_mu(sample: i16) -> u8 {
    let sign = if sample < 0 { 0x80 } else { 0 };
    let magnitude = i32::from(sample).abs().min(MU_CLIP) + MU_BIAS;
    // The bias makes bit 7 the lowest leading one, so that exponents run from 0 to 7.
    let exponent = magnitude.ilog2() - 7;
    let mantissa = magnitude >> (exponent + 3) & 0x0f;
    !low_byte(sign | shifted(exponent, 4) | mantissa)
}

fn decode_mu(code: u8) -> i16 {
    let code = i32::from(!code);
    let exponent = code >> 4 & 7;
    let magnitude = ((((code & 0x0f) << 3) + MU_BIAS) << exponent) - MU_BIAS;
    to_sample(if code & 0x80 != 0 { -magnitude } else { magnitude })
}

fn encode_a(sample: i16) -> u8 {
    // Magnitudes of 11 bits; a negative number is inverted rather than negated, so that -1 codes as the smallest.
    let (sign, magnitude) = if sample >= 0 { (0x80, i32::from(sample)) } else { (0, -1 - i32::from(sample)) };
    let magnitude = magnitude >> 4;
    let coded = if magnitude < 16 {
        magnitude
    } else {
        let exponent = magnitude.ilog2() - 3;
        shifted(exponent, 4) | magnitude >> (exponent - 1) & 0x0f
    };
    low_byte((sign | coded) ^ 0x55)
}

fn decode_a(code: u8) -> i16 {
    let code = i32::from(code) ^ 0x55;
    let exponent = code >> 4 & 7;
    let mantissa = (code & 0x0f) << 4;
    let magnitude = if exponent == 0 { mantissa + 8 } else { (mantissa + 0x108) << (exponent - 1) };
    to_sample(if code & 0x80 != 0 { magnitude } else { -magnitude })
}

fn shifted(exponent: u32, by: u32) -> i32 {
    i32::try_from(exponent << by).unwrap_or(0)
}

fn low_byte(value: i32) -> u8 {
    let [.., low] = value.to_be_bytes();
    low
}

fn to_sample(value: i32) -> i16 {
    i16::try_from(value).unwrap_or(if value < 0 { i16::MIN } else { i16::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corner_values_are_those_of_the_tables() {
        let cases = [
            (Law::Mu, 0, 0xff, 0),
            (Law::Mu, -1, 0x7f, 0),
            (Law::Mu, 32_767, 0x80, 32_124),
            (Law::Mu, -32_768, 0x00, -32_124),
            (Law::Mu, 1_000, 0xce, 988),
            (Law::A, 0, 0xd5, 8),
            (Law::A, -1, 0x55, -8),
            (Law::A, 32_767, 0xaa, 32_256),
            (Law::A, -32_768, 0x2a, -32_256),
            (Law::A, 1_000, 0xfa, 1_008),
        ];
        for (law, sample, code, back) in cases {
            assert_eq!((law.encode(sample), law.decode(code)), (code, back), "case: {law:?} {sample}");
        }
    }

    #[test]
    fn every_code_survives_decoding_and_encoding() {
        for law in [Law::Mu, Law::A] {
            for code in 0..=255 {
                let again = law.encode(law.decode(code));
                // µ-law has a positive and a negative zero, which linear samples do not.
                assert!(
                    again == code || (law == Law::Mu && code == 0x7f && again == 0xff),
                    "{law:?} {code:#x} {again:#x}"
                );
            }
        }
    }

    #[test]
    fn every_sample_comes_back_within_its_quantisation_step_and_in_order() {
        for law in [Law::Mu, Law::A] {
            let mut previous = i16::MIN;
            for sample in i16::MIN..=i16::MAX {
                let back = law.decode(law.encode(sample));
                let step = (i32::from(sample).abs() / 16).max(if law == Law::A { 16 } else { 8 }) + 8;
                let clipped = i32::from(sample).abs() > 32_000;
                assert!(clipped || (i32::from(back) - i32::from(sample)).abs() <= step, "{law:?} {sample} {back}");
                assert!(back >= previous, "{law:?} {sample}: {back} after {previous}");
                previous = back;
            }
        }
    }
}
