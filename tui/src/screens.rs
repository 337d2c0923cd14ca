//! Whole screens as text, at 80x24 and 120x40: what the user sees is reviewed like code.

use std::time::Duration;

use client::api::{
    AccountChange, AccountId, CallChange, CallId, CallState, CallStats, CandidateKind, CandidateView, Component,
    Direction, EndReason, Event, EventBody, IceReport, Location, MediaDirection, PairState, PairView, PathCause,
    PathView, Protection, RelayTransport, RttOrigin, ServerOutcome, Transport,
};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use crate::model::Model;
use crate::theme::Theme;
use crate::update::{Effect, Msg, update};
use crate::view::view;

const CALL: CallId = CallId(1);

/// A model fed with events, one every `step`.
struct Story {
    model: Model,
    seq: u64,
    at: Duration,
}

impl Story {
    fn new() -> Self {
        Self { model: Model::default(), seq: 0, at: Duration::ZERO }
    }

    fn at(mut self, ms: u64) -> Self {
        self.at = Duration::from_millis(ms);
        update(&mut self.model, Msg::Tick(ms));
        self
    }

    fn tell(mut self, body: EventBody) -> Self {
        self.seq += 1;
        let at_ms = u64::try_from(self.at.as_millis()).unwrap();
        update(&mut self.model, Msg::Engine(Event { seq: self.seq, at_ms, body }.into()));
        self
    }

    fn account(self, change: AccountChange) -> Self {
        self.tell(EventBody::Account { account: AccountId(1), change: Box::new(change) })
    }

    fn call(self, change: CallChange) -> Self {
        self.tell(EventBody::Call { call: CALL, change: Box::new(change) })
    }

    fn registered(self) -> Self {
        self.account(AccountChange::Added { aor: "sip:alice@lab.test".to_owned() })
            .at(4)
            .account(AccountChange::SrvSelected {
                name: "_sip._tls.lab.test".to_owned(),
                target: "edge.lab.test".to_owned(),
                address: "127.0.0.1:5061".parse().unwrap(),
                transport: Transport::Tls,
                took_ms: 4,
            })
            .at(12)
            .account(AccountChange::Registered {
                server: "127.0.0.1:5061".parse().unwrap(),
                transport: Transport::Tls,
                contact: "sip:alice@127.0.0.1:40112;transport=tls".to_owned(),
                expires_s: 600,
                public_address: None,
                location: Location::Internet,
                took_ms: 12,
            })
            .at(20)
            .account(AccountChange::CredentialsReceived {
                relays: vec!["turn.lab.test:3478 udp".to_owned(), "turn.lab.test:443 tcp".to_owned()],
                lifetime_s: 28_800,
                renew_in_s: 23_040,
                took_ms: 8,
            })
    }

    fn talking(self) -> Self {
        let valid = |local: CandidateView, name: &str| PathView {
            name: name.to_owned(),
            local,
            remote: candidate(CandidateKind::Host, "192.168.1.11:50020", None),
            rtt_us: Some(420),
        };
        let relay =
            valid(candidate(CandidateKind::Relay, "203.0.113.11:49160", Some(RelayTransport::Udp)), "relay(udp)-host");
        let host = valid(candidate(CandidateKind::Host, "192.168.1.10:50016", None), "host-host");
        let begun = self
            .at(1000)
            .call(CallChange::Created {
                account: AccountId(1),
                direction: Direction::Outgoing,
                peer: "sip:bob@lab.test".to_owned(),
            })
            .at(1012)
            .call(CallChange::Gathered { candidates: ours(), servers: servers(None), took_ms: 12 })
            .call(CallChange::State { state: CallState::Inviting })
            .at(1031)
            .call(CallChange::AnswerReceived {
                message: "183".to_owned(),
                early_dialog: 0,
                candidates: vec![candidate(CandidateKind::Host, "192.168.1.11:50020", None)],
                ice: true,
                rtcp_mux: true,
                crypto: true,
                took_ms: 19,
            })
            .at(1034)
            .call(CallChange::PairValid { component: Component::Rtp, path: relay.clone(), after_ms: 34 })
            .call(CallChange::PathChanged { component: Component::Rtp, path: relay, cause: PathCause::FirstValid })
            .call(CallChange::State { state: CallState::EarlyMedia })
            .call(CallChange::MediaStarted { codec: "opus/48000".to_owned(), protection: Protection::Srtp })
            .call(CallChange::FirstMedia { direction: MediaDirection::Received, after_ms: 36 });
        begun
            .at(2031)
            .call(CallChange::State { state: CallState::Talking })
            .call(CallChange::PairValid { component: Component::Rtp, path: host.clone(), after_ms: 40 })
            .call(CallChange::PathChanged { component: Component::Rtp, path: host.clone(), cause: PathCause::Promoted })
            .call(CallChange::Promoted { path: host, after_ms: 350, standby: Vec::new() })
            .at(2044)
            .call(CallChange::Announced { by_us: true, took_ms: 13 })
            .at(85_031)
            .call(CallChange::Stats { stats: Box::new(figures()) })
    }

