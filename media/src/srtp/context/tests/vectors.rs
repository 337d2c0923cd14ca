//! The test vectors of RFC 3711 §B.2 and §B.3, byte for byte. The library shows neither its keystream nor its session keys, so
//! an AES in counter mode of another origin is proved by the printed keystream and key derivation first; then it reads what
//! our packets were protected with, under the printed session keys.

use aes::Aes128;
use ctr::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use super::*;

/// RFC 3711 §B.3.
const MASTER_KEY: &str = "e1f97a0d3e018be0d64fa32c06de4139";
const MASTER_SALT: &str = "0ec675ad498afeebb6960b3aabe6";
const CIPHER_KEY: &str = "c61e7a93744f39ee10734afe3ff7a087";
const CIPHER_SALT: &str = "30cbbc08863d8c85d49db34a9ae1";
/// Printed for a MAC that takes 94 octets; HMAC-SHA1 takes the first 20 (RFC 3711 §5.2).
const AUTH_KEY: &str = "cebe321f6ff7716b6fd4ab49af256a156d38baa48f0a0acf3c34e2359e6cdbce\
                        e049646c43d9327ad175578ef72270986371c10c9a369ac2f94a8c5fbcdddc25\
                        6d6e919a48b610ef17c2041e474035766b68642c59bbfc2f34db60dbdfb2";
const AUTH_KEY_BYTES: usize = 20;

/// AES-CM (RFC 3711 §4.1.1): the counter is the last two octets of the first block, which is `offset`.
fn keystream(key: &[u8], offset: [u8; 16]) -> ctr::Ctr128BE<Aes128> {
    ctr::Ctr128BE::<Aes128>::new_from_slices(key, &offset).unwrap()
}

/// The first counter block of a packet: (salt · 2^16) ⊕ (SSRC · 2^64) ⊕ (index · 2^16).
fn offset(salt: &[u8], ssrc: u32, index: u64) -> [u8; 16] {
    let mut block = [0; 16];
    block[..14].copy_from_slice(salt);
    let value = u128::from_be_bytes(block) ^ (u128::from(ssrc) << 64) ^ (u128::from(index) << 16);
    value.to_be_bytes()
}

/// The key derivation of RFC 3711 §4.3.1 with a derivation rate of 0.
fn derive(label: u8, bytes: usize) -> Vec<u8> {
    let mut input = [0; 16];
    input[..14].copy_from_slice(&hex(MASTER_SALT));
    input[7] ^= label;
    let mut derived = vec![0; bytes];
    keystream(&hex(MASTER_KEY), input).apply_keystream(&mut derived);
    derived
}

fn tag(key: &[u8], parts: &[&[u8]], bytes: usize) -> Vec<u8> {
    let mut mac = Hmac::<Sha1>::new_from_slice(key).unwrap();
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes()[..bytes].to_vec()
}

#[test]
fn the_oracle_gives_the_keystream_printed_in_appendix_b_2() {
    let key = hex("2b7e151628aed2a6abf7158809cf4f3c");
    let salt = hex("f0f1f2f3f4f5f6f7f8f9fafbfcfd");
    let printed = [
        (0x0000, "e03ead0935c95e80e166b16dd92b4eb4"),
        (0x0001, "d23513162b02d0f72a43a2fe4a5f97ab"),
        (0x0002, "41e95b3bb0a2e8dd477901e4fca894c0"),
        (0xfeff, "ec8cdf7398607cb0f2d21675ea9ea1e4"),
        (0xff00, "362b7c3c6773516318a077d7fc5073ae"),
        (0xff01, "6a2cc3787889374fbeb4c81b17ba6c44"),
    ];
    for (block, want) in printed {
        let mut stream = keystream(&key, offset(&salt, 0, 0));
        stream.seek(block * 16_u64);
        let mut got = [0; 16];
        stream.apply_keystream(&mut got);
        assert_eq!(got.to_vec(), hex(want), "case: block {block:#06x}");
    }
}

