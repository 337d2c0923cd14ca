//! Offer and answer as pure functions: tables with named cases.

use ice::{Candidate, Component, Secret};
use media::Codec;
use media::srtp::sdes::{KEY_AND_SALT_BYTES_MAX, MasterKey, Suite};

use crate::api::SrtpMode;
use crate::core::description::{Description, Direction, IceAttributes, Origin, Profile};
use crate::core::negotiate::{self, NegotiateError, OfferOptions, Transport};

const KEY: &str = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";
const OTHER_KEY: &str = "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";

fn key(byte: u8) -> MasterKey {
    MasterKey::from_random(Suite::AesCm128HmacSha1_80, &[byte; KEY_AND_SALT_BYTES_MAX])
}

fn transport(ice: bool) -> Transport {
    let candidate = |line: &str| line.parse::<Candidate>().unwrap();
    let ice = ice.then(|| IceAttributes {
        ufrag: "9uB6".to_owned(),
        pwd: Secret::new("YH75Fviy6338Vbrhrlp8Yh"),
        candidates: vec![
            candidate("1 1 UDP 2130706431 10.0.0.5 50016 typ host"),
            candidate("1 2 UDP 2130706430 10.0.0.5 50017 typ host"),
        ],
        options: vec!["ice2".to_owned(), "renomination".to_owned()],
        pacing: Some(std::time::Duration::from_millis(5)),
        lite: false,
        mismatch: false,
        remote_candidates: Vec::new(),
    });
    Transport { rtp: "10.0.0.5:50016".parse().unwrap(), rtcp: Some("10.0.0.5:50017".parse().unwrap()), ice }
}

fn offer(srtp: SrtpMode) -> Description {
    let key = key(7);
    let options = OfferOptions { srtp, key: &key, mux: true, direction: Direction::SendRecv, before: None };
    negotiate::make_offer(&options, transport(true))
}

/// A peer's description with these lines for audio.
fn theirs(media: &str, lines: &[&str]) -> Description {
    let text = format!(
        "v=0\r\no=- 55 1 IN IP4 198.51.100.77\r\ns=-\r\nc=IN IP4 198.51.100.77\r\nt=0 0\r\nm={media}\r\n{}",
        lines.iter().fold(String::new(), |text, line| text + "a=" + line + "\r\n")
    );
    Description::read(&text).unwrap()
}