    fn screen(&self, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let theme = Theme::new(true, true);
        terminal.draw(|frame| view(&self.model, &theme, frame)).unwrap();
        terminal.backend().to_string()
    }

    fn key(&mut self, code: KeyCode) -> Vec<Effect> {
        update(&mut self.model, Msg::Key(KeyEvent::new(code, KeyModifiers::NONE)))
    }
}

fn candidate(kind: CandidateKind, address: &str, relay: Option<RelayTransport>) -> CandidateView {
    CandidateView {
        component: Component::Rtp,
        kind,
        address: address.parse().unwrap(),
        related: None,
        relay,
        tcp: None,
        priority: 2_130_706_431,
    }
}

fn ours() -> Vec<CandidateView> {
    vec![
        candidate(CandidateKind::Host, "192.168.1.10:50016", None),
        candidate(CandidateKind::Srflx, "203.0.113.20:50016", None),
        candidate(CandidateKind::Relay, "203.0.113.11:49160", Some(RelayTransport::Udp)),
        candidate(CandidateKind::Relay, "203.0.113.11:49170", Some(RelayTransport::Tcp)),
    ]
}

fn servers(failure: Option<&str>) -> Vec<ServerOutcome> {
    vec![ServerOutcome {
        server: "203.0.113.11:3478".to_owned(),
        transport: RelayTransport::Udp,
        failure: failure.map(str::to_owned),
        took_ms: 9,
    }]
}

fn figures() -> CallStats {
    CallStats {
        sent_packets: 4150,
        received_packets: 4149,
        jitter_ms: 0.8,
        delay_ms: 40.0,
        loss_percent: 0.02,
        rtt_ms: Some(1.4),
        rtt_origin: Some(RttOrigin::Rtcp),
        level_out_dbfs: -18.0,
        level_in_dbfs: -23.5,
        mos: Some(4.4),
        codec: "opus/48000".to_owned(),
        ..CallStats::default()
    }
}

fn incoming() -> Story {
    Story::new()
        .registered()
        .at(500)
        .tell(EventBody::Call {
            call: CallId(2),
            change: Box::new(CallChange::Created {
                account: AccountId(1),
                direction: Direction::Incoming,
                peer: "sip:carol@lab.test".to_owned(),
            }),
        })
        .tell(EventBody::Call { call: CallId(2), change: Box::new(CallChange::State { state: CallState::Ringing }) })
}

fn failed() -> Story {
    let failure = "no answer from 203.0.113.11:3478 over UDP within 500 ms; check that the port is open";
    let pair = PairView {
        path: PathView {
            name: "host-host".to_owned(),
            local: candidate(CandidateKind::Host, "192.168.1.10:50016", None),
            remote: candidate(CandidateKind::Host, "10.0.0.10:50020", None),
            rtt_us: None,
        },
        state: PairState::Failed,
        nominated: false,
        selected: false,
        cause: Some("no answer to 7 checks".to_owned()),
    };
    let report =
        IceReport { local: ours(), servers: servers(Some(failure)), pairs: vec![pair], ..IceReport::default() };
    Story::new()
        .registered()
        .at(1000)
        .call(CallChange::Created {
            account: AccountId(1),
            direction: Direction::Outgoing,
            peer: "sip:bob@lab.test".to_owned(),
        })
        .at(1500)
        .call(CallChange::Gathered { candidates: ours(), servers: servers(Some(failure)), took_ms: 500 })
        .at(41_000)
        .call(CallChange::Ended {
            reason: EndReason::NoPath {
                report: Box::new(report.clone()),
                advice: "open UDP or TCP 443 to the relay".to_owned(),
            },
            stats: Box::default(),
            report: Box::new(report),
            duration_ms: 40_000,
        })
}

