use super::*;
use crate::stun::attribute::Family;
use proptest::prelude::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

const PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";

/// RFC 5769 §2.1, which is also vector A.4 of the facts sheet.
const REQUEST: &str = "00010058 2112a442 b7e7a701 bc34d686 fa87dfae 80220010 5354554e 20746573 7420636c 69656e74
    00240004 6e0001ff 80290008 932ff9b1 51263b36 00060009 6576746a 3a683676 59202020
    00080014 9aeaa70c bfd8cb56 781ef2b5 b2d3f249 c1b571a2 80280004 e57a3bcf";
/// RFC 5769 §2.2.
const RESPONSE_V4: &str = "0101003c 2112a442 b7e7a701 bc34d686 fa87dfae 8022000b 74657374 20766563 746f7220
    00200008 0001a147 e112a643 00080014 2b91f599 fd9e90c3 8c7489f9 2af9ba53 f06be7d7 80280004 c07d4c96";
/// RFC 5769 §2.3.
const RESPONSE_V6: &str = "01010048 2112a442 b7e7a701 bc34d686 fa87dfae 8022000b 74657374 20766563 746f7220
    00200014 0002a147 0113a9fa a5d3f179 bc25f4b5 bed2b9d9 00080014 a382954e 4be67bf1 1784c97c 8292c275 bfe3ed41
    80280004 c8fb0b4c";
/// RFC 5769 §2.4.
const REQUEST_LONG_TERM: &str = "00010060 2112a442 78ad3433 c6ad72c0 29da412e 00060012 e3839ee3 8388e383 aae38383
    e382afe3 82b90000 0015001c 662f2f34 39396b39 35346436 4f4c3334 6f4c3946 53547679 36347341
    0014000b 6578616d 706c652e 6f726700 00080014 f6702465 6dd64a3e 02b8e071 2e85c9a2 8ca89666";

fn sample_id() -> TransactionId {
    TransactionId::new(bytes("b7e7a701bc34d686fa87dfae").try_into().unwrap())
}

fn sample(class: Class) -> Builder<'static> {
    let mut builder = Builder::new(class, Method::BINDING, sample_id());
    builder.padding = 0x20;
    builder
}

#[test]
fn the_request_of_rfc_5769_2_1_reads_verifies_and_is_rebuilt_byte_for_byte() {
    let vector = bytes(REQUEST);
    let message = Message::parse(&vector).unwrap();
    let key = Key::short_term(PASSWORD);
    assert_eq!((message.class(), message.method()), (Class::Request, Method::BINDING));
    assert_eq!(message.transaction_id(), sample_id());
    let want = [
        Attribute::Software("STUN test client"),
        Attribute::Priority(0x6e00_01ff),
        Attribute::IceControlled(0x932f_f9b1_5126_3b36),
        Attribute::Username(b"evtj:h6vY"),
    ];
    assert_eq!(message.attributes().take(4).collect::<Vec<_>>(), want);
    assert_eq!(message.verify(&key), Ok(()));
    assert_eq!(message.verify(&Key::short_term(b"other")), Err(IntegrityError::Mismatch));
    assert_eq!(message.fingerprint(), Fingerprint::Valid);
    let built = want.iter().fold(sample(Class::Request), Builder::with).integrity(Integrity::Sha1, &key).fingerprint();
    assert_eq!(built.build(), vector);
}

