use super::*;

/// The offer in the shape of a 2013 client (facts sheet §4.1), keys filled in.
const LYNC: &str = "v=0
o=- 0 1 IN IP4 198.51.100.20
s=session
c=IN IP4 198.51.100.20
b=CT:99980
t=0 0
a=x-devicecaps:audio:send,recv;video:recv
m=audio 50132 RTP/SAVP 117 104 114 9 112 111 0 8 116 115 103 97 13 118 101
a=x-ssrc-range:3110220032-3110220032
a=rtcp-fb:* x-message app send:dsh recv:dsh
a=rtcp-rsize
a=label:main-audio
a=x-source:main-audio
a=ice-ufrag:bT9k
a=ice-pwd:Vn0pQz1RkYw8sJtLxA2dUe7h
a=candidate:1 1 UDP 2130706431 10.0.0.5 50016 typ host 
a=candidate:1 2 UDP 2130705918 10.0.0.5 50017 typ host 
a=candidate:2 1 TCP-PASS 174456319 198.51.100.21 52210 typ relay raddr 203.0.113.7 rport 50019 
a=candidate:2 2 TCP-PASS 174455806 198.51.100.21 52210 typ relay raddr 203.0.113.7 rport 50019 
a=candidate:3 1 UDP 184548351 198.51.100.20 50132 typ relay raddr 203.0.113.7 rport 50002 
a=candidate:3 2 UDP 184547838 198.51.100.20 50188 typ relay raddr 203.0.113.7 rport 50003 
a=candidate:4 1 UDP 1694235135 203.0.113.7 50002 typ srflx raddr 10.0.0.5 rport 50002 
a=candidate:4 2 UDP 1694234622 203.0.113.7 50003 typ srflx raddr 10.0.0.5 rport 50003 
a=candidate:5 1 TCP-ACT 174847999 198.51.100.21 52210 typ relay raddr 203.0.113.7 rport 50019 
a=candidate:5 2 TCP-ACT 174847486 198.51.100.21 52210 typ relay raddr 203.0.113.7 rport 50019 
a=candidate:6 1 TCP-ACT 1684796927 203.0.113.7 50019 typ srflx raddr 10.0.0.5 rport 50019 
a=candidate:6 2 TCP-ACT 1684796414 203.0.113.7 50019 typ srflx raddr 10.0.0.5 rport 50019 
a=cryptoscale:1 client AES_CM_128_HMAC_SHA1_80 inline:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA|2^31|1:1
a=crypto:2 AES_CM_128_HMAC_SHA1_80 inline:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA|2^31|1:1
a=crypto:3 AES_CM_128_HMAC_SHA1_80 inline:BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB|2^31
a=maxptime:200
a=rtcp:50188
a=rtpmap:114 x-msrta/16000
a=fmtp:114 bitrate=29000
a=rtpmap:103 SILK/8000
a=fmtp:103 useinbandfec=1; usedtx=0
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=rtcp-mux
a=ptime:20
";

/// An offer of the shape of RFC 8839 §5.1 (facts sheet §9.22), key filled in.
const STANDARD: &str = "v=0
o=- 7261 1 IN IP4 203.0.113.10
s=-
c=IN IP4 203.0.113.10
t=0 0
a=ice-options:ice2
m=audio 49800 RTP/SAVP 96 9 0 8 101
a=rtcp-mux
a=rtcp:49802
a=ice-ufrag:9uB6
a=ice-pwd:YH75Fviy6338Vbrhrlp8Yh
a=candidate:1 1 UDP 2130706431 10.0.0.5 50016 typ host
a=candidate:1 2 UDP 2130706430 10.0.0.5 50017 typ host
a=candidate:3 1 UDP 16777215 203.0.113.10 49800 typ relay raddr 203.0.113.7 rport 50002
a=candidate:4 1 TCP 1054867455 10.0.0.5 9 typ host tcptype active
a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC
a=rtpmap:96 opus/48000/2
a=fmtp:96 maxplaybackrate=16000;useinbandfec=1
a=rtpmap:9 G722/8000
a=rtpmap:101 telephone-event/48000
a=fmtp:101 0-16
a=sendrecv
";