#[test]
fn screens_look_as_reviewed() {
    let mut help = Story::new().registered().talking();
    help.key(KeyCode::Char('?'));
    let mut dialling = Story::new().registered();
    dialling.key(KeyCode::Char('d'));
    for c in "bob".chars() {
        dialling.key(KeyCode::Char(c));
    }
    let mut paths = failed();
    paths.key(KeyCode::Tab);
    let mut history = failed();
    history.key(KeyCode::Tab);
    history.key(KeyCode::Tab);
    let mut accounts = Story::new().registered();
    accounts.key(KeyCode::BackTab);
    accounts.key(KeyCode::BackTab);
    let stories = [
        ("idle", Story::new().registered()),
        ("dialling", dialling),
        ("incoming", incoming()),
        ("talking", Story::new().registered().talking()),
        ("failed", failed()),
        ("paths", paths),
        ("history", history),
        ("accounts", accounts),
        ("help", help),
    ];
    for (name, story) in stories {
        insta::assert_snapshot!(format!("{name}_80x24"), story.screen(80, 24));
        insta::assert_snapshot!(format!("{name}_120x40"), story.screen(120, 40));
    }
}

#[test]
fn a_small_terminal_shows_one_pane_and_a_tiny_one_says_so() {
    let story = Story::new().registered().talking();
    insta::assert_snapshot!("talking_40x12", story.screen(40, 12));
    assert!(story.screen(30, 8).contains("terminal too small: 30x8"));
}

/// Dialling picks odd ids that no running call has.
#[test]
fn d_bob_enter_dials_bob() {
    let mut story = Story::new().registered();
    assert!(story.key(KeyCode::Char('d')).is_empty());
    for c in "bob".chars() {
        assert!(story.key(KeyCode::Char(c)).is_empty());
    }
    let effects = story.key(KeyCode::Enter);
    let [Effect::Command(command)] = effects.as_slice() else { panic!("{effects:?}") };
    let client::api::Command::Dial { call, to, .. } = &**command else { panic!("{command:?}") };
    assert!(call.is_callers());
    assert_eq!(to, "bob");
}

#[test]
fn keys_make_the_commands_their_labels_promise() {
    use client::api::Command;
    let call = CallId(2);
    let mut ringing = incoming();
    assert_eq!(
        ringing.key(KeyCode::Char('a')),
        [Effect::Command(Box::new(Command::Answer { call, options: Box::default() }))]
    );
    assert_eq!(ringing.key(KeyCode::Char('x')), [Effect::Command(Box::new(Command::Reject { call, status: 486 }))]);
    let mut talking = Story::new().registered().talking();
    let call = CALL;
    let cases = [
        ('x', Command::Hangup { call }),
        ('m', Command::SetMuted { call, muted: true }),
        ('h', Command::Hold { call }),
        ('i', Command::RestartIce { call }),
        ('7', Command::SendDtmf { call, digits: "7".to_owned() }),
        ('#', Command::SendDtmf { call, digits: "#".to_owned() }),
    ];
    for (key, want) in cases {
        assert_eq!(talking.key(KeyCode::Char(key)), [Effect::Command(Box::new(want))], "key {key}");
    }
}

#[test]
fn quitting_asks_while_a_call_runs_and_does_not_ask_without() {
    let mut talking = Story::new().registered().talking();
    assert!(talking.key(KeyCode::Char('q')).is_empty());
    assert!(talking.key(KeyCode::Char('n')).is_empty());
    assert!(talking.key(KeyCode::Char('q')).is_empty());
    assert!(talking.key(KeyCode::Char('y')).contains(&Effect::Quit));
    assert!(Story::new().registered().key(KeyCode::Char('q')).contains(&Effect::Quit));
}

#[test]
fn the_bell_rings_at_once_and_every_three_seconds_until_somebody_answers() {
    let mut story = incoming();
    let rings = |story: &mut Story, ms| update(&mut story.model, Msg::Tick(ms)) == [Effect::Bell];
    assert!(!rings(&mut story, 600), "it rang when the call came, at 500 ms");
    assert!(rings(&mut story, 3500));
    assert!(!rings(&mut story, 6000));
    let mut story = story
        .tell(EventBody::Call { call: CallId(2), change: Box::new(CallChange::State { state: CallState::Talking }) });
    assert!(!rings(&mut story, 9000));
}

#[test]
fn every_binding_has_a_help_sentence_and_no_key_means_two_things_at_once() {
    let mut story = Story::new().registered().talking();
    story.model.last_dialled = Some("bob".to_owned());
    for (at, binding) in crate::keymap::BINDINGS.iter().enumerate() {
        assert!(!binding.help.is_empty(), "{binding:?}");
        let twin = crate::keymap::BINDINGS.iter().skip(at + 1).find(|other| {
            other.key == binding.key
                && other.modifiers == binding.modifiers
                && crate::keymap::available(&story.model, other.action)
                && crate::keymap::available(&story.model, binding.action)
        });
        assert!(twin.is_none(), "{binding:?} and {twin:?}");
    }
}
