use super::*;
use crate::rtp::packet::Packet;
use crate::srtp::sdes::{CryptoAttribute, KEY_AND_SALT_BYTES_MAX};
use crate::testing::{epoch, ms};

mod vectors;

/// RFC 3711 §B.3: master key and salt of the key derivation vectors.
fn rfc_key() -> MasterKey {
    let mut bytes = [0; KEY_AND_SALT_BYTES_MAX];
    bytes[..30].copy_from_slice(&hex("e1f97a0d3e018be0d64fa32c06de41390ec675ad498afeebb6960b3aabe6"));
    MasterKey::from_random(Suite::AesCm128HmacSha1_80, &bytes)
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn packet(sequence: u16, ssrc: u32, payload: &[u8]) -> Vec<u8> {
    Packet { marker: false, payload_type: 15, sequence, timestamp: 0xdeca_fbad, ssrc, payload }.to_bytes().unwrap()
}

fn pair(key: &MasterKey) -> (Outbound, Inbound) {
    let mut inbound = Inbound::default();
    inbound.set_keys(vec![key.clone()]).unwrap();
    (Outbound::new(key.clone()).unwrap(), inbound)
}

/// The packet that libsrtp's `srtp_validate` expects for the master key of RFC 3711 §B.3.
#[test]
fn keys_derived_as_in_appendix_b_3_protect_libsrtps_reference_packet() {
    let plain = hex("800f1234decafbadcafebabeabababababababababababababababab");
    let want = hex("800f1234decafbadcafebabe4e55dc4ce79978d88ca4d215949d2402b78d6acc99ea179b8dbb");
    let (mut outbound, mut inbound) = pair(&rfc_key());
    assert_eq!(outbound.protect_rtp(&plain).unwrap(), want);
    assert_eq!(inbound.unprotect_rtp(epoch(), &want).unwrap().plain, plain);
}

/// As above for SRTCP: libsrtp's reference packet of the same key.
#[test]
fn the_reference_srtcp_packet_is_protected_and_read() {
    let plain = hex("81c8000bcafebabeabababababababababababababababab");
    let want = hex("81c8000bcafebabe7128035be487b9bdbef89041f977a5a880000001993e08cd54d6c1230798");
    let (mut outbound, mut inbound) = pair(&rfc_key());
    assert_eq!(outbound.protect_rtcp(&plain).unwrap(), want);
    assert_eq!(inbound.unprotect_rtcp(epoch(), &want).unwrap().plain, plain);
}

#[test]
fn every_suite_carries_packets_over_three_rollovers() {
    for suite in [Suite::AesCm128HmacSha1_80, Suite::AesCm128HmacSha1_32, Suite::AesCm256HmacSha1_80] {
        let key = MasterKey::from_random(suite, &std::array::from_fn(|at| u8::try_from(at).unwrap()));
        let (mut outbound, mut inbound) = pair(&key);
        for index in (0..200_000_u32).step_by(7) {
            let plain = packet(u16::try_from(index & 0xffff).unwrap(), 5, b"voice");
            let protected = outbound.protect_rtp(&plain).unwrap();
            assert_ne!(&protected[12..17], b"voice");
            assert_eq!(
                inbound.unprotect_rtp(epoch(), &protected).map(|got| got.plain),
                Ok(plain.into()),
                "{suite:?} {index}"
            );
        }
    }
}

#[test]
fn a_packet_is_accepted_once_and_a_changed_one_never() {
    let (mut outbound, mut inbound) = pair(&rfc_key());
    let protected = outbound.protect_rtp(&packet(1, 5, b"voice")).unwrap();
    for at in 0..protected.len() {
        let mut changed = protected.clone();
        changed[at] ^= 1;
        assert!(inbound.unprotect_rtp(epoch(), &changed).is_err(), "case: byte {at}");
    }
    assert_eq!(inbound.unprotect_rtp(epoch(), &protected).unwrap().confirmed, Some(0));
    assert_eq!(inbound.unprotect_rtp(epoch(), &protected), Err(Rejection::Replayed));
    let report = outbound.protect_rtcp(b"\x80\xc9\0\x01\0\0\0\x05").unwrap();
    assert!(inbound.unprotect_rtcp(epoch(), &report).is_ok());
    assert_eq!(inbound.unprotect_rtcp(epoch(), &report), Err(Rejection::Replayed));
}

#[test]
fn forged_packets_cannot_set_the_window_of_a_stream_that_has_yet_to_begin() {
    let (mut outbound, mut inbound) = pair(&rfc_key());
    for sequence in 0..1_000 {
        let forged = packet(30_000 + sequence, 5, b"0123456789abcdef");
        assert_eq!(inbound.unprotect_rtp(epoch(), &forged), Err(Rejection::Unauthentic));
    }
    let protected = outbound.protect_rtp(&packet(1, 5, b"voice")).unwrap();
    assert!(inbound.unprotect_rtp(epoch(), &protected).is_ok());
}

#[test]
fn forged_sources_leave_no_state() {
    let (_, mut inbound) = pair(&rfc_key());
    for ssrc in 0..10_000 {
        let _ = inbound.unprotect_rtp(epoch(), &packet(1, ssrc, b"0123456789abcdef"));
        let _ = inbound.unprotect_rtcp(epoch(), &[&[0x80, 0xc9, 0, 1][..], &ssrc.to_be_bytes(), &[0x80; 20]].concat());
    }
    let key = &inbound.keys[0];
    assert!(key.rtp_sources.is_empty() && key.rtcp_sources.is_empty() && key.probes <= PROBES_MAX + 1);
}

#[test]
fn srtcp_that_claims_not_to_be_encrypted_is_refused() {
    let (mut outbound, mut inbound) = pair(&rfc_key());
    let mut report = outbound.protect_rtcp(b"\x80\xc9\0\x01\0\0\0\x05").unwrap();
    let flag = report.len() - 14;
    report[flag] &= 0x7f;
    assert_eq!(inbound.unprotect_rtcp(epoch(), &report), Err(Rejection::Malformed));
}

#[test]
fn malformed_header_extensions_are_carried_or_refused_but_harmless() {
    let (mut outbound, mut inbound) = pair(&rfc_key());
    // One-byte extension (RFC 8285 §4.2) whose element claims 16 bytes in a field of 4.
    let mut bytes = hex("900f0001decafbad00000005bede00011f000000");
    bytes.extend_from_slice(b"voice0123456789");
    assert!(inbound.unprotect_rtp(epoch(), &bytes).is_err());
    bytes[15] = 0xff; // longer than the packet
    assert_eq!(inbound.unprotect_rtp(epoch(), &bytes), Err(Rejection::Malformed));
    // A well-formed opaque extension is authenticated and left in the clear.
    let plain = [hex("900f0001decafbad000000051234000101020304"), b"voice".to_vec()].concat();
    let protected = outbound.protect_rtp(&plain).unwrap();
    assert_eq!(inbound.unprotect_rtp(epoch(), &protected).unwrap().plain, plain);
}

#[test]
fn an_mki_is_cut_off_before_the_tag() {
    let line = "2 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz|2^31|1:1";
    let attribute = CryptoAttribute::parse(line).unwrap();
    let mut outbound = Outbound::new(attribute.key.clone()).unwrap();
    let mut inbound = Inbound::default();
    inbound.set_keys(vec![attribute.key]).unwrap();
    let with_mki = |mut bytes: Vec<u8>| {
        bytes.insert(bytes.len() - 10, 1);
        bytes
    };
    let plain = packet(3, 5, b"voice");
    let protected = with_mki(outbound.protect_rtp(&plain).unwrap());
    assert_eq!(inbound.unprotect_rtp(epoch(), &protected).unwrap().plain, plain);
    let report = with_mki(outbound.protect_rtcp(b"\x80\xc9\0\x01\0\0\0\x05").unwrap());
    assert!(inbound.unprotect_rtcp(epoch(), &report).is_ok());
}

#[test]
fn after_a_change_of_key_the_old_one_serves_only_what_was_sent_before() {
    let now = epoch();
    let new_key = MasterKey::from_random(Suite::AesCm128HmacSha1_80, &[9; KEY_AND_SALT_BYTES_MAX]);
    let (mut old, mut inbound) = pair(&rfc_key());
    let mut new = Outbound::new(new_key.clone()).unwrap();
    let send = |inbound: &mut Inbound, outbound: &mut Outbound, sequence, at| {
        let protected = outbound.protect_rtp(&packet(sequence, 5, b"voice")).unwrap();
        inbound.unprotect_rtp(at, &protected).map(|accepted| accepted.confirmed)
    };
    assert_eq!(send(&mut inbound, &mut old, 100, now), Ok(Some(0)));
    inbound.set_keys(vec![new_key]).unwrap();
    assert_eq!(send(&mut inbound, &mut old, 101, now), Ok(None));
    assert_eq!(send(&mut inbound, &mut new, 110, now), Ok(Some(0)));
    assert_eq!(send(&mut inbound, &mut old, 105, now + ms(400)), Ok(None));
    assert_eq!(send(&mut inbound, &mut old, 111, now + ms(400)), Err(Rejection::Unauthentic));
    assert_eq!(send(&mut inbound, &mut old, 106, now + ms(501)), Err(Rejection::Unauthentic));
    assert_eq!(send(&mut inbound, &mut new, 112, now + ms(502)), Ok(None));
}

#[test]
fn of_several_keys_the_chosen_one_keeps_its_state_and_the_others_go_at_once() {
    let now = epoch();
    let keys = [1, 2].map(|value| MasterKey::from_random(Suite::AesCm128HmacSha1_80, &[value; KEY_AND_SALT_BYTES_MAX]));
    let mut outbounds = keys.clone().map(|key| Outbound::new(key).unwrap());
    let mut inbound = Inbound::default();
    inbound.set_keys(keys.to_vec()).unwrap();
    for (index, outbound) in outbounds.iter_mut().enumerate() {
        let ssrc = u32::try_from(index).unwrap();
        // Two rollovers, so that lost state would show.
        for sequence in (0..140_000_u32).step_by(1_000) {
            let plain = packet(u16::try_from(sequence & 0xffff).unwrap(), ssrc, b"voice");
            let protected = outbound.protect_rtp(&plain).unwrap();
            assert!(inbound.unprotect_rtp(now, &protected).is_ok());
        }
    }
    inbound.set_keys(vec![keys[1].clone()]).unwrap();
    let mut next = |index: usize| {
        let ssrc = u32::try_from(index).unwrap();
        outbounds[index].protect_rtp(&packet(9_000, ssrc, b"voice")).unwrap()
    };
    let (loser, winner) = (next(0), next(1));
    assert_eq!(inbound.unprotect_rtp(now, &loser), Err(Rejection::Unauthentic));
    assert_eq!(inbound.unprotect_rtp(now, &winner).map(|accepted| accepted.confirmed), Ok(None));
}

#[test]
fn without_keys_nothing_is_accepted() {
    let (mut outbound, mut inbound) = pair(&rfc_key());
    let mut next = |sequence| outbound.protect_rtp(&packet(sequence, 5, b"voice")).unwrap();
    assert!(inbound.unprotect_rtp(epoch(), &next(1)).is_ok());
    inbound.set_keys(vec![]).unwrap();
    assert_eq!(inbound.unprotect_rtp(epoch(), &next(2)), Err(Rejection::Unauthentic));
}

#[test]
fn nothing_printed_holds_a_key() {
    let (outbound, inbound) = pair(&rfc_key());
    let printed = format!("{outbound:?} {inbound:?}");
    assert!(
        printed.contains("***") && !printed.contains("225") && !printed.to_lowercase().contains("e1f9"),
        "{printed}"
    );
}
