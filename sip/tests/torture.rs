//! Messages after RFC 4475 (written for this project, same traits), and six of our own: what must be accepted with
//! the right meaning, what must be refused and with which status.

#![expect(clippy::expect_used, reason = "a helper of tests that fails has failed the test")]

use sip::message::{Message, Method, Request};
use sip::parse::{frame_length, parse_message};
use sip::uri::{Host, Scheme};

/// `\n` becomes CRLF; `\u{80}`..`\u{ff}` stand for single bytes.
fn bytes(text: &str) -> Vec<u8> {
    let single = |c: char| u8::try_from(u32::from(c)).expect("Latin-1 only");
    text.replace('\n', "\r\n").chars().map(single).collect()
}

fn request(text: &str) -> Request {
    match parse_message(&bytes(text)) {
        Ok(Message::Request(request)) => request,
        other => panic!("not accepted as a request: {other:?}\n{text}"),
    }
}

/// A request with these lines in the place of the usual ones of the same name.
fn with(start: &str, lines: &[&str]) -> String {
    let usual = [
        "Via: SIP/2.0/UDP host.example.com;branch=z9hG4bK-x",
        "To: <sip:j.user@example.com>",
        "From: <sip:caller@example.net>;tag=134161461246",
        "Call-ID: x.0ha0isndaksdj@192.0.2.1",
        "CSeq: 8 INVITE",
        "Max-Forwards: 70",
        "Content-Length: 0",
    ];
    let name = |line: &str| line.split(':').next().unwrap_or_default().to_ascii_lowercase();
    let kept = usual.iter().filter(|usual| !lines.iter().any(|line| name(line) == name(usual)));
    let all: Vec<&str> = kept.copied().chain(lines.iter().copied().filter(|line| !line.ends_with(":-"))).collect();
    format!("{start}\n{}\n\n", all.join("\n"))
}

const INVITE: &str = "INVITE sip:user@example.com SIP/2.0";

#[test]
fn wsinv_folding_and_blanks_everywhere() {
    let got = request(
        "INVITE sip:vivekg@chair-dnrc.example.com;unknownparam SIP/2.0\nTO :\n sip:vivekg@chair-dnrc.example.com ;   tag    = 1918181833n\n\
from   : \"J Rosenberg \\\\\\\"\"       <sip:jdrosen@example.com>\n  ;\n  tag = 98asjd8\nMaX-fOrWaRdS: 0068\n\
Call-ID: wsinv.ndaksdj@192.0.2.1\nContent-Length   : 4\ncseq: 0009\n  INVITE\nVia  : SIP  /   2.0\n /UDP\n    192.0.2.2;branch=390skdjuw\n\
s :\nNewFangledHeader:   newfangled value\n continued newfangled value\nUnknownHeaderWithUnusualValue: ;;,,;;,;\nContent-Type: application/sdp\n\
Route:\n <sip:services.example.com;lr;unknownwith=value;unknown-no-value>\nv:  SIP  / 2.0  / TCP     spindle.example.com   ;\n  branch  =   z9hG4bK9ikj8  ,\n \
SIP  /    2.0   / UDP  192.168.255.111   ; branch=\n z9hG4bK30239\nm:\"Quoted string \\\"\\\"\" <sip:jdrosen@example.com> ; newparam =\n      newvalue ;\n  secondparam ; q = 0.33\n\nbody",
    );
    let headers = &got.headers;
    assert!(got.uri.params.contains("unknownparam"));
    assert_eq!(headers.to().unwrap().tag(), Some("1918181833n"));
    let from = headers.from().unwrap();
    assert_eq!((from.display_name.as_str(), from.tag()), ("J Rosenberg \\\"", Some("98asjd8")));
    assert_eq!(headers.max_forwards().unwrap(), Some(68));
    assert_eq!((headers.cseq().unwrap().number, headers.cseq().unwrap().method), (9, Method::Invite));
    let vias = headers.vias().unwrap();
    let branches: Vec<_> = vias.iter().map(|via| via.branch().unwrap()).collect();
    assert_eq!(branches, ["390skdjuw", "z9hG4bK9ikj8", "z9hG4bK30239"]);
    assert_eq!(headers.get("Subject"), Some(""));
    assert_eq!(headers.get("newfangledheader"), Some("newfangled value continued newfangled value"));
    assert!(headers.routes().unwrap()[0].uri.is_loose_router());
    let contact = &headers.contacts().unwrap()[0];
    assert_eq!((contact.display_name.as_str(), contact.q_thousandths()), ("Quoted string \"\"", 330));
    assert_eq!(got.body, b"body");
}