fn crlf(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}

#[test]
fn both_worked_offers_are_written_as_they_were_read() {
    for (name, text) in [("2013 client", LYNC), ("RFC 8839", STANDARD)] {
        let sdp = SessionDescription::parse(&crlf(text)).unwrap();
        assert_eq!(String::from_utf8(sdp.to_bytes()).unwrap(), text.replace('\n', "\r\n"), "case: {name}");
    }
}

#[test]
fn the_offer_of_a_2013_client_means_what_the_facts_sheet_says() {
    let sdp = SessionDescription::parse(&crlf(LYNC)).unwrap();
    let audio = sdp.audio().unwrap();
    assert_eq!((audio.port(), audio.protocol(), audio.address()), (50132, "RTP/SAVP", "198.51.100.20".parse().ok()));
    assert_eq!(audio.rtcp(), Some(RtcpAddress { port: 50188, ip: None }));
    assert!(audio.rtcp_mux() && !sdp.ice_lite() && !audio.ice_mismatch());
    assert_eq!((audio.ice_ufrag(), audio.ice_pwd()), (Some("bT9k"), Some("Vn0pQz1RkYw8sJtLxA2dUe7h")));
    assert_eq!(audio.candidates().count(), 12);
    assert_eq!(
        audio.candidates().next(),
        Some("1 1 UDP 2130706431 10.0.0.5 50016 typ host"),
        "blank at the end is cut"
    );
    assert_eq!(audio.crypto().count(), 2, "cryptoscale is not crypto");
    assert_eq!((audio.ptime_ms(), audio.maxptime_ms(), audio.ice_pacing_ms()), (Some(20), Some(200), None));
    assert_eq!(audio.direction(), Direction::SendRecv);
    let silk = audio.format_parameters(103).unwrap();
    assert_eq!((silk.get("useinbandfec"), silk.get("USEDTX"), silk.get("cbr")), (Some("1"), Some("0"), None));
    let codecs = audio.codecs();
    let known: Vec<String> = codecs.iter().map(ToString::to_string).collect();
    let want = ["114 x-msrta/16000", "9 G722/8000", "0 PCMU/8000", "8 PCMA/8000", "103 SILK/8000", "13 CN/8000"];
    assert_eq!(known[..6], want, "in the order of the m= line, static types without rtpmap included");
}

#[test]
fn the_standard_offer_means_what_rfc_8839_says() {
    let sdp = SessionDescription::parse(&crlf(STANDARD)).unwrap();
    let audio = sdp.audio().unwrap();
    assert_eq!(audio.ice_options(), ["ice2"]);
    let opus = RtpMap { payload_type: 96, encoding: "OPUS".to_owned(), clock_rate: 48000, channels: 2 };
    assert!(audio.codecs()[0].same_codec(&opus));
    assert_eq!(sdp.origin(), ("7261", 1));
    assert_eq!(audio.remote_candidates(), []);
}

#[test]
fn a_promotion_offer_names_the_remote_candidates() {
    let text =
        STANDARD.replace("a=sendrecv", "a=remote-candidates:1 198.51.100.77 50110 2 2001:db8::7 50111\na=ice-pacing:5");
    let sdp = SessionDescription::parse(&crlf(&text)).unwrap();
    let audio = sdp.audio().unwrap();
    let want = vec![(1, "198.51.100.77".parse().unwrap(), 50110), (2, "2001:db8::7".parse().unwrap(), 50111)];
    assert_eq!(audio.remote_candidates(), want);
    assert_eq!(audio.ice_pacing_ms(), Some(5));
}

