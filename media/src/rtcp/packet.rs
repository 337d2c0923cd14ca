//! Our view of RTCP compound packets: SR or RR, SDES with the CNAME, BYE at the end (RFC 3550 §6.1, §6.4, §6.5, §6.6).

use rtcp_types::{
    Bye, Compound, Packet, ReceiverReport, ReportBlock, RtcpPacketWriterExt as _, Sdes, SdesChunk, SdesItem,
    SenderReport,
};

use crate::config::NtpTime;
use crate::rtp::receiver::Reception;

/// Report blocks read from a packet; a telephone call has two sources, a mixer may add some.
const BLOCKS_MAX: usize = 31; // what the 5-bit count of one report can say

/// What a compound packet of ours says.
#[derive(Debug, Clone)]
pub struct Report<'a> {
    /// Our source.
    pub ssrc: u32,
    /// Present makes it a sender report.
    pub sender: Option<SenderInfo>,
    /// What we receive, by source.
    pub receptions: Vec<(u32, Reception)>,
    /// SDES CNAME.
    pub cname: &'a str,
    /// Ends with BYE.
    pub bye: bool,
}

/// Sender information (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderInfo {
    /// Wall clock of the report.
    pub ntp: NtpTime,
    /// The same moment in the media's clock.
    pub rtp_timestamp: u32,
    /// Packets since the start.
    pub packets: u32,
    /// Payload bytes since the start.
    pub payload_bytes: u32,
}

/// What a compound packet of the peer says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// Sender reports: source and NTP time.
    pub senders: Vec<(u32, NtpTime)>,
    /// Report blocks about anybody.
    pub blocks: Vec<Block>,
    /// Sources that left.
    pub byes: Vec<u32>,
}

/// A report block about one source (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// The source it is about.
    pub ssrc: u32,
    /// Loss in 1/256 since the previous report.
    pub fraction_lost: u8,
    /// In units of the source's clock.
    pub jitter: u32,
    /// NTP middle bits of the last sender report, 0 if none.
    pub last_sr: u32,
    /// Since then, in 1/65536 s.
    pub delay_since_last_sr: u32,
}

impl Report<'_> {
    /// The bytes; `None` if the CNAME is longer than 255 bytes.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        let blocks = self.receptions.iter().take(BLOCKS_MAX).map(|(ssrc, reception)| {
            ReportBlock::builder(*ssrc)
                .fraction_lost(reception.fraction_lost)
                .cumulative_lost(reception.cumulative_lost)
                .extended_sequence_number(reception.extended_sequence)
                .interarrival_jitter(reception.jitter)
                .last_sender_report_timestamp(reception.last_sr)
                .delay_since_last_sender_report_timestamp(reception.delay_since_last_sr)
        });
        let name = SdesItem::builder(SdesItem::CNAME, self.cname);
        let sdes = Sdes::builder().add_chunk(SdesChunk::builder(self.ssrc).add_item(name));
        let compound = if let Some(info) = self.sender {
            let report = SenderReport::builder(self.ssrc)
                .ntp_timestamp(info.ntp.0)
                .rtp_timestamp(info.rtp_timestamp)
                .packet_count(info.packets)
                .octet_count(info.payload_bytes);
            Compound::builder().add_packet(blocks.fold(report, rtcp_types::SenderReportBuilder::add_report_block))
        } else {
            let report = ReceiverReport::builder(self.ssrc);
            Compound::builder().add_packet(blocks.fold(report, rtcp_types::ReceiverReportBuilder::add_report_block))
        };
        let compound = compound.add_packet(sdes);
        if self.bye { write(&compound.add_packet(Bye::builder().add_source(self.ssrc))) } else { write(&compound) }
    }
}