#[test]
fn the_responses_of_rfc_5769_2_2_and_2_3_are_rebuilt_byte_for_byte() {
    let cases = [
        ("IPv4", RESPONSE_V4, "192.0.2.1:32853"),
        ("IPv6", RESPONSE_V6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
    ];
    let key = Key::short_term(PASSWORD);
    for (name, hex, address) in cases {
        let vector = bytes(hex);
        let message = Message::parse(&vector).unwrap();
        let address: SocketAddr = address.parse().unwrap();
        assert_eq!(message.class(), Class::Success, "case: {name}");
        assert_eq!(message.xor_mapped_address(), Some(address), "case: {name}");
        assert_eq!(message.software(), Some("test vector"), "case: {name}");
        assert_eq!((message.verify(&key), message.fingerprint()), (Ok(()), Fingerprint::Valid), "case: {name}");
        let built = sample(Class::Success)
            .with(&Attribute::Software("test vector"))
            .with(&Attribute::XorMappedAddress(address))
            .integrity(Integrity::Sha1, &key)
            .fingerprint();
        assert_eq!(built.build(), vector, "case: {name}");
    }
}

#[test]
fn the_long_term_request_of_rfc_5769_2_4_is_rebuilt_byte_for_byte() {
    let vector = bytes(REQUEST_LONG_TERM);
    let message = Message::parse(&vector).unwrap();
    // The password after SASLprep, as the RFC gives it.
    let user = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}".as_bytes();
    let key = Key::long_term(user, b"example.org", b"TheMatrIX", PasswordAlgorithm::Md5);
    assert_eq!(message.username(), Some(user));
    assert_eq!(message.verify(&key), Ok(()));
    assert_eq!(message.fingerprint(), Fingerprint::Absent);
    let built = Builder::new(Class::Request, Method::BINDING, message.transaction_id())
        .with(&Attribute::Username(user))
        .with(&Attribute::Nonce(b"f//499k954d6OL34oL9FSTvy64sA"))
        .with(&Attribute::Realm(b"example.org"))
        .integrity(Integrity::Sha1, &key);
    assert_eq!(built.build(), vector);
}

/// RFC 8489 Appendix B.1 as corrected by erratum 6268: §14.4 USERHASH and §14.6 MESSAGE-INTEGRITY-SHA256.
#[test]
fn the_sha256_request_of_rfc_8489_is_rebuilt_byte_for_byte() {
    let vector = bytes(
        "00010090 2112a442 78ad3433 c6ad72c0 29da412e 001e0020 4a3cf38f ef6992bd a952c678 0417da0f 24819415 569e60b2
         05c46e41 407f1704 00150029 6f624d61 744a6f73 32414141 43662f2f 3439396b 39353464 364f4c33 346f4c39 46535476
         79363473 41000000 0014000b 6578616d 706c652e 6f726700 001d0004 00020000 001c0020 b5c7bf00 5b6c52a2 1c51c5e8
         92f81924 136296cb 927c4314 9309278c c6518e65",
    );
    let message = Message::parse(&vector).unwrap();
    let user = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}".as_bytes();
    let key = Key::long_term(user, b"example.org", b"TheMatrIX", PasswordAlgorithm::Sha256);
    assert_eq!(message.verify(&key), Ok(()));
    let mut hash = [0; 32];
    hash.copy_from_slice(&vector[24..56]);
    let built = Builder::new(Class::Request, Method::BINDING, message.transaction_id())
        .with(&Attribute::UserHash(hash))
        .with(&Attribute::Nonce(b"obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA"))
        .with(&Attribute::Realm(b"example.org"))
        .with(&Attribute::PasswordAlgorithm(PasswordAlgorithm::Sha256))
        .integrity(Integrity::Sha256, &key);
    assert_eq!(built.build(), vector);
}