#[test]
fn our_offer_reads_as_reviewed() {
    let mut origin = Origin::new(7261);
    let text = origin.write(&offer(SrtpMode::Required)).replace("\r\n", "\n");
    insta::assert_snapshot!(text, @r"
    v=0
    o=- 7261 1 IN IP4 10.0.0.5
    s=-
    c=IN IP4 10.0.0.5
    t=0 0
    a=ice-options:ice2 renomination
    a=ice-pacing:5
    m=audio 50016 RTP/SAVP 111 0 8 110 101
    a=rtcp-mux
    a=rtcp:50017 IN IP4 10.0.0.5
    a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH
    a=rtpmap:111 opus/48000/2
    a=fmtp:111 useinbandfec=1;stereo=0
    a=rtpmap:0 PCMU/8000
    a=rtpmap:8 PCMA/8000
    a=rtpmap:110 telephone-event/48000
    a=fmtp:110 0-16
    a=rtpmap:101 telephone-event/8000
    a=fmtp:101 0-16
    a=ptime:20
    a=sendrecv
    a=ice-ufrag:9uB6
    a=ice-pwd:YH75Fviy6338Vbrhrlp8Yh
    a=candidate:1 1 UDP 2130706431 10.0.0.5 50016 typ host
    a=candidate:1 2 UDP 2130706430 10.0.0.5 50017 typ host
    ");
}

#[test]
fn what_is_written_reads_back_and_its_version_counts_changes_only() {
    let mut origin = Origin::new(1);
    let first = offer(SrtpMode::Required);
    let text = origin.write(&first);
    assert_eq!(Description::read(&text).unwrap(), first);
    assert_eq!(origin.write(&first), text, "a repeat has the same version");
    let held = Description { direction: Direction::SendOnly, ..first };
    assert!(origin.write(&held).contains("o=- 1 2 IN"));
}

#[test]
fn srtp_modes_meet_profiles_as_the_table_says() {
    type Case<'a> = (&'a str, &'a str, Vec<&'a str>, SrtpMode, Result<bool, &'a str>);
    let crypto = format!("crypto:4 AES_CM_128_HMAC_SHA1_80 inline:{KEY}");
    let dtls = "fingerprint:sha-256 AA:BB";

    let cases: [Case<'_>; 11] = [
        ("SAVP to required", "audio 4 RTP/SAVP 0", vec![&crypto], SrtpMode::Required, Ok(true)),
        ("SAVP to optional", "audio 4 RTP/SAVP 0", vec![&crypto], SrtpMode::Optional, Ok(true)),
        ("SAVP to off", "audio 4 RTP/SAVP 0", vec![&crypto], SrtpMode::Off, Err("the other side requires SRTP")),
        ("AVP with keys to required", "audio 4 RTP/AVP 0", vec![&crypto], SrtpMode::Required, Ok(true)),
        ("AVP with keys to optional", "audio 4 RTP/AVP 0", vec![&crypto], SrtpMode::Optional, Ok(true)),
        ("AVP with keys to off", "audio 4 RTP/AVP 0", vec![&crypto], SrtpMode::Off, Ok(false)),
        ("AVP to required", "audio 4 RTP/AVP 0", vec![], SrtpMode::Required, Err("SRTP is required here")),
        ("AVP to optional", "audio 4 RTP/AVP 0", vec![], SrtpMode::Optional, Ok(false)),
        ("AVP to off", "audio 4 RTP/AVP 0", vec![], SrtpMode::Off, Ok(false)),
        ("SAVP without keys", "audio 4 RTP/SAVP 0", vec![dtls], SrtpMode::Optional, Err("SRTP is required here")),
        ("DTLS-SRTP", "audio 4 UDP/TLS/RTP/SAVPF 0", vec![dtls], SrtpMode::Optional, Err("media over UDP/TLS")),
    ];
    for (name, media, lines, mode, want) in cases {
        let judged = negotiate::judge_offer(&theirs(media, &lines), mode);
        match (judged, want) {
            (Ok(agreed), Ok(protected)) => {
                assert_eq!(agreed.crypto.is_some(), protected, "case: {name}");
                assert!(agreed.crypto.is_none_or(|crypto| crypto.tag == 4), "case: {name}: the tag is the offer's");
            }
            (Err(error), Err(start)) => assert!(error.to_string().starts_with(start), "case: {name}: {error}"),
            (other, _) => panic!("case: {name}: {other:?}"),
        }
    }
}

#[test]
fn an_answer_takes_the_first_codec_of_the_offer_with_its_numbers_and_the_digits_of_its_clock() {
    let crypto = format!("crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}");
    let opus = ["rtpmap:96 opus/48000/2", "rtpmap:97 telephone-event/8000", "rtpmap:98 telephone-event/48000", &crypto];
    let cases = [
        ("opus first", "audio 4 RTP/SAVP 96 8 97 98", Codec::Opus, 96, Some(98), "m=audio 50016 RTP/SAVP 96 98\r\n"),
        ("A-law first", "audio 4 RTP/SAVP 8 96 97 98", Codec::Pcma, 8, Some(97), "m=audio 50016 RTP/SAVP 8 97\r\n"),
        ("unknown ones are skipped", "audio 4 RTP/SAVP 9 18 0", Codec::Pcmu, 0, None, "m=audio 50016 RTP/SAVP 0\r\n"),
    ];
    for (name, media, codec, number, event, line) in cases {
        let offer = theirs(media, &opus);
        let agreed = negotiate::judge_offer(&offer, SrtpMode::Required).unwrap();
        assert_eq!((agreed.formats.send.codec, agreed.formats.send.payload_type), (codec, number), "case: {name}");
        assert_eq!(agreed.formats.send_event.map(|event| event.payload_type), event, "case: {name}");
        let answer = negotiate::make_answer(&offer, &agreed, &key(9), Direction::SendRecv, transport(false));
        let text = Origin::new(1).write(&answer);
        assert!(text.contains(line), "case: {name}: {text}");
        assert!(!text.contains("ice-ufrag"), "an offer without ICE gets an answer without ICE");
        assert!(text.contains("crypto:1 AES_CM_128_HMAC_SHA1_80") && !text.contains(KEY), "case: {name}: our own key");
    }
    let none = theirs("audio 4 RTP/AVP 9 18", &["rtpmap:9 G722/8000"]);
    let error = negotiate::judge_offer(&none, SrtpMode::Off).unwrap_err();
    assert!(matches!(&error, NegotiateError::NoCodec { theirs } if theirs == "G722, G729"), "{error}");
    assert!(error.warning().starts_with("305"));
}

#[test]
fn an_answer_to_us_must_name_the_suite_of_our_key_line_and_may_lack_its_tag_and_mux() {
    let good = format!("crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{OTHER_KEY}");
    let wrong_tag = format!("crypto:2 AES_CM_128_HMAC_SHA1_80 inline:{OTHER_KEY}");
    let wrong_suite = format!("crypto:1 AES_CM_128_HMAC_SHA1_32 inline:{OTHER_KEY}");
    let opus = "rtpmap:111 opus/48000/2";
    let offer = offer(SrtpMode::Required);
    let answer =
        |lines: &[&str]| negotiate::apply_answer(&offer, &theirs("audio 4000 RTP/SAVP 111", lines), SrtpMode::Required);
    let agreed = answer(&[&good, opus]).unwrap();
    assert!(!agreed.mux && agreed.ice.is_none());
    assert_eq!(agreed.rtcp, Some("198.51.100.77:4001".parse().unwrap()), "without a=rtcp it is the next port");
    assert_eq!(agreed.formats.receive.len(), 3, "everything we offered may come");
    assert!(answer(&[&good, opus, "rtcp-mux"]).unwrap().mux);
    // baresip answers with the number of the line in its own list.
    let tagged = answer(&[&wrong_tag, opus]).unwrap().crypto.unwrap();
    assert_eq!((tagged.tag, tagged.key), (1, agreed.crypto.unwrap().key));
    assert!(matches!(answer(&[&wrong_suite, opus]), Err(NegotiateError::Keys(_))));
    assert!(matches!(answer(&[opus]), Err(NegotiateError::SrtpMissing)));
    let refused = negotiate::apply_answer(&offer, &theirs("audio 0 RTP/SAVP 111", &[opus]), SrtpMode::Required);
    assert!(matches!(refused, Err(NegotiateError::Refused)));
}

#[test]
fn other_streams_keep_their_places_and_are_refused() {
    let text = "v=0\r\no=- 1 1 IN IP4 192.0.2.5\r\ns=-\r\nc=IN IP4 192.0.2.5\r\nt=0 0\r\nm=video 5000 RTP/AVP 31 34\r\n\
                a=rtpmap:31 H261/90000\r\nm=audio 5002 RTP/AVP 0\r\nm=application 5004 TCP/BFCP *\r\n";
    let offer = Description::read(text).unwrap();
    let agreed = negotiate::judge_offer(&offer, SrtpMode::Off).unwrap();
    let answer = negotiate::make_answer(&offer, &agreed, &key(1), Direction::SendRecv, transport(false));
    let written = Origin::new(1).write(&answer);
    let streams: Vec<_> = written.lines().filter(|line| line.starts_with("m=")).collect();
    assert_eq!(streams, ["m=video 0 RTP/AVP 31", "m=audio 50016 RTP/AVP 0", "m=application 0 TCP/BFCP *"]);
}

#[test]
fn directions_are_answered_as_the_table_says() {
    let cases = [
        ("sendrecv", Direction::SendRecv),
        ("sendonly", Direction::RecvOnly),
        ("recvonly", Direction::SendOnly),
        ("inactive", Direction::Inactive),
    ];
    for (line, want) in cases {
        let agreed = negotiate::judge_offer(&theirs("audio 4 RTP/AVP 0", &[line]), SrtpMode::Off).unwrap();
        assert_eq!(agreed.direction, want, "case: {line}");
        assert!(!want.and(Direction::SendOnly).receives(), "held by us we never receive");
    }
}

#[test]
fn ice_is_used_only_if_the_default_is_a_candidate() {
    let ice = ["ice-ufrag:Pq2a", "ice-pwd:2o7kJxg0XnRb4fQwMz1sVtEd", "rtcp-mux"];
    let same = "candidate:1 1 UDP 2130706431 198.51.100.77 50110 typ host";
    let other = "candidate:1 1 UDP 2130706431 10.1.1.1 50110 typ host";
    let cases = [
        ("the default is a candidate", "audio 50110 RTP/AVP 0", vec![same], true),
        ("something rewrote the address", "audio 50110 RTP/AVP 0", vec![other], false),
        ("a trickling peer names no default yet", "audio 9 RTP/AVP 0", vec![other], true),
        ("the peer says mismatch", "audio 50110 RTP/AVP 0", vec![same, "ice-mismatch"], false),
    ];
    for (name, media, extra, want) in cases {
        let lines: Vec<_> = ice.iter().chain(&extra).copied().collect();
        let offer = theirs(media, &lines);
        let agreed = negotiate::judge_offer(&offer, SrtpMode::Off).unwrap();
        assert_eq!(agreed.ice.is_some(), want, "case: {name}");
        // RFC 8839 §4.2.5: the offerer is told, and gets no candidates.
        let answer = negotiate::make_answer(&offer, &agreed, &key(1), Direction::SendRecv, transport(false));
        let written = Origin::new(1).write(&answer);
        let tells = written.contains("a=ice-mismatch") && !written.contains("a=candidate");
        assert_eq!(tells, extra == [other] && !want, "case: {name}\n{written}");
    }
}

#[test]
fn remote_candidates_name_the_pair_with_the_offers_default() {
    let lines = [
        "ice-ufrag:Pq2a",
        "ice-pwd:2o7kJxg0XnRb4fQwMz1sVtEd",
        "rtcp:50111",
        "candidate:1 1 UDP 2130706431 198.51.100.77 50110 typ host",
        "remote-candidates:1 10.0.0.5 50016 2 10.0.0.5 50017",
    ];
    let agreed = negotiate::judge_offer(&theirs("audio 50110 RTP/AVP 0", &lines), SrtpMode::Off).unwrap();
    let pairs: Vec<_> =
        agreed.nominated.iter().map(|pair| (pair.component, pair.local.port(), pair.remote.port())).collect();
    assert_eq!(pairs, [(Component::Rtp, 50016, 50110), (Component::Rtcp, 50017, 50111)]);
}

#[test]
fn bad_descriptions_are_errors_and_never_panics() {
    let cases = ["", "v=0", "m=audio 5 RTP/AVP 0", "v=0\r\nm=audio x RTP/AVP 0\r\n", "v=0\r\nm=video 5 RTP/AVP 0\r\n"];
    for text in cases {
        assert!(Description::read(text).is_err(), "{text:?}");
    }
    let odd = "v=0\r\no=- 1 1 IN IP4 192.0.2.5\r\ns=-\r\nc=IN IP4 host.example.test\r\nt=0 0\r\nm=audio 5/2 RTP/AVP 0 300 -1 x\r\n\
               a=candidate:\r\na=rtpmap:\r\na=remote-candidates:1\r\n";
    let read = Description::read(odd).unwrap();
    assert_eq!((read.rtp, read.port, read.profile, read.rtpmaps.len()), (None, 5, Profile::Avp, 1));
}
