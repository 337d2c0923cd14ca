//! The commented file that `icephone config template` prints. Settings are commented with `#` and no blank, so that a
//! test (and a reader) can switch them all on.

/// A configuration that parses as it is, and also with every setting switched on.
pub const TEMPLATE: &str = r#"# icephone: $XDG_CONFIG_HOME/icephone/config.toml
#
# Remove the # of what you need. A key that does not exist is refused with its line number.
# Every flag and ICEPHONE_... variable wins over this file. Paths are relative to this file.

# ---- For all accounts ---------------------------------------------------------------------------------------------

# Name server instead of the system's.
#dns = "192.0.2.53:53"

# Seconds until an outgoing call that nobody answers is given up.
#ring-timeout = 60

# UDP ports for media; the system chooses otherwise.
#ports = [40000, 40999]

# How media may travel: "all", "no-host" (your addresses are not told to the peer), "relay-only", "relay-tcp-only".
#path = "all"

# Media encryption: "required", "optional" (falls back to none if the peer refuses), "off".
#srtp = "required"

# STUN servers; not needed where the edge gives relay credentials.
#stun = ["stun.example.com:3478"]

# Certificates to trust besides those of the operating system (PEM).
#tls.ca = "ca.pem"

# Sound cards by part of their name (`icephone devices` lists them). Use a headset: echo is not cancelled.
#[sound]
#input = "USB"
#output = "USB"

# A TURN relay with a fixed password (coturn's lt-cred-mech) ...
#[[turn]]
#server = "turn.example.com:3478"
#transport = "udp"                      # "udp", "tcp", "tls"
#user = "alice"
#password-env = "TURN_PASSWORD"

# ... or with a shared secret from which time-limited credentials are made (coturn's use-auth-secret).
#[[turn]]
#server = "turn.example.com"
#transport = "tls"
#user = "alice"
#rest-secret-env = "TURN_SECRET"

# ---- Accounts -----------------------------------------------------------------------------------------------------

#[[account]]
#aor = "sip:alice@example.com"
#display-name = "Alice"

# Digest user, where it is not the user part of the aor.
#auth-user = "alice"

# The password: one of these four. The last one only if this file is readable by you alone (chmod 600).
#password-command = "echo secret"       # its first line, for example "pass show sip/alice"
##password-env = "SIP_PASSWORD"
##password-file = "alice.password"
##password = "secret"

# Register, and for how many seconds at a time.
#register = true
#expires = 600

# Server instead of the one the DNS names: "host" or "host:port".
#edge = "sip.example.com:5061"

# "auto" (TLS where the domain names a TLS server), "tls", "tcp", "udp".
#transport = "auto"

# Where you are, as the relay credentials request says it: "auto", "intranet", "internet".
#location = "auto"

# Local address for SIP over UDP and TCP; the system chooses otherwise.
#listen = "0.0.0.0:5060"

# Ask the edge for relay credentials (MRAS).
#mras = true

# More calls than this at once are answered with "busy".
#calls-max = 8

# A peer in an answered call may transfer it: its target is called at once. false refuses.
#transfers = true

# An account may have its own dns, path, srtp and tls.ca.
"#;