/// Facts sheet A.1: a check of libnice in its OC2007R2 mode.
#[test]
fn the_ms_ice2_check_is_rebuilt_byte_for_byte_and_so_is_its_twin() {
    let vector = bytes(
        "000100582112a442ebd9ca596f205da0b6026db700250000002400046ef003ff802a0008fcb71d7420e6cb3b0006000c4253
         6a713a5471694b00000080540004310000008070000400000002000800144ed7e029fe846a071f25e4a137d67e3a9f2ecccb
         8028000405a821e7",
    );
    let message = Message::parse(&vector).unwrap();
    let key = Key::short_term(b"c1amJP3SR7lG0JmU3vmxNO");
    assert_eq!(message.username(), Some(b"BSjq:TqiK".as_slice()));
    assert_eq!(message.candidate_identifier(), Some(b"1".as_slice()));
    assert_eq!(message.verify_as(&wire::MS_ICE2, &key), Ok(()));
    assert_eq!(message.verify(&key), Err(IntegrityError::Mismatch), "the standard input is another one");
    assert_eq!(message.fingerprint(), Fingerprint::Valid);
    let built = Builder::new_as(&wire::MS_ICE2, Class::Request, Method::BINDING, message.transaction_id())
        .with(&Attribute::UseCandidate)
        .with(&Attribute::Priority(0x6ef0_03ff))
        .with(&Attribute::IceControlling(0xfcb7_1d74_20e6_cb3b))
        .with(&Attribute::Username(b"BSjq:TqiK"))
        .with(&Attribute::CandidateIdentifier(b"1"))
        .with(&Attribute::ImplementationVersion(2))
        .integrity(Integrity::Sha1, &key)
        .fingerprint();
    assert_eq!(built.build(), vector);
    let twin = fingerprint_twin(&vector).unwrap();
    assert_eq!(twin[..twin.len() - 4], vector[..vector.len() - 4]);
    assert_eq!(twin[twin.len() - 4..], bytes("101db815"));
    assert_eq!(Message::parse(&twin).unwrap().fingerprint(), Fingerprint::Twin);
}

#[test]
fn an_answer_to_an_ms_ice2_check_is_in_the_dialect_of_the_check() {
    let key = Key::short_term(b"c1amJP3SR7lG0JmU3vmxNO");
    let request = Builder::new_as(&wire::MS_ICE2, Class::Request, Method::BINDING, sample_id())
        .with(&Attribute::Username(b"BSjq:TqiK"))
        .build();
    let request = Message::parse(&request).unwrap();
    let answer = Builder::answer_as(&wire::MS_ICE2, Class::Success, &request).integrity(Integrity::Sha1, &key);
    let bytes = answer.fingerprint().build();
    let answer = Message::parse(&bytes).unwrap();
    assert_eq!((answer.username(), answer.implementation_version()), (Some(b"BSjq:TqiK".as_slice()), Some(2)));
    assert_eq!(answer.verify_as(&wire::MS_ICE2, &key), Ok(()));
    let refusal = Builder::answer_as(&wire::RFC8489, Class::Error, &request).build();
    assert_eq!(Message::parse(&refusal).unwrap().attributes().count(), 0, "the standard adds nothing");
}

/// Facts sheet A.2: a check of libnice in its OC2007 mode.
#[test]
fn the_draft_06_check_without_magic_cookie_verifies() {
    let vector = bytes(
        "00010064678bfd23c5593d2a495e88dbf583a10d00060048fb8dcd26f1dd9c152bd0c67a03120a2e291937dcd65f7eb6c3ff
         187f696e6b7f3a323a4a9df1fd9bdbe75df05d429a6e6312d85bd64ae8ebb4f607e72f11a6185d53153a3200000000080014
         072421482a4605e6f8c44e5ec5e944b7d8134570",
    );
    assert_eq!(Message::parse(&vector).map(|_| ()), Err(ParseError::NotStun));
    let message = Message::parse_as(&wire::MS_ICE, &vector).unwrap();
    let key = Key::short_term(
        &base64::Engine::decode(&base64::prelude::BASE64_STANDARD_NO_PAD, "bPR9grGgQUuclKadpZq5gw").unwrap(),
    );
    assert_eq!(message.verify_as(&wire::MS_ICE, &key), Ok(()));
}

/// Facts sheet A.5 and §9.10; the key is that of the user on realm `edge.example.test`.
#[test]
fn the_long_term_key_of_the_turn_rest_vector_is_as_coturn_computes_it() {
    let key = Key::long_term(
        b"1767225600:alice",
        b"edge.example.test",
        b"05jEHr12im4bMl4yybc+61bnap8=",
        PasswordAlgorithm::Md5,
    );
    assert_eq!(key.bytes(), bytes("82f93750cd1a7f3b84fc4f1b531f65eb"));
    assert_eq!(format!("{key:?}"), "Key(***)");
}