#[test]
fn intmeth_unusual_but_legal_characters() {
    let uri =
        "sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com";
    let got = request(&format!(
        "!interesting-Method0123456789_*+`.%indeed'~ {uri} SIP/2.0\nVia: SIP/2.0/TCP host1.example.com;branch=z9hG4bK-.!%66*_+`'~\n\
To: \"BEL:\\\u{7} NUL:\\\0 DEL:\\\u{7f}\" <{uri}>\nFrom: token1~` token2'+_ token3*%!.- <sip:mundane@example.com> ;fromParam''~+*_!.-%=\"\u{d1}\u{80}\" ;tag=_token~1'+`*%!-.\n\
Call-ID: intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}}{{\nCSeq: 139122385 !interesting-Method0123456789_*+`.%indeed'~\n\
Max-Forwards: 255\nextensionHeader-!.%*+_`'~: \u{ef}\u{bb}\u{bf}\u{e5}\u{a4}\u{a7}\nContent-Length: 0\n\n"
    ));
    assert_eq!(got.method.as_str(), "!interesting-Method0123456789_*+`.%indeed'~");
    assert_eq!(got.uri.to_string(), uri);
    assert_eq!(got.uri.password.as_deref(), Some("&it+has=1,weird!*pas$wo~d_too.(doesn't-it)"));
    assert_eq!(got.headers.via_top().unwrap().branch(), Some("z9hG4bK-.!%66*_+`'~"), "a branch is not unescaped");
    assert_eq!(got.headers.to().unwrap().display_name, "BEL:\u{7} NUL:\0 DEL:\u{7f}");
    assert_eq!(got.headers.from().unwrap().tag(), Some("_token~1'+`*%!-."));
}

#[test]
fn esc01_escapes_are_kept_and_compared_unescaped() {
    let got = request(&with(
        "INVITE sip:sips%3Auser%40example.com@example.net SIP/2.0",
        &["To: sip:%75se%72@example.com", "Contact: <sip:cal%6Cer@host5.example.net;%6C%72;n%61me=v%61lue%25%34%31>"],
    ));
    assert_eq!(got.uri.user.as_deref(), Some("sips%3Auser%40example.com"));
    assert_eq!(got.uri.user_text(), "sips:user@example.com");
    assert_eq!(got.uri.to_string(), "sip:sips%3Auser%40example.com@example.net");
    let to = got.headers.to().unwrap().uri;
    assert!(to.equivalent(&"sip:user@example.com".parse().unwrap()));
    let contact = got.headers.contacts().unwrap()[0].clone();
    assert_eq!(contact.to_string(), "<sip:cal%6Cer@host5.example.net;%6C%72;n%61me=v%61lue%25%34%31>");
    assert!(!contact.uri.is_loose_router(), "parameter names are compared as they stand");
}

#[test]
fn escnull_escaped_nulls() {
    let lines = [
        "To: sip:null-%00-null@example.com",
        "From: sip:null-%00-null@example.com;tag=839923423",
        "CSeq: 14398234 REGISTER",
    ];
    let got = request(&with("REGISTER sip:example.com SIP/2.0", &lines));
    let from = got.headers.from().unwrap();
    assert_eq!(from.tag(), Some("839923423"), "without angle brackets the tag is the header's");
    assert_eq!(sip::uri::unescape(from.uri.user.as_deref().unwrap()), b"null-\0-null");
}

#[test]
fn esc02_a_percent_sign_in_a_token_is_no_escape() {
    let lines = [
        "To: \"%Z%45\" <sip:resource@example.com>",
        "CSeq: 29344 RE%47IST%45R",
        "Contact: <sip:alias1@host1.example.com>;%65xpires=31",
    ];
    let got = request(&with("RE%47IST%45R sip:registrar.example.com SIP/2.0", &lines));
    assert_eq!(got.method, Method::Other("RE%47IST%45R".to_owned()));
    assert_eq!(got.headers.to().unwrap().display_name, "%Z%45");
    assert_eq!(got.headers.contacts().unwrap()[0].expires(), None);
}

#[test]
fn lwsdisp_no_blank_between_name_and_bracket() {
    let got = request(&with(INVITE, &["From: caller<sip:caller@example.com>;tag=323"]));
    assert_eq!(got.headers.from().unwrap().display_name, "caller");
}

