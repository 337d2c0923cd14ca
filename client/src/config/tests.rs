use std::os::unix::fs::OpenOptionsExt as _;

use super::super::{Overrides, TEMPLATE, load};
use super::*;

struct Written {
    folder: tempfile::TempDir,
    path: PathBuf,
}

fn write(mode: u32, text: &str) -> Written {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&path).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    Written { folder, path }
}

fn parse(mode: u32, text: &str) -> Result<Config, String> {
    let written = write(mode, text);
    read(&written.path).map_err(|error| error.to_string().replace(&*written.folder.path().to_string_lossy(), ""))
}

#[test]
fn the_template_parses_as_it_is_and_with_every_setting_switched_on() {
    assert_eq!(parse(0o644, TEMPLATE).unwrap().accounts, []);
    let switched_on: Vec<String> = TEMPLATE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with([' ', '#']) => setting.to_owned(),
            _ => line.to_owned(),
        })
        .filter(|line| !line.contains("-env"))
        .map(|line| if line.starts_with("user = ") { line + "\npassword = \"x\"" } else { line })
        .collect();
    let config = parse(0o600, &switched_on.join("\n")).unwrap();
    let account = &config.accounts[0];
    assert_eq!(account.aor, "sip:alice@example.com");
    assert_eq!(account.password.as_ref().unwrap().expose(), "secret");
    assert_eq!(account.servers.len(), 3);
    assert_eq!(account.servers[2].port, 5349, "TURN over TLS has its own port");
    assert_eq!(account.port_range, Some((40000, 40999)));
    assert_eq!(config.sound.input.as_deref(), Some("USB"));
}

#[test]
fn what_is_wrong_is_named_with_its_line_and_what_to_do() {
    let cases = [
        ("a misspelt key", "[[account]]\naor = \"sip:a@b\"\ntransprot = \"tls\"\n"),
        ("an unknown key", "nonsense = 1\n"),
        ("a misspelt value", "[[account]]\naor = \"sip:a@b\"\ntransport = \"tsl\"\n"),
        ("no address of record", "[[account]]\naor = \"alice\"\n"),
        ("the aor is missing", "\n[[account]]\nregister = true\n"),
        ("not TOML", "dns = \n"),
        ("a wrong type", "dns = 5\n"),
        ("a name server without port", "dns = \"127.0.0.1\"\n"),
        ("a bad edge", "[[account]]\naor = \"sip:a@b\"\nedge = \"host:port\"\n"),
        ("too few ports", "ports = [5000, 5002]\n"),
        ("a relay without credentials", "[[turn]]\nserver = \"t\"\n"),
        ("two passwords", "[[account]]\naor = \"sip:a@b\"\npassword-env = \"A\"\npassword-command = \"b\"\n"),
        ("a failing command", "[[account]]\naor = \"sip:a@b\"\npassword-command = \"exit 3\"\n"),
        ("an unset variable", "[[account]]\naor = \"sip:a@b\"\npassword-env = \"ICEPHONE_NOT_SET\"\n"),
    ];
    let texts = cases.map(|(name, text)| format!("{name}: {}", parse(0o600, text).unwrap_err()));
    insta::assert_snapshot!(texts.join("\n"));
}

#[test]
fn a_password_in_a_file_that_others_may_read_is_refused() {
    let text = "[[account]]\naor = \"sip:a@b\"\npassword = \"hidden\"\n";
    let error = parse(0o644, text).unwrap_err();
    assert_eq!(
        error,
        "/config.toml: it holds the password of sip:a@b, but others may read it; run `chmod 600 /config.toml`, or use \
         password-command or password-file"
    );
    assert_eq!(parse(0o600, text).unwrap().accounts[0].password.as_ref().unwrap().expose(), "hidden");
}

#[test]
fn paths_are_relative_to_the_file_and_a_private_password_file_is_read() {
    let written = write(0o644, "tls.ca = \"ca.pem\"\n[[account]]\naor = \"sip:a@b\"\npassword-file = \"p\"\n");
    let secret = written.folder.path().join("p");
    std::fs::write(&secret, "hidden\n").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(read(&written.path).unwrap_err().to_string().contains("chmod 600"));
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let config = read(&written.path).unwrap();
    assert_eq!(config.accounts[0].tls_ca, Some(written.folder.path().join("ca.pem")));
    assert_eq!(config.accounts[0].password.as_ref().unwrap().expose(), "hidden");
}

#[test]
fn a_flag_wins_over_the_file_and_an_account_may_come_from_flags_alone() {
    let written = write(0o644, "srtp = \"optional\"\n[[account]]\naor = \"sip:a@b\"\ntransport = \"tcp\"\n");
    let flags = Overrides { transport: Some(TransportChoice::Tls), ..Overrides::default() };
    let config = load(Some(&written.path), &flags).unwrap();
    assert_eq!((config.accounts[0].transport, config.accounts[0].srtp), (TransportChoice::Tls, SrtpMode::Optional));
    let flags = Overrides { aor: Some("sip:c@d".to_owned()), ..Overrides::default() };
    let config = load(Some(&written.path), &flags).unwrap();
    assert_eq!((config.accounts[0].aor.as_str(), config.accounts.len()), ("sip:c@d", 1));
    assert_eq!(config.accounts[0].srtp, SrtpMode::Optional, "the file's general settings still count");
}

#[test]
fn hosts_and_ports_are_read_with_and_without_brackets() {
    let cases = [
        ("edge.test", Ok(("edge.test", 7))),
        ("edge.test:5061", Ok(("edge.test", 5061))),
        ("[2001:db8::1]:5061", Ok(("2001:db8::1", 5061))),
        ("[2001:db8::1]", Ok(("2001:db8::1", 7))),
        ("edge.test:0", Err(())),
        ("[2001:db8::1", Err(())),
        (":5060", Err(())),
        ("sip:edge", Err(())),
    ];
    for (text, want) in cases {
        let got = host_port(text, 7).map_err(|_| ());
        assert_eq!(got, want.map(|(host, port)| (host.to_owned(), port)), "{text}");
    }
}