fn write(compound: &rtcp_types::CompoundBuilder<'_>) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 1_200];
    let length = compound.write_into(&mut bytes).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

impl Heard {
    /// Reads a compound packet; `None` if it is none. Parts that we do not use are skipped, and a part that cannot be
    /// read ends the reading.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut heard = Self::default();
        for packet in Compound::parse(bytes).ok()?.map_while(Result::ok) {
            match packet {
                Packet::Sr(report) => {
                    heard.senders.push((report.ssrc(), NtpTime(report.ntp_timestamp())));
                    heard.add_blocks(report.report_blocks());
                }
                Packet::Rr(report) => heard.add_blocks(report.report_blocks()),
                Packet::Bye(bye) => heard.byes.extend(bye.ssrcs().take(BLOCKS_MAX)),
                _ => {}
            }
        }
        Some(heard)
    }

    fn add_blocks<'a>(&mut self, blocks: impl Iterator<Item = ReportBlock<'a>>) {
        let room = BLOCKS_MAX.saturating_sub(self.blocks.len());
        self.blocks.extend(blocks.take(room).map(|block| Block {
            ssrc: block.ssrc(),
            fraction_lost: block.fraction_lost(),
            jitter: block.interarrival_jitter(),
            last_sr: block.last_sender_report_timestamp(),
            delay_since_last_sr: block.delay_since_last_sender_report_timestamp(),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(sender: Option<SenderInfo>, bye: bool) -> Vec<u8> {
        let reception = Reception {
            fraction_lost: 64,
            cumulative_lost: 0xff_ffff,
            extended_sequence: 0x0001_0002,
            jitter: 480,
            last_sr: 0xaabb_ccdd,
            delay_since_last_sr: 65_536,
        };
        Report { ssrc: 1, sender, receptions: vec![(2, reception)], cname: "x@y", bye }.to_bytes().unwrap()
    }

    #[test]
    fn a_receiver_report_has_the_bytes_of_section_6_4_2() {
        let want =
            b"\x81\xc9\0\x07\0\0\0\x01\0\0\0\x02\x40\xff\xff\xff\0\x01\0\x02\0\0\x01\xe0\xaa\xbb\xcc\xdd\0\x01\0\0\
            \x81\xca\0\x03\0\0\0\x01\x01\x03x@y\0\0\0";
        assert_eq!(report(None, false), want);
    }

    #[test]
    fn a_sender_report_with_bye_is_read_as_it_was_written() {
        let info = SenderInfo { ntp: NtpTime(0x0102_0304_0506_0708), rtp_timestamp: 9, packets: 10, payload_bytes: 11 };
        let heard = Heard::parse(&report(Some(info), true)).unwrap();
        let block =
            Block { ssrc: 2, fraction_lost: 64, jitter: 480, last_sr: 0xaabb_ccdd, delay_since_last_sr: 65_536 };
        assert_eq!(heard, Heard { senders: vec![(1, info.ntp)], blocks: vec![block], byes: vec![1] });
    }

    #[test]
    fn reports_with_changed_bytes_are_read_or_refused() {
        let mut random = crate::testing::Random::new(1);
        let info = SenderInfo { ntp: NtpTime(1), rtp_timestamp: 9, packets: 10, payload_bytes: 11 };
        let whole = report(Some(info), true);
        for _ in 0..50_000 {
            let mut bytes = whole.clone();
            bytes.truncate(1 + random.below(whole.len()));
            for _ in 0..3 {
                let at = random.below(bytes.len());
                bytes[at] = random.bytes(1)[0];
            }
            let _ = Heard::parse(&bytes);
        }
    }

    #[test]
    fn garbage_is_refused_and_unknown_parts_are_skipped() {
        assert_eq!(Heard::parse(b""), None);
        assert_eq!(Heard::parse(b"\x80\xc9\0\x09\0\0\0\x01"), None);
        let feedback = b"\x81\xce\0\x02\0\0\0\x01\0\0\0\x02";
        let heard = Heard::parse(&[report(None, false).as_slice(), feedback].concat()).unwrap();
        assert_eq!(heard.blocks.len(), 1);
    }
}