#[test]
fn longreq_long_values() {
    let long = "a".repeat(3000);
    let via = format!("Via: SIP/2.0/TCP sip33.example.com{}", ";p=1".repeat(300) + ";branch=z9hG4bK77");
    let to = format!("To: \"I have a {long} name\" <sip:{long}@example.com>;unknown{long}={long}");
    let got = request(&with(INVITE, &[&via, &to, &format!("Contact: <sip:{long}.amazing@host.example.com>")]));
    assert_eq!(got.headers.via_top().unwrap().branch(), Some("z9hG4bK77"));
    assert_eq!(got.headers.to().unwrap().uri.user.unwrap().len(), 3000);
}

#[test]
fn dblreq_what_follows_in_the_datagram_is_ignored() {
    let first = with("REGISTER sip:example.com SIP/2.0", &["CSeq: 8 REGISTER"]);
    let got = request(&format!("{first}{}", with(INVITE, &[])));
    assert_eq!((got.method, got.body.len()), (Method::Register, 0));
    assert_eq!(frame_length(&bytes(&format!("{first}INVITE"))).unwrap(), Some(bytes(&first).len()));
}

#[test]
fn semiuri_semicolons_in_the_user() {
    let got = request(&with("OPTIONS sip:user;par=u%40example.net@example.com SIP/2.0", &["CSeq: 8 OPTIONS"]));
    assert_eq!(got.uri.user.as_deref(), Some("user;par=u%40example.net"));
    assert!(got.uri.params.is_empty());
}

#[test]
fn transports_unknown_ones_in_via() {
    let lines = [
        "CSeq: 60 OPTIONS",
        "Via: SIP/2.0/UDP t1.example.com;branch=z9hG4bKkdjuw",
        "Via: SIP/2.0/SCTP t2.example.com;branch=z9hG4bKklasjdhf",
        "Via: SIP/2.0/UNKNOWN t4.example.com;branch=z9hG4bKasd0f3en",
    ];
    let got = request(&with("OPTIONS sip:user@example.com SIP/2.0", &lines));
    let transports: Vec<_> = got.headers.vias().unwrap().into_iter().map(|via| via.transport).collect();
    assert_eq!(transports, ["UDP", "SCTP", "UNKNOWN"]);
}

#[test]
fn mpart01_a_binary_body_is_untouched() {
    let body = b"--7a9c\r\nContent-Type: text/plain\r\n\r\nHello\r\n--7a9c\r\nContent-Type: application/octet-stream\r\n\r\n\x30\x82\x01\x52\x00\xff\r\n\r\n--7a9c--\r\n";
    let head = with(
        "MESSAGE sip:kumiko@example.org SIP/2.0",
        &["CSeq: 8 MESSAGE", "Content-Type: multipart/mixed;boundary=7a9c", &format!("Content-Length: {}", body.len())],
    );
    let message = parse_message(&[bytes(&head), body.to_vec()].concat()).unwrap();
    assert_eq!(message.body(), body);
    assert!(message.to_bytes().ends_with(body));
    let parts = sip::multipart::parse(message.headers().get("Content-Type").unwrap(), message.body()).unwrap();
    assert_eq!(parts[1].body, b"\x30\x82\x01\x52\x00\xff\r\n");
}

#[test]
fn unreason_and_noreason_any_phrase_or_none() {
    let phrase = "= 2**3 * 5**2 \u{d0}\u{bd}\u{d0}\u{be}";
    for (start, want) in [(format!("SIP/2.0 200 {phrase}"), bytes(phrase)), ("SIP/2.0 100 ".to_owned(), vec![])] {
        let text = with(&start, &[]);
        let message = parse_message(&bytes(&text)).unwrap();
        let Message::Response(response) = &message else { panic!("a response") };
        assert_eq!(sip::parse::bytes_from_text(&response.reason), want);
        assert_eq!(message.to_bytes(), bytes(&text));
    }
}