#[test]
fn the_oracle_derives_the_session_keys_printed_in_appendix_b_3() {
    assert_eq!(derive(0, 16), hex(CIPHER_KEY));
    assert_eq!(derive(2, 14), hex(CIPHER_SALT));
    assert_eq!(derive(1, 94), hex(AUTH_KEY));
}

#[test]
fn what_we_send_is_encrypted_and_authenticated_under_the_session_keys_of_appendix_b_3() {
    let (key, salt) = (hex(CIPHER_KEY), hex(CIPHER_SALT));
    let auth = &hex(AUTH_KEY)[..AUTH_KEY_BYTES];
    let payload: Vec<u8> = (0..=200).collect();
    let ssrc = 0xcafe_babe;
    for (suite, tag_bytes) in [(Suite::AesCm128HmacSha1_80, 10), (Suite::AesCm128HmacSha1_32, 4)] {
        let mut bytes = [0; KEY_AND_SALT_BYTES_MAX];
        bytes[..30].copy_from_slice(&hex(&format!("{MASTER_KEY}{MASTER_SALT}")));
        let mut outbound = Outbound::new(MasterKey::from_random(suite, &bytes)).unwrap();
        // The sequence number rolls over once: the counter of that is part of the index and of what the tag covers.
        for index in [65_534_u64, 65_535, 65_536, 65_537] {
            let sequence = u16::try_from(index & 0xffff).unwrap();
            let plain = packet(sequence, ssrc, &payload);
            let sent = outbound.protect_rtp(&plain).unwrap();
            let name = format!("case: {suite:?}, index {index}");
            assert_eq!(sent.len(), plain.len() + tag_bytes, "{name}");
            let (protected, sent_tag) = sent.split_at(plain.len());
            let rollovers = u32::try_from(index >> 16).unwrap().to_be_bytes();
            assert_eq!(sent_tag, tag(auth, &[protected, &rollovers], tag_bytes), "{name}");
            let (header, encrypted) = protected.split_at(12);
            let mut clear = encrypted.to_vec();
            assert_ne!(clear, payload, "{name}");
            keystream(&key, offset(&salt, ssrc, index)).apply_keystream(&mut clear);
            assert_eq!((header, clear.as_slice()), (&plain[..12], payload.as_slice()), "{name}");
        }
    }
}

#[test]
fn a_packet_made_by_the_oracle_under_the_session_keys_of_appendix_b_3_is_accepted() {
    let (_, mut inbound) = pair(&rfc_key());
    let plain = packet(7, 0xcafe_babe, b"the printed keys");
    let mut sent = plain.clone();
    keystream(&hex(CIPHER_KEY), offset(&hex(CIPHER_SALT), 0xcafe_babe, 7)).apply_keystream(&mut sent[12..]);
    let sent_tag = tag(&hex(AUTH_KEY)[..AUTH_KEY_BYTES], &[&sent, &[0; 4]], 10);
    sent.extend(sent_tag);
    assert_eq!(inbound.unprotect_rtp(epoch(), &sent).unwrap().plain, plain);
}

/// The appendix prints no keys for SRTCP; the oracle that is proved above derives them (labels 3 to 5).
#[test]
fn reports_are_protected_under_the_session_keys_derived_for_srtcp() {
    let (key, auth, salt) = (derive(3, 16), derive(4, AUTH_KEY_BYTES), derive(5, 14));
    let (mut outbound, _) = pair(&rfc_key());
    let plain = hex("81c8000bcafebabeabababababababababababababababab");
    for index in 1..=3_u32 {
        let sent = outbound.protect_rtcp(&plain).unwrap();
        let (covered, sent_tag) = sent.split_at(sent.len() - 10);
        assert_eq!(sent_tag, tag(&auth, &[covered], 10), "case: index {index}");
        let (body, trailer) = covered.split_at(plain.len());
        assert_eq!(trailer, (index | 0x8000_0000).to_be_bytes(), "case: index {index}");
        let mut clear = body.to_vec();
        keystream(&key, offset(&salt, 0xcafe_babe, index.into())).apply_keystream(&mut clear[8..]);
        assert_eq!(clear, plain, "case: index {index}");
    }
}