#[test]
fn message_types_join_and_split_for_every_method_and_class() {
    for method in 0..0x1000 {
        for class in [Class::Request, Class::Indication, Class::Success, Class::Error] {
            assert_eq!(split_type(join_type(class, Method(method))), (class, Method(method)));
        }
    }
    assert_eq!(join_type(Class::Error, Method::ALLOCATE), 0x0113);
    assert_eq!(join_type(Class::Indication, Method::DATA), 0x0017);
}

#[test]
fn what_is_no_message_is_refused_with_its_reason() {
    let good = Builder::new(Class::Request, Method::BINDING, sample_id()).with(&Attribute::Priority(1)).build();
    let mut announced_too_much = good.clone();
    announced_too_much[3] += 4;
    let mut attribute_too_long = good.clone();
    attribute_too_long[23] = 5;
    let cases: [(&str, Vec<u8>, ParseError); 5] = [
        ("empty", vec![], ParseError::TooShort(0)),
        ("half a header", good[..10].to_vec(), ParseError::TooShort(10)),
        ("RTP", [vec![0x80], vec![0; 30]].concat(), ParseError::NotStun),
        ("length", announced_too_much, ParseError::Length { announced: 12, present: 8 }),
        ("attribute", attribute_too_long, ParseError::Attribute { at: 20 }),
    ];
    for (name, bytes, want) in cases {
        assert_eq!(Message::parse(&bytes).map(|_| ()), Err(want), "case: {name}");
    }
}

#[test]
fn attributes_behind_message_integrity_are_not_shown() {
    let key = Key::short_term(b"secret");
    let mut builder = Builder::new(Class::Request, Method::BINDING, sample_id()).integrity(Integrity::Sha1, &key);
    let sealed = builder.length_with(SHA1_ATTRIBUTE_BYTES);
    let mac = integrity::hmac_sha1(&key, &builder.bytes, sealed, wire::RFC8489.integrity);
    builder.seal = None;
    builder.push(&Attribute::MessageIntegrity(&mac));
    builder.push(&Attribute::UseCandidate);
    let forged = builder.fingerprint().build();
    let message = Message::parse(&forged).unwrap();
    assert_eq!((message.verify(&key), message.fingerprint()), (Ok(()), Fingerprint::Valid));
    assert!(!message.use_candidate());
}

#[test]
fn unknown_attributes_are_kept_and_named_if_they_must_be_understood() {
    let bytes = Builder::new(Class::Request, Method::BINDING, sample_id())
        .with(&Attribute::Unknown(AttributeType(0x7777), b"abc"))
        .with(&Attribute::Unknown(AttributeType(0x8777), b"d"))
        .build();
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.unknown_required(), [AttributeType(0x7777)]);
    assert_eq!(message.attributes().next(), Some(Attribute::Unknown(AttributeType(0x7777), b"abc")));
}

#[test]
fn sha256_integrity_verifies_and_is_preferred_to_sha1() {
    let key = Key::long_term(b"user", b"realm", b"password", PasswordAlgorithm::Sha256);
    let bytes = Builder::new(Class::Request, Method::ALLOCATE, sample_id())
        .with(&Attribute::PasswordAlgorithm(PasswordAlgorithm::Sha256))
        .integrity(Integrity::Sha256, &key)
        .build();
    let message = Message::parse(&bytes).unwrap();
    assert_eq!((message.verify(&key), message.integrity()), (Ok(()), Some(Integrity::Sha256)));
    assert_eq!(message.verify(&Key::short_term(b"x")), Err(IntegrityError::Mismatch));
}

#[test]
fn an_attribute_that_would_burst_the_length_field_is_left_out() {
    let id = sample_id();
    let bytes = Builder::new(Class::Indication, Method::DATA, id).with(&Attribute::Data(&vec![0; 65_600])).build();
    assert_eq!(Message::parse(&bytes).unwrap().data(), None);
    let bytes = Builder::new(Class::Indication, Method::DATA, id).with(&Attribute::Data(&vec![7; 65_000])).build();
    assert_eq!(Message::parse(&bytes).unwrap().data().map(<[u8]>::len), Some(65_000));
}