/// (name, message, status to answer, whether an answer can be addressed)
fn refused() -> Vec<(&'static str, String, u16, bool)> {
    vec![
        (
            "badinv01: separators without values",
            with(INVITE, &["Via: SIP/2.0/UDP 192.0.2.15;;,;,,", "Contact: \"Joe\" <sip:joe@example.org>;;;;"]),
            400,
            false,
        ),
        ("badinv01: empty contact elements", with(INVITE, &["Contact: <sip:joe@example.org>,,"]), 400, true),
        ("clerr: Content-Length beyond the datagram", with(INVITE, &["Content-Length: 9999"]), 400, true),
        ("ncl: negative Content-Length", with(INVITE, &["Content-Length: -999"]), 400, true),
        ("scalar02: CSeq beyond 32 bits", with(INVITE, &["CSeq: 36893488147419103232 INVITE"]), 400, true),
        ("scalar02: CSeq of 2^31", with(INVITE, &["CSeq: 2147483648 INVITE"]), 400, true),
        ("scalar02: Max-Forwards 300", with(INVITE, &["Max-Forwards: 300"]), 400, true),
        ("quotbal: quote without end", with(INVITE, &["To: \"Mr. J. User <sip:j.user@example.com>"]), 400, true),
        ("ltgtruri: Request-URI in brackets", with("INVITE <sip:user@example.com> SIP/2.0", &[]), 400, true),
        ("lwsruri: blank in the Request-URI", with("INVITE sip:user@example.com; lr SIP/2.0", &[]), 400, true),
        ("lwsstart: two blanks", with("INVITE  sip:user@example.com  SIP/2.0", &[]), 400, true),
        ("trws: blank behind the version", with("INVITE sip:user@example.com SIP/2.0 ", &[]), 400, true),
        (
            "escruri: headers in the Request-URI",
            with("INVITE sip:user@example.com?Route=%3Csip:x%3E SIP/2.0", &[]),
            400,
            true,
        ),
        (
            "regbadct: '?' without brackets",
            with(INVITE, &["Contact: sip:user@example.com?Route=%3Csip:x%3E"]),
            400,
            true,
        ),
        (
            "badaspec: blank in brackets",
            with(INVITE, &["To: \"Watson, Thomas\" < sip:t.watson@example.org >"]),
            400,
            true,
        ),
        (
            "baddn: comma in an unquoted name",
            with(INVITE, &["From: Bell, Alexander <sip:a@example.com>;tag=43"]),
            400,
            true,
        ),
        ("badvers: SIP/7.0", with("OPTIONS sip:t.watson@example.org SIP/7.0", &["CSeq: 8 OPTIONS"]), 505, true),
        ("mismatch01: CSeq of another method", with("OPTIONS sip:user@example.com SIP/2.0", &[]), 400, true),
        ("mismatch02: the same, method unknown", with("NEWMETHOD sip:user@example.com SIP/2.0", &[]), 400, true),
        ("insuf: no From, no Call-ID", with(INVITE, &["From:-", "Call-ID:-"]), 400, false),
        ("multi01: two CSeq", with(INVITE, &["CSeq: 5 INVITE", "CSeq: 59 INVITE"]), 400, true),
        ("mcl01: two Content-Length", with(INVITE, &["Content-Length: 13", "Content-Length: 5"]), 400, true),
        ("a colon-less line", with(INVITE, &["NotAHeader"]), 400, true),
        ("no Via", with(INVITE, &["Via:-"]), 400, false),
        ("a bare line feed", with(INVITE, &[]).replace("Max-Forwards: 70\n", "Max-Forwards: 70\nX: a\r"), 400, true),
        ("bigcode: status 4294967301", with("SIP/2.0 4294967301 better not break the receiver", &[]), 400, false),
        ("noise", "\u{16}\u{3}\u{1}\u{0}hello\n\n".to_owned(), 400, false),
    ]
}

#[test]
fn what_breaks_the_grammar_is_refused_with_its_status() {
    for (name, text, status, answerable) in refused() {
        match parse_message(&bytes(&text)) {
            Ok(message) => panic!("case {name}: accepted as {message:?}"),
            Err(error) => {
                assert_eq!((error.status, error.request.is_some()), (status, answerable), "case: {name}: {error}");
                if let Some(request) = error.request {
                    let answer = request.response(error.status, &error.reason);
                    assert!(parse_message(&bytes("SIP/2.0 400 x\n\n")).is_err());
                    assert!(answer.headers.contains("Via") && answer.headers.contains("Call-ID"), "case: {name}");
                }
            }
        }
    }
}