#[test]
fn incomplete_descriptions_are_refused_though_the_reader_below_fills_them_in() {
    let without = |line: &str| STANDARD.lines().filter(|l| !l.starts_with(line)).collect::<Vec<_>>().join("\r\n");
    let cases: [(&str, String, SdpError); 7] = [
        ("only v=0", "v=0\r\n".to_owned(), SdpError::Missing("o=")),
        ("no o=", without("o="), SdpError::Missing("o=")),
        ("no s=", without("s="), SdpError::Missing("s=")),
        ("no t=", without("t="), SdpError::Missing("t=")),
        ("no m=", without("m="), SdpError::Missing("m=")),
        ("no c=", without("c="), SdpError::NoConnection),
        ("empty", String::new(), SdpError::Missing("v=")),
    ];
    for (name, text, want) in cases {
        assert_eq!(SessionDescription::parse(text.as_bytes()).unwrap_err(), want, "case: {name}");
    }
    let port = STANDARD.replace("m=audio 49800", "m=audio 70000");
    assert!(matches!(SessionDescription::parse(&crlf(&port)), Err(SdpError::Syntax(_))));
    assert_eq!(SessionDescription::parse(&vec![b'v'; 70_000]), Err(SdpError::TooLarge));
}

#[test]
fn direction_is_read_at_both_levels_and_from_the_old_hold() {
    let cases = [
        ("nothing said", STANDARD.replace("a=sendrecv\n", ""), Direction::SendRecv),
        ("media level", STANDARD.replace("a=sendrecv", "a=sendonly"), Direction::SendOnly),
        (
            "session level",
            STANDARD.replace("a=sendrecv\n", "").replace("t=0 0", "t=0 0\na=inactive"),
            Direction::Inactive,
        ),
        (
            "c=0.0.0.0 without ICE",
            STANDARD.replace("c=IN IP4 203.0.113.10", "c=IN IP4 0.0.0.0").replace("a=ice-ufrag:9uB6\n", ""),
            Direction::SendOnly,
        ),
        ("c=0.0.0.0 with ICE", STANDARD.replace("c=IN IP4 203.0.113.10", "c=IN IP4 0.0.0.0"), Direction::SendRecv),
    ];
    for (name, text, want) in cases {
        let sdp = SessionDescription::parse(&crlf(&text)).unwrap();
        assert_eq!(sdp.audio().unwrap().direction(), want, "case: {name}");
    }
    assert_eq!(Direction::SendOnly.reversed(), Direction::RecvOnly);
}

#[test]
fn our_own_description_is_built_and_read_back() {
    let section = MediaSection::new("audio", 49170, "RTP/SAVP", &["96".to_owned(), "0".to_owned()])
        .attribute("rtpmap", Some("96 opus/48000/2"))
        .attribute("rtcp-mux", None);
    let sdp = SessionDescription::new(5, 2, "2001:db8::1".parse().unwrap())
        .attribute("ice-options", Some("ice2 renomination"))
        .media_section(section);
    let want = "v=0\r\no=- 5 2 IN IP6 2001:db8::1\r\ns=-\r\nc=IN IP6 2001:db8::1\r\nt=0 0\r\na=ice-options:ice2 renomination\r\n\
                m=audio 49170 RTP/SAVP 96 0\r\na=rtpmap:96 opus/48000/2\r\na=rtcp-mux\r\n";
    assert_eq!(String::from_utf8(sdp.to_bytes()).unwrap(), want);
    assert_eq!(SessionDescription::parse(want.as_bytes()).unwrap(), sdp);
    let refused = MediaSection::refused(&sdp.audio().unwrap());
    let answer = SessionDescription::new(6, 1, "192.0.2.1".parse().unwrap()).media_section(refused);
    assert!(answer.audio().is_none());
    assert!(String::from_utf8(answer.to_bytes()).unwrap().ends_with("m=audio 0 RTP/SAVP 96\r\n"));
}

#[test]
fn bytes_that_are_not_utf_8_survive_in_a_description() {
    let mut bytes = crlf(STANDARD);
    bytes.splice(bytes.len().., b"a=x-name:caf\xe9\r\n".iter().copied());
    assert_eq!(SessionDescription::parse(&bytes).unwrap().to_bytes(), bytes);
}

#[test]
fn a_fingerprint_is_read_and_written() {
    let fingerprint: Fingerprint = "SHA-256 0A:ff:00".parse().unwrap();
    assert_eq!(fingerprint.to_string(), "sha-256 0A:FF:00");
}