fn address() -> impl Strategy<Value = SocketAddr> {
    any::<(std::net::IpAddr, u16)>().prop_map(SocketAddr::from)
}

fn text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9 .:/é]{0,40}"
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(noise in prop::collection::vec(any::<u8>(), 0..200), cookie in any::<bool>()) {
        let mut noise = noise;
        if cookie && noise.len() >= 20 {
            noise[0] &= 0x3f;
            noise.truncate(noise.len() / 4 * 4);
            let length = u16::try_from(noise.len() - 20).unwrap().to_be_bytes();
            noise[2..4].copy_from_slice(&length);
            noise[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
        }
        for wire in [&wire::RFC8489, &wire::MS_ICE2, &wire::MS_ICE] {
            if let Ok(message) = Message::parse_as(wire, &noise) {
                let _ = (message.attributes().count(), message.unknown_required(), message.fingerprint());
                let _ = (message.verify_as(wire, &Key::short_term(b"k")), format!("{message:?}"));
            }
        }
        let _ = fingerprint_twin(&noise);
    }

    #[test]
    fn what_we_build_stun_types_reads_alike(
        mapped in address(), user in text(), reason in text(), code in 300_u16..700, id in any::<[u8; 12]>(),
        priority in any::<u32>(), tie in any::<u64>(), sha256 in any::<bool>(),
    ) {
        use stun_types::attribute as theirs;
        use stun_types::message as oracle;
        let integrity = if sha256 { Integrity::Sha256 } else { Integrity::Sha1 };
        let key = Key::short_term(b"password");
        let built = Builder::new(Class::Error, Method::BINDING, TransactionId::new(id))
            .with(&Attribute::Username(user.as_bytes()))
            .with(&Attribute::XorMappedAddress(mapped))
            .with(&Attribute::MappedAddress(mapped))
            .with(&Attribute::ErrorCode(code, &reason))
            .with(&Attribute::Priority(priority))
            .with(&Attribute::IceControlling(tie))
            .integrity(integrity, &key)
            .fingerprint()
            .build();
        let read = oracle::Message::from_bytes(&built).expect("the oracle reads it, FINGERPRINT included");
        prop_assert!(read.has_class(oracle::MessageClass::Error) && read.has_method(oracle::BINDING));
        let name = read.attribute::<theirs::Username>().unwrap();
        prop_assert_eq!(name.username(), user.as_str());
        let xor = read.attribute::<theirs::XorMappedAddress>().unwrap();
        prop_assert_eq!(xor.addr(read.transaction_id()), mapped);
        let error = read.attribute::<theirs::ErrorCode>().unwrap();
        prop_assert_eq!((error.code(), error.reason()), (code, reason.as_str()));
        let raw = read.raw_attribute(0x24.into()).unwrap();
        prop_assert_eq!(raw.value.to_vec(), priority.to_be_bytes().to_vec());
        let raw = read.raw_attribute(0x802a.into()).unwrap();
        prop_assert_eq!(raw.value.to_vec(), tie.to_be_bytes().to_vec());
        let credentials = oracle::MessageIntegrityCredentials::ShortTerm(
            oracle::ShortTermCredentials::new("password".to_owned()));
        prop_assert!(read.validate_integrity(&credentials).is_ok());
    }

    #[test]
    fn what_stun_types_builds_we_read_alike(
        mapped in address(), user in text(), software in text(), sha256 in any::<bool>(), realm in text(),
    ) {
        use stun_types::attribute as theirs;
        use stun_types::message as oracle;
        use stun_types::message::{MessageWrite as _, MessageWriteExt as _};
        let id = oracle::TransactionId::generate();
        let kind = oracle::MessageType::from_class_method(oracle::MessageClass::Request, oracle::BINDING);
        let mut builder = oracle::Message::builder(kind, id, oracle::MessageWriteVec::new());
        let username = theirs::Username::new(&user).unwrap();
        builder.add_attribute(&username).unwrap();
        builder.add_attribute(&theirs::Software::new(&software).unwrap()).unwrap();
        builder.add_attribute(&theirs::Realm::new(&realm).unwrap()).unwrap();
        builder.add_attribute(&theirs::XorMappedAddress::new(mapped, id)).unwrap();
        let credentials = oracle::MessageIntegrityCredentials::LongTerm(oracle::LongTermCredentials::new(
            user.clone(), "pass".to_owned()).to_key(realm.clone()));
        let algorithm = if sha256 { oracle::IntegrityAlgorithm::Sha256 } else { oracle::IntegrityAlgorithm::Sha1 };
        builder.add_message_integrity(&credentials, algorithm).unwrap();
        builder.add_fingerprint().unwrap();
        let built = builder.finish();
        let read = Message::parse(&built).unwrap();
        prop_assert_eq!(read.username(), Some(user.as_bytes()));
        prop_assert_eq!((read.software(), read.realm()), (Some(software.as_str()), Some(realm.as_bytes())));
        prop_assert_eq!(read.xor_mapped_address(), Some(mapped));
        prop_assert_eq!(read.fingerprint(), Fingerprint::Valid);
        let derive = if sha256 { PasswordAlgorithm::Sha256 } else { PasswordAlgorithm::Md5 };
        let key = Key::long_term(user.as_bytes(), realm.as_bytes(), b"pass", derive);
        prop_assert_eq!(read.verify(&key), Ok(()));
    }

    #[test]
    fn every_attribute_survives_writing_and_reading(peer in address(), number in any::<u32>(), wide in any::<u64>(),
        data in prop::collection::vec(any::<u8>(), 0..100), phrase in text()) {
        let [a, b, ..] = number.to_be_bytes();
        let list = [
            Attribute::MappedAddress(peer), Attribute::Username(b"u"), Attribute::ErrorCode(438, &phrase),
            Attribute::UnknownAttributes(vec![AttributeType(0x7777), AttributeType(2)]), Attribute::Realm(b"r"),
            Attribute::Nonce(b"n"), Attribute::PasswordAlgorithm(PasswordAlgorithm::Sha256),
            Attribute::PasswordAlgorithms(vec![PasswordAlgorithm::Md5, PasswordAlgorithm::Sha256]),
            Attribute::UserHash([7; 32]), Attribute::XorMappedAddress(peer), Attribute::Software(&phrase),
            Attribute::AlternateServer(peer), Attribute::AlternateDomain(&phrase),
            Attribute::ChannelNumber(u16::from_be_bytes([a, b])), Attribute::XorPeerAddress(peer),
            Attribute::Lifetime(Duration::from_secs(u64::from(number))), Attribute::Data(&data),
            Attribute::XorRelayedAddress(peer), Attribute::RequestedAddressFamily(Family::V6),
            Attribute::AdditionalAddressFamily(Family::V6), Attribute::AddressErrorCode(Family::V4, 440, &phrase),
            Attribute::EvenPort(true), Attribute::RequestedTransport(17), Attribute::DontFragment,
            Attribute::ReservationToken(wide.to_be_bytes()), Attribute::ConnectionId(number),
            Attribute::Icmp(3, 4, number.to_be_bytes()), Attribute::Priority(number), Attribute::UseCandidate,
            Attribute::IceControlled(wide), Attribute::IceControlling(wide), Attribute::Nomination(number),
            Attribute::CandidateIdentifier(b"c"), Attribute::ImplementationVersion(number),
            Attribute::Unknown(AttributeType(0x9999), &data),
        ];
        let builder = Builder::new(Class::Indication, Method::SEND, sample_id());
        let built = list.iter().fold(builder, Builder::with).build();
        let read: Vec<_> = Message::parse(&built).unwrap().attributes().collect();
        prop_assert_eq!(read, list);
    }
}