#[test]
fn limits_hold() {
    let many: Vec<String> = (0..300).map(|n| format!("X-{n}: y")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(parse_message(&bytes(&with(INVITE, &many))).unwrap_err().status, 513);
    let huge = with(INVITE, &[&format!("X: {}", "y".repeat(66_000))]);
    assert_eq!(parse_message(&bytes(&huge)).unwrap_err().status, 513);
    assert!(frame_length(&bytes(&huge)).is_err(), "a stream is not read any further");
    let endless = with(INVITE, &["Content-Length: 4000000000"]);
    assert!(frame_length(&bytes(&endless)).is_err());
    assert_eq!(frame_length(b"INVITE sip:a@b SIP/2.0\r\nVia: x").unwrap(), None);
}

#[test]
fn unkscm_a_scheme_nobody_knows_is_visible() {
    let got = request(&with("OPTIONS nobodyKnowsThisScheme:totallyopaquecontent SIP/2.0", &["CSeq: 8 OPTIONS"]));
    assert_eq!(got.uri.scheme, Scheme::Other("nobodyknowsthisscheme".to_owned()));
    let got =
        request(&with("OPTIONS soap.beep://192.0.2.103:3002 SIP/2.0", &["CSeq: 8 OPTIONS", "To: isbn:2983792873"]));
    assert_eq!(got.headers.to().unwrap().uri.scheme, Scheme::Other("isbn".to_owned()));
}

#[test]
fn our_own_six() {
    let relay = "sip:lab.test;gruu;opaque=srvr:relay";
    let service = request(&with(&format!("SERVICE {relay} SIP/2.0"), &[&format!("To: <{relay}>"), "CSeq: 1 SERVICE"]));
    assert_eq!(service.method, Method::Service);
    assert_eq!(service.headers.to().unwrap().uri.to_string(), relay);

    let ok = with("SIP/2.0 200 OK", &["CSeq: 1 SERVICE", &format!("To: <{relay}>;tag=1")]);
    let ok = parse_message(&bytes(&ok)).unwrap();
    assert_eq!(ok.headers().to().unwrap().uri.params.get("opaque"), Some("srvr:relay"));
    assert_eq!(ok.headers().cseq().unwrap().method, Method::Service);

    let lines = [
        "Via: SIP/2.0/UDP [2001:db8::9:1];received=[2001:db8::9:255];rport=5061;branch=z9hG4bKas3",
        "CSeq: 1 INVITE",
        "Contact: <sip:caller@[2001:db8::1]>",
    ];
    let six = request(&with("INVITE sip:[2001:db8::10]:5070 SIP/2.0", &lines));
    assert_eq!((six.uri.host.clone(), six.uri.port), (Host::Ip("2001:db8::10".parse().unwrap()), Some(5070)));
    let via = six.headers.via_top().unwrap();
    assert_eq!((via.received(), via.rport()), ("2001:db8::9:255".parse().ok(), Some(5061)));
    assert_eq!(via.to_string(), "SIP/2.0/UDP [2001:db8::9:1];received=[2001:db8::9:255];rport=5061;branch=z9hG4bKas3");
    assert_eq!(six.uri.to_string(), "sip:[2001:db8::10]:5070");

    let invited = request(&with("INVITED sip:user@example.com SIP/2.0", &["CSeq: 8 INVITED"]));
    assert_eq!(invited.method, Method::Other("INVITED".to_owned()));
    let lower = request(&with("invite sip:user@example.com SIP/2.0", &["CSeq: 8 invite"]));
    assert_eq!(lower.method, Method::Other("invite".to_owned()), "methods are case-sensitive");

    let text = with(INVITE, &["Subject: caf\u{e9}", "X-After: here"]);
    let latin = request(&text);
    assert_eq!(sip::parse::readable(latin.headers.get("Subject").unwrap()), "café");
    assert_eq!(latin.headers.get("X-After"), Some("here"), "what follows is not lost");
    assert_eq!(latin.to_bytes(), bytes(&text));

    let compact = request(
        "INVITE sip:bob@b SIP/2.0\nv: SIP/2.0/UDP h;branch=z9hG4bK1\nf: <sip:a@b>;tag=1\nt: <sip:b@b>\ni: 1\nCSeq: 1 INVITE\nm: <sip:a@h>\nc: application/sdp\nk: timer, 100rel\nx: 1800\nl: 0\n\n",
    );
    assert!(compact.headers.lists("Supported", "100REL"));
    assert_eq!(compact.headers.content_type().as_deref(), Some("application/sdp"));
    assert_eq!(compact.headers.get("Session-Expires"), Some("1800"));
}

/// Every prefix and every single changed byte of a message: never a panic.
#[test]
fn no_damage_makes_the_reader_panic() {
    let whole =
        bytes(&with(INVITE, &["Contact: \"a\" <sip:a@[2001:db8::1]:5060;lr>;q=0.5", "Route: <sip:p;lr>, <sip:q;lr>"]));
    for at in 0..whole.len() {
        let _ = parse_message(&whole[..at]);
        for byte in [0, b'\n', b'"', b'<', b'%', 0xff] {
            let mut damaged = whole.clone();
            damaged[at] = byte;
            if let Ok(message) = parse_message(&damaged) {
                let again = parse_message(&message.to_bytes()).expect("what was accepted is written readably");
                assert_eq!(again.to_bytes(), message.to_bytes());
            }
            let _ = frame_length(&damaged);
        }
    }
}
